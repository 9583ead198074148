"""Figures of a sweep by axis: accuracy against its values, beside what each value costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from clipbench.reporting.tables import figures
from clipbench.results import frames

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The cost of a mean is that of its fastest run: other work on the machine only adds to it.
COSTS = {
    "training, ms per image": ("cost/images_per_second", lambda pace: 1000 / pace.max()),
    "whole run, s": ("cost/seconds", lambda seconds: seconds.min()),
    "peak memory, GB": ("cost/peak_memory_bytes", lambda size: size.max() / 1e9),
    "trained parameters, M": ("cost/trainable", lambda count: count.max() / 1e6),
}


@dataclass(frozen=True)
class Axis:
    """The horizontal axis of a figure: its column, and the position of each value.

    No line joins values that are ``words``.
    """

    name: str
    ticks: dict[str, float]
    words: bool

    @classmethod
    def of(cls, values: pd.Series) -> "Axis":
        """Place numbers to scale, ``all`` one step after the last number, and words in a row."""
        name = str(values.name)
        texts = [frames.cell(v) for v in frames.ordered(values.to_frame(), [name])[name].unique()]
        numbers = {t: float(t) for t in texts if t.replace(".", "").replace("e-", "").isdigit()}
        if len(numbers) < 2 or set(texts) - numbers.keys() - {"all"}:
            return cls(name, {text: float(i) for i, text in enumerate(texts)}, words=True)
        *_, before, last = sorted(numbers.values())
        return cls(name, {t: numbers.get(t, 2 * last - before) for t in texts}, words=False)

    @property
    def doubles(self) -> bool:
        """Whether the scale is logarithmic, as for a learning rate."""
        low, high = min(self.ticks.values()), max(self.ticks.values())
        return not self.words and low > 0 and high / low >= 8


def by_axis(frame: pd.DataFrame, stem: Path) -> list[Path]:
    """Draw the test metrics and the costs against each axis with three values or more.

    A point is the mean over seeds with its 95 % interval, and the lowest cost. Each value of the
    other axes is a line; shift splits and retention are dashed. Epoch 0 of a model with one line
    and one start is a thin horizontal line. Return the files written, ``<stem>_by_<axis>.png``.
    """
    written = []
    for name in frames.seedless(frame):
        if name not in ("model", "dataset") and frame[name].map(str).nunique() >= 3:
            written.append(stem.with_name(f"{stem.name}_by_{name.split('.')[-1]}.png"))
            _draw(frame, Axis.of(frame[name]), written[-1])
    return written


def _draw(frame: pd.DataFrame, axis: Axis, path: Path) -> None:
    metric = str(frame["selection/metric"].iloc[0]).split("/")[1]
    splits = [name.split("/")[0] for name in map(str, frame) if name.endswith(f"/{metric}")]
    metrics = [f"{split}/{metric}" for split in splits if split != "val"]
    metrics.sort(key=lambda c: not c.startswith("test/"))
    costs = [label for label, (column, _) in COSTS.items() if frame[column].notna().any()]
    placed = [*costs, ".", ".", ".", "."]  # a probe has no pace: its panel would be empty
    figure, panels = figures.pyplot().subplot_mosaic(
        [["main", *placed[:2]], ["main", *placed[2:4]]],
        figsize=(12, 4.6),
        width_ratios=[2.4, 1, 1],
        layout="constrained",
    )
    apart = [name for name in frames.seedless(frame) if name != axis.name]
    rows = frames.ordered(frame, [*apart, axis.name])
    parts = [part for _, part in rows.groupby(apart or ["model"], sort=False, dropna=False)]
    models = [part["model"].iloc[0] for part in parts]
    for number, part in enumerate(parts):
        peers = [i for i, model in enumerate(models) if model == models[number]]
        share = (peers.index(number) + 1) / (len(peers) + 1)
        color = figures.hue(sorted(set(models)).index(models[number]), share)
        name = ", ".join(_label(part, other) for other in apart) or str(models[number])
        _metrics(panels["main"], part, axis, metrics, color, name)
        _costs(panels, part, axis, color)
        if len(peers) == 1 and part["epoch0"].nunique() == 1:
            zero = {"color": color, "lw": 0.7, "label": f"{name}: before training, val"}
            panels["main"].axhline(part["epoch0"].max(), **zero)
    _dress(panels, axis, metric)
    panels["main"].legend(fontsize=8, frameon=False, title=_counted(frame), title_fontsize=8)
    figures.save(figure, path)


def _label(part: pd.DataFrame, axis: str) -> str:
    value = frames.cell(part[axis].iloc[0])
    key = "" if axis in ("model", "dataset", "strategy") else f"{axis.split('.')[-1]}="
    return figures.plain(f"{key}{value}")


def _counted(frame: pd.DataFrame) -> str | None:
    counts = frames.means(frame, frames.seedless(frame), [])["n"]
    if counts.max() == 1:
        return None
    n = f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
    return f"mean and 95 % interval, {n} seeds"


def _metrics(
    panel: Any, part: pd.DataFrame, axis: Axis, metrics: Sequence[str], color: Any, name: str
) -> None:
    means = frames.means(part, [axis.name], metrics)
    where = means[axis.name].map(frames.cell).map(axis.ticks)
    for (line, mark), column in zip(figures.MARKS, metrics, strict=False):
        look = {"ls": "" if axis.words else line, "marker": mark, "ms": 5, "color": color}
        look |= {"capsize": 2, "elinewidth": 1, "label": f"{name}: {column.split('/')[0]}"}
        panel.errorbar(where, means[column], frames.bars(means, column), **look)


def _costs(panels: dict[str, "Axes"], part: pd.DataFrame, axis: Axis, color: Any) -> None:
    where = part[axis.name].map(frames.cell).map(axis.ticks)
    for label, (column, least) in COSTS.items():
        if label not in panels:
            continue
        costs = pd.to_numeric(part[column]).groupby(where).agg(least)
        look = {"ls": "" if axis.words else "-", "marker": "o", "ms": 3.5, "color": color}
        panels[label].plot(costs.index, costs, **look)


def _dress(panels: dict[str, "Axes"], axis: Axis, metric: str) -> None:
    for name, panel in panels.items():
        figures.open_axes(panel)
        if axis.doubles:
            panel.set_xscale("log")
            panel.minorticks_off()
        panel.set_xticks(list(axis.ticks.values()), [*map(figures.plain, axis.ticks)])
        if axis.words:
            for text in panel.get_xticklabels():
                text.set(rotation=40, ha="right", rotation_mode="anchor")
        if name != "main":
            panel.set_title(name, fontsize=9)
            panel.set_ylim(0, 1.1 * panel.dataLim.ymax or None)
            panel.tick_params(labelsize=7, labelbottom=name in [*panels][-2:])
            panel.locator_params(axis="y", nbins=4)
    label = "images per class" if axis.name == "shots" else axis.name
    panels["main"].set(xlabel=label, ylabel=metric)
    low, high = panels["main"].get_ylim()
    panels["main"].set_ylim(max(0, low), min(1.0, high))
