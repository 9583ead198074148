"""Figures from run records: curves over each other, and accuracy against what a sweep varied."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from clipbench import results

Runs = Sequence[tuple[Path, dict[str, Any]]]

AXES = (
    *("model", "dataset", "strategy", "lr", "batch_size", "epochs"),
    *("freeze_depth", "shots", "seed"),
)
_MAPS = ("Blues", "Oranges", "Greens", "Purples", "Reds", "Greys")
_MARKS = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "v"))


def frame(runs: Runs) -> pd.DataFrame:
    """One row a run, with a column for each further key that its sweep typed."""
    known = {*AXES, "dataset.shots"}
    return pd.DataFrame(
        [
            {k: v for k, v in record.get("typed", {}).items() if k not in known}
            | results.row(folder, record)
            for folder, record in runs
        ]
    )


def varying(frame: pd.DataFrame) -> list[str]:
    """What sets the runs apart: the axes, then the keys that only this sweep typed."""
    told = [str(c) for c in frame if c not in AXES and _typed(str(c))]
    return [a for a in (*AXES, *told) if frame[a].astype(str).nunique() > 1]


def _typed(column: str) -> bool:
    return column not in ("key", "status", "folder", "epoch0") and "/" not in column


def _canvas(width: float, height: float) -> tuple[Any, Any]:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylim(0, 1.02)
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    import matplotlib.pyplot as plt

    figure.savefig(path, dpi=130)
    plt.close(figure)


def _hue(model: int, share: float) -> Any:
    import matplotlib as mpl

    return mpl.colormaps[_MAPS[model % len(_MAPS)]](0.45 + 0.5 * share)


def label(record: Mapping[str, Any], varying: Sequence[str]) -> str:
    """A readable name for a run: its model and what else varies in its sweep."""
    told = {**record.get("typed", {}), **record}
    told["shots"] = record["config"]["dataset"].get("shots")
    rest = [f"{a}={told[a]}" for a in varying if a not in ("model", "dataset") and a in told]
    return " ".join([record["model"], *rest])


def curves(runs: Runs, path: Path) -> None:
    """Every run's validation metric against the epoch, epoch 0 included, over each other."""
    from matplotlib.ticker import MaxNLocator

    rows = frame(runs)
    apart = varying(rows)
    models = sorted(rows["model"].unique())
    figure, axes = _canvas(9, 5)
    shown = sorted(runs, key=lambda run: label(run[1], apart))
    for _, record in shown:
        metric = record["selection"]["metric"]
        points = [(r["epoch"], r[metric]) for r in record["curve"] if r.get(metric) is not None]
        peers = [r["key"] for _, r in shown if r["model"] == record["model"]]
        share = peers.index(record["key"]) / max(1, len(peers) - 1)
        color = _hue(models.index(record["model"]), share)
        name = label(record, apart)
        axes.plot(*zip(*points, strict=True), "o-", ms=3, lw=1.4, color=color, label=name)
    axes.set(xlabel="epoch (0: before training)", ylabel=shown[0][1]["selection"]["metric"])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    _save(figure, path)


def by_axis(runs: Runs, stem: Path) -> list[Path]:
    """For each numeric axis of three values or more, the test metrics of each model against it.

    A point is the mean over the runs that share it; the shift splits are dashed. Epoch 0 of models
    that have one is a thin line across.

    Returns:
        The files written, ``<stem>_by_<axis>.png``.
    """
    rows = frame(runs)
    metric = str(runs[0][1]["selection"]["metric"]).split("/")[1]
    columns = [str(c) for c in rows]
    columns = [c for c in columns if c.endswith(f"/{metric}") and not c.startswith("val/")]
    written = []
    for axis in ("lr", "batch_size", "epochs", "freeze_depth", "shots"):
        values = pd.to_numeric(rows[axis], errors="coerce")
        if values.nunique() < 3:
            continue
        figure, axes = _canvas(6.5, 4.2)
        for i, (model, part) in enumerate(rows.assign(**{axis: values}).groupby("model")):
            for (line, mark), column in zip(_MARKS, columns, strict=False):
                mean = part.groupby(axis)[column].mean()
                look = {"color": _hue(i, 0.6), "ls": line, "marker": mark, "ms": 5}
                axes.plot(mean.index, mean, label=f"{model}, {column.split('/')[0]}", **look)
            if part["epoch0"].notna().any():
                zero, name = part["epoch0"].mean(), f"{model} before training, val"
                axes.axhline(zero, color=_hue(i, 0.6), lw=0.7, label=name)
        axes.set(xlabel="pictures a class" if axis == "shots" else axis, ylabel=metric)
        if axis in ("lr", "shots"):
            axes.set_xscale("log")
            axes.set_xticks(sorted(values.dropna().unique()))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.minorticks_off()
        axes.legend(fontsize=8, frameon=False)
        written.append(stem.with_name(f"{stem.name}_by_{axis}.png"))
        _save(figure, written[-1])
    return written


def alpha_curve(record: Mapping[str, Any], path: Path) -> None:
    """The line from a run's start to its end: shift splits against test, and all against alpha.

    The first panel is WiSE-FT's picture (Wortsman et al. 2022, figure 1); it is left out of a
    dataset without shift splits.

    Args:
        record: with ``alpha_curve``.
        path: of the figure.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows, metric = record["alpha_curve"], record["selection"]["metric"].split("/")[1]
    chosen = record["selection"]["alpha"]
    names = [name for name in rows[0] if name.endswith(f"/{metric}")]
    known = ("val", "test", "retention")
    shifts = [name for name in names if name.split("/")[0] not in known]
    panels = 2 if shifts and f"test/{metric}" in names else 1
    size = (5.2 * panels, 4.2)
    figure, axes = plt.subplots(1, panels, figsize=size, layout="constrained", squeeze=False)
    for panel in axes[0]:
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    alphas, line = [row["alpha"] for row in rows], axes[0][-1]
    for (look, mark), name in zip(_MARKS * len(names), names, strict=False):
        line.plot(alphas, [r[name] for r in rows], label=name.split("/")[0], ls=look, marker=mark)
    line.axvline(chosen, color="grey", lw=0.8, label=f"{chosen:g}: best on val")
    line.set(xlabel="alpha (0: the start, 1: tuned)", ylabel=metric)
    line.legend(fontsize=8, frameon=False)
    if panels == 2:
        for (look, mark), name in zip(_MARKS * len(shifts), shifts, strict=False):
            points = [(row[f"test/{metric}"], row[name]) for row in rows]
            axes[0][0].plot(*zip(*points, strict=True), ls=look, marker=mark, label=name)
            for alpha, point in zip(alphas, points, strict=True):
                if alpha in (alphas[0], chosen, alphas[-1]):
                    style = {"xytext": (4, 5), "textcoords": "offset points", "fontsize": 8}
                    axes[0][0].annotate(f"{alpha:g}", point, **style)
        axes[0][0].set(xlabel=f"test/{metric}", ylabel=f"shift/{metric}")
        axes[0][0].legend(fontsize=8, frameon=False)
    _save(figure, path)
