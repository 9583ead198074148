"""Figures of runs: their curves over each other, and what all figures share."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from clipbench.results import frames

_MAPS = ("Blues", "Oranges", "Greens", "Purples", "Reds", "Greys")
MOST = 30  # lines, or thin lines of one colour, that a reader can tell apart
MARKS = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "v"))


def pyplot() -> Any:
    """Return Matplotlib's pyplot without a display, imported when something is drawn."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def open_axes(panel: Any, *, grid: bool = True) -> None:
    """Take away the upper and the right spine, and draw a faint grid."""
    panel.spines[["top", "right"]].set_visible(False)
    if grid:
        panel.grid(alpha=0.25)


def save(figure: Any, path: Path) -> None:
    """Write a figure as PNG and close it."""
    figure.set_dpi(130)
    # savefig would draw twice; level 3 is a third faster for a tenth more bytes.
    figure.canvas.print_png(path, pil_kwargs={"compress_level": 3})
    pyplot().close(figure)


def hue(model: int, share: float) -> Any:
    """Return the colour of a model, lighter (``share`` 0) or darker (1)."""
    return pyplot().get_cmap(_MAPS[model % len(_MAPS)])(0.45 + 0.5 * share)


def plain(text: str) -> str:
    """Escape dollar signs, between which matplotlib would read maths."""
    return text.replace("$", r"\$")


def label(row: Mapping[str, Any], varying: Sequence[str]) -> str:
    """Return a readable name for a run: its model and what else varies in its sweep."""
    axes = [axis for axis in varying if axis not in ("model", "dataset")]
    values = [f"{axis}={value}" for axis in axes if (value := frames.cell(row[axis]))]
    return " ".join([str(row["model"]), *values])


def curves(frame: pd.DataFrame, path: Path) -> bool:
    """Draw the validation metric of all runs against the epoch, epoch 0 included.

    Runs that differ only by seed have one colour: thin lines, and their mean. Nothing is drawn, and
    False returned, of old frozen rows, which have no curves.
    """
    from matplotlib.ticker import MaxNLocator

    apart = frames.seedless(frame)
    frame = frames.ordered(frame, apart) if apart else frame
    lines = frames.curves(frame)
    if lines.isna().all(axis=None):
        return False
    names = frame.apply(lambda row: label(row, apart), axis=1)
    groups = {
        (frame["model"][part[0]], name): part
        for name, part in names.groupby(names, sort=False).groups.items()
    }
    best = sorted(groups, key=lambda group: -lines.loc[groups[group]].mean().max())[:MOST]
    left_out = len(groups) - len(best)
    groups = {group: rows for group, rows in groups.items() if group in best}
    models = sorted({model for model, _ in groups})
    figure, axes = pyplot().subplots(figsize=(9, 5))
    open_axes(axes)
    axes.set_ylim(0, 1.02)
    for model, name in groups:
        seeds = lines.loc[groups[model, name]]
        peers = [label for of, label in groups if of == model]
        place = peers.index(name)
        color = hue(models.index(model), place / max(1, len(peers) - 1))
        look = {"color": color, "ls": MARKS[place % len(MARKS)][0]}
        if len(seeds) > 1:
            for _, line in seeds.iloc[:MOST].iterrows():
                axes.plot(line.dropna(), lw=0.5, **look)
            name = f"{name}, mean of {len(seeds)} seeds"
        axes.plot(seeds.mean().dropna(), marker="o", ms=3, lw=1.5, label=plain(str(name)), **look)
    axes.set(xlabel="epoch (0: before training)", ylabel=frame["selection/metric"].iloc[0])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    style = {"fontsize": 7, "title_fontsize": 7, "loc": "center left", "frameon": False}
    title = f"the best {MOST}; {left_out} are left out" if left_out else None
    legend = axes.legend(bbox_to_anchor=(1.0, 0.5), title=title, **style)
    # layout="constrained" would do the same, but measures all texts four times.
    wide = legend.get_window_extent().width / figure.bbox.width
    figure.subplots_adjust(left=0.075, right=max(0.3, 0.99 - wide), bottom=0.1, top=0.98)
    save(figure, path)
    return True
