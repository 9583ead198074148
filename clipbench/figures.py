"""Figures from run records: curves over each other."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from clipbench import frames

_MAPS = ("Blues", "Oranges", "Greens", "Purples", "Reds", "Greys")
MARKS = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "v"))


def _canvas(width: float, height: float) -> tuple[Any, Any]:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylim(0, 1.02)
    return figure, axes


def save(figure: Any, path: Path) -> None:
    """Write a figure and let go of it."""
    import matplotlib.pyplot as plt

    figure.savefig(path, dpi=130)
    plt.close(figure)


def hue(model: int, share: float) -> Any:
    """A colour: each model has its own, ``share`` makes it lighter (0) or darker (1)."""
    import matplotlib as mpl

    return mpl.colormaps[_MAPS[model % len(_MAPS)]](0.45 + 0.5 * share)


def label(record: Mapping[str, Any], varying: Sequence[str]) -> str:
    """A readable name for a run: its model and what else varies in its sweep."""
    told = {**record.get("typed", {}), **record}
    told["shots"] = record["config"]["dataset"].get("shots")
    rest = [f"{a}={told[a]}" for a in varying if a not in ("model", "dataset") and a in told]
    return " ".join([record["model"], *rest])


def curves(runs: frames.Runs, path: Path) -> None:
    """The validation metric against the epoch, epoch 0 included, of all runs over each other.

    Runs that differ by their seed alone have one colour: thin lines, and their mean.
    """
    from matplotlib.ticker import MaxNLocator

    apart = frames.seedless(frames.frame(runs))
    metric = runs[0][1]["selection"]["metric"]
    groups: dict[tuple[str, str], list[Any]] = {}
    for _, record in sorted(runs, key=lambda run: label(run[1], apart)):
        groups.setdefault((record["model"], label(record, apart)), []).append(
            pd.Series({row["epoch"]: row.get(metric) for row in record["curve"]}, dtype=float)
        )
    models = sorted({model for model, _ in groups})
    figure, axes = _canvas(9, 5)
    for model, name in groups:
        seeds = groups[model, name]
        peers = [other for own, other in groups if own == model]
        color = hue(models.index(model), peers.index(name) / max(1, len(peers) - 1))
        look = {"color": color, "ls": MARKS[peers.index(name) % len(MARKS)][0]}
        if len(seeds) > 1:
            for line in seeds:
                axes.plot(line.dropna(), lw=0.5, **look)
            name = f"{name}, mean of {len(seeds)} seeds"
        mean = pd.concat(seeds, axis=1).mean(axis=1).dropna()
        axes.plot(mean, marker="o", ms=3, lw=1.5, label=name, **look)
    axes.set(xlabel="epoch (0: before training)", ylabel=metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    save(figure, path)
