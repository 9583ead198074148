"""WiSE-FT's line from the weights before training to those after: one run, or a mean over seeds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from clipbench.reporting.tables import figures
from clipbench.results import frames
from clipbench.results.record import RunRecord

Rows = Sequence[Mapping[str, float]]


def alpha_curve(record: RunRecord, path: Path) -> None:
    """Draw the ``alpha_curve`` of one run."""
    metric, alpha = record.selection.metric.split("/")[1], record.selection.alpha
    assert alpha is not None  # where there is a curve, one was chosen
    _draw(record.alpha_curve, metric, alpha, path)


def over_seeds(frame: pd.DataFrame, stem: Path) -> list[Path]:
    """Draw the mean line of the runs that differ only by seed, with 95 % intervals.

    Return the files written: ``<stem>_by_alpha.png``, or one for each value of the other axes.
    """
    names = [str(c) for c in frame if "@alpha=" in str(c)]
    chosen = frame.get("selection/alpha", pd.Series(dtype=float))
    if chosen.isna().all() or "seed" not in frames.varying(frame):
        return []
    axes, written = frames.settings(frame, frames.seedless(frame)), []
    metric = str(frame["selection/metric"].iloc[0]).split("/")[1]
    for _, mean in frames.means(frame, axes, [*names, "selection/alpha"]).iterrows():
        rows = dict[str, dict[str, float]]()
        for name in names:
            column, alpha = name.split("@alpha=")
            if column.endswith(f"/{metric}"):
                row = rows.setdefault(alpha, {"alpha": float(alpha)})
                row |= {column: mean[name]}
                row |= {f"{column} {end}": mean[f"{name} {end}"] for end in ("low", "high")}
        ending = "".join(f"_{a.split('.')[-1]}={frames.cell(mean[a])}" for a in axes)
        written.append(stem.with_name(f"{stem.name}_by_alpha{ending}.png"))
        title = f"mean and 95 % interval, {mean['n']:.0f} seeds"
        points = sorted(rows.values(), key=lambda row: row["alpha"])
        _draw(points, metric, mean["selection/alpha"], written[-1], title)
    return written


def _draw(rows: Rows, metric: str, chosen: float, path: Path, title: str | None = None) -> None:
    """Draw the shift splits against test, and every split against alpha.

    The first panel is that of WiSE-FT's figure 1 (Wortsman et al. 2022). A dataset without shift
    splits has only the second.
    """
    first = {f"{split}/{metric}": i for i, split in enumerate(("val", "test"))}
    names = [name for name in rows[0] if name.endswith(f"/{metric}")]
    names.sort(key=lambda name: first.get(name, 2))
    shifts = [n for n in names if n.split("/")[0] not in ("val", "test", "retention")]
    panels = 2 if shifts and f"test/{metric}" in names else 1
    size = {"figsize": (5.2 * panels, 4.2), "layout": "constrained"}
    figure, axes = figures.pyplot().subplots(1, panels, squeeze=False, **size)
    for panel in axes[0]:
        figures.open_axes(panel)
    points, line = pd.DataFrame(rows), axes[0][-1]
    for (look, mark), name in zip(figures.MARKS * len(names), names, strict=False):
        spread = frames.bars(points, name) if f"{name} low" in points else None
        style = {"label": name.split("/")[0], "ls": look, "marker": mark, "ms": 5}
        line.errorbar(points["alpha"], points[name], spread, capsize=2, elinewidth=0.8, **style)
    line.axvline(chosen, color="grey", lw=0.8, label=f"{chosen:.2g}: best on val")
    line.set(xlabel="alpha (0: the start, 1: tuned)", ylabel=metric)
    line.legend(fontsize=8, frameon=False, title=title, title_fontsize=8)
    if panels == 2:
        _shift(axes[0][0], rows, metric, shifts, chosen)
    figures.save(figure, path)


def _shift(panel: Any, rows: Rows, metric: str, shifts: Sequence[str], chosen: float) -> None:
    nearest = min((row["alpha"] for row in rows), key=lambda alpha: abs(alpha - chosen))
    labelled = (rows[0]["alpha"], nearest, rows[-1]["alpha"])
    for (look, mark), name in zip(figures.MARKS * len(shifts), shifts, strict=False):
        points = [(row[f"test/{metric}"], row[name]) for row in rows]
        panel.plot(*zip(*points, strict=True), ls=look, marker=mark, label=name)
        for row, point in zip(rows, points, strict=True):
            if row["alpha"] in labelled:
                style = {"xytext": (4, 5), "textcoords": "offset points", "fontsize": 8}
                panel.annotate(f"{row['alpha']:g}", point, **style)
    panel.set(xlabel=f"test/{metric}", ylabel=f"shift/{metric}")
    panel.legend(fontsize=8, frameon=False)
