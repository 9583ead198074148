"""Figures from run records: curves over each other."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
    """Every run's validation metric against the epoch, epoch 0 included, over each other."""
    from matplotlib.ticker import MaxNLocator

    rows = frames.frame(runs)
    apart = frames.varying(rows)
    models = sorted(rows["model"].unique())
    figure, axes = _canvas(9, 5)
    shown = sorted(runs, key=lambda run: label(run[1], apart))
    for _, record in shown:
        metric = record["selection"]["metric"]
        points = [(r["epoch"], r[metric]) for r in record["curve"] if r.get(metric) is not None]
        peers = [r["key"] for _, r in shown if r["model"] == record["model"]]
        share = peers.index(record["key"]) / max(1, len(peers) - 1)
        color = hue(models.index(record["model"]), share)
        name = label(record, apart)
        axes.plot(*zip(*points, strict=True), "o-", ms=3, lw=1.4, color=color, label=name)
    axes.set(xlabel="epoch (0: before training)", ylabel=shown[0][1]["selection"]["metric"])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    save(figure, path)
