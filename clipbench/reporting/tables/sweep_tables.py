"""A sweep's own tables and figures: a row a run, means over seeds, costs; no torch."""

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from clipbench.core import paths
from clipbench.core.config import overrides
from clipbench.core.console import marked, show
from clipbench.reporting.tables import alpha_figures, axis_figures, figures, typeset
from clipbench.results import frames
from clipbench.results.sweep_log import sweep_runs


def _metrics(frame: pd.DataFrame) -> list[str]:
    """Accuracy, worst groups, recalls, what runs were selected by; val, then test, then shifts."""
    about = ("selection/", "cost/", "data/", "curve/", "versions/", "git/", "run/")
    names = [c for c in frame.columns if "/" in c and not c.startswith(about)]
    if any(c.endswith("@alpha") for c in names):  # those of the best alpha; the rest is a curve
        names = [c for c in names if "@alpha=" not in c]
    order = {"val": 0, "test": 1}
    chosen = {metric.split("/")[1] for metric in frame["selection/metric"]}
    bare = {c: c.split("@")[0].split("/")[1] for c in names}
    kept = [
        c
        for c in names
        if bare[c] in {"acc", *chosen}
        or bare[c].startswith("acc_worst_")
        or c.startswith(("test/image_recall@", "test/text_recall@"))
    ]
    return sorted(kept, key=lambda c: (order.get(c.split("/")[0], 2), c))


def _told(frame: pd.DataFrame) -> list[str]:
    """The columns that say which run it is, in the order of the axes."""
    told = list(dict.fromkeys(["model", "dataset", *frames.varying(frame)]))
    return sorted(told, key=[*frames.AXES, *told].index)


def result_table(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a run: the axes that vary, epoch 0, the chosen epoch, every metric, and the data.

    ``data`` is the start of the test split's fingerprint, of its images', and their number: rows
    compare only where it is equal.
    """
    told, table = _told(frame), _named(frame)
    alpha = ["alpha"] if table.get("alpha", pd.Series()).notna().any() else []
    columns = [*told, "epoch 0", "chosen", *alpha, *_metrics(frame), "data", "key"]
    return frames.ordered(table, [*told, "key"])[columns]


def _named(frame: pd.DataFrame) -> pd.DataFrame:
    names = {"selection/epoch": "chosen", "epoch0": "epoch 0", "selection/alpha": "alpha"}
    return frame.assign(data=_data(frame)).rename(columns=names)


def _data(frame: pd.DataFrame) -> list[str]:
    columns = (frame[f"data/{name}"] for name in ("sha256", "n", "expected"))
    return [
        f"{frames.shown(digest, content)} n={n}{f' of {whole}' if n != whole else ''}"
        for digest, n, whole, content in zip(*columns, frames.contents(frame), strict=True)
    ]


def cost_table(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a run: parameters, time, memory. Apart from the results, which two machines share."""
    told = _told(frame)
    table = frame.assign(
        **{
            "parameters": frame["cost/parameters"],
            "trainable": frame["cost/trainable"],
            "steps": frame["cost/steps"],
            "seconds": frame["cost/seconds"].round(1),
            "images/s": _whole(frame["cost/images_per_second"]),
            "peak memory MB": _whole(frame["cost/peak_memory_bytes"] / 1e6),
            "device": frame["cost/device"],
        }
    )
    return frames.ordered(table, [*told, "key"])[[*told, *_COSTS, "device", "key"]]


def _whole(numbers: pd.Series) -> pd.Series:
    return pd.to_numeric(numbers).round().astype("Int64")


_COSTS = ("parameters", "trainable", "steps", "seconds", "images/s", "peak memory MB")


def seed_means(frame: pd.DataFrame, axes: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """A row for the runs that differ by their seed alone: mean and 95 % interval.

    Args:
        frame: of :func:`clipbench.results.frames.frame`.
        axes: what sets runs apart, the seed left out; so do ``data``, and what no column says.
        columns: of metrics, as :func:`result_table` names them.
    """
    table = frames.ordered(_named(frame), [*_told(frame), "key"])
    found = frames.means(table, frames.settings(table, [*axes, "data"]), columns)
    rows = found[[*axes, "n"]].rename(columns={"n": "seeds"})
    for column in columns:
        ends = (found[column], found[f"{column} low"], found[f"{column} high"])
        rows[column] = [_mean(*one) for one in zip(*ends, strict=True)]
    return rows.assign(data=found["data"])


def _mean(mean: float, low: float, high: float) -> str:
    """As it is read: with half of its interval, or its ends where it has no middle."""
    if math.isnan(mean) or math.isnan(low):
        return "" if math.isnan(mean) else f"{mean:.4f}"
    if math.isclose(mean - low, high - mean):
        return f"{mean:.4f} ± {high - mean:.4f}"
    return f"{mean:.4f} [{low:.4f}, {high:.4f}]"


def least(cost: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """A row for the runs that differ by their seed alone: the fastest pace, and the most memory.

    Other work on the machine only adds to the time of a run, so a mean would tell of that.
    """
    apart = cost.assign(**{axis: cost[axis].map(frames.cell) for axis in axes})
    rules = {column: "min" if column == "seconds" else "max" for column in _COSTS}
    return apart.groupby([*axes], sort=False, as_index=False).agg(rules)


def as_text(frame: pd.DataFrame) -> pd.DataFrame:
    """The cells of a table as they are read: metrics to four digits, axes as they were typed."""
    text = frame.astype(object)
    for column in frame.columns:
        digits = ".4f" if "/" in column or column == "epoch 0" else "g"
        text[column] = [
            "" if pd.isna(v) else format(v, digits) if isinstance(v, float) else str(v)
            for v in frame[column]
        ]
    return text


def sweep(folder: Path, *, told: bool = True) -> list[Path]:
    """Write a sweep's tables, its curves and its figures; print the table.

    Args:
        folder: one of ``sweeps/`` below the outputs root.
        told: whether to print.

    Returns:
        The files written.
    """
    runs, failed = sweep_runs(folder)
    for job in failed:
        marked(f"{job['status']}:", f"{overrides.shell(job['overrides'])}: {job['error']}", "red")
    return of_frame(frames.frame(runs), folder.name, told=told) if runs else []


def of_frame(frame: pd.DataFrame, name: str, *, told: bool = True) -> list[Path]:
    """Write the tables of runs, print one of them, and draw them against what varies.

    Args:
        frame: of :func:`clipbench.results.frames.frame`.
        name: of the sweep.
        told: whether to print.

    Returns:
        The files written.
    """
    target = paths.outputs() / "tables"
    target.mkdir(parents=True, exist_ok=True)
    stem = target / f"sweep_{name}"
    table, cost = result_table(frame), cost_table(frame)
    tables = {"": table, "_cost": cost}
    if "seed" in table:
        axes = [c for c in _told(frame) if c != "seed"]
        tables["_means"] = seed_means(frame, axes, ["epoch 0", *_metrics(frame)])
        tables["_cost_least"] = least(cost, axes)
    written = []
    for ending, one in tables.items():
        shown = as_text(one)
        rows, header = shown.to_numpy().tolist(), [str(c) for c in shown]
        written += typeset.write(stem.with_name(stem.name + ending), header, rows, one)
    trained = frame[frame["strategy"] != "soup"]  # which has no lr of its own
    if told:
        _print(tables.get("_means", table), name, frame)
    return [*written, *_draw(trained.reset_index(drop=True), stem)]


def _draw(trained: pd.DataFrame, stem: Path) -> list[Path]:
    curve = stem.with_name(f"{stem.name}.png")
    drawn = [*axis_figures.by_axis(trained, stem), *alpha_figures.over_seeds(trained, stem)]
    return [*drawn, curve] if figures.curves(trained, curve) else drawn


def _print(table: pd.DataFrame, name: str, frame: pd.DataFrame) -> None:
    metric = str(frame["selection/metric"].iloc[0]).split("/")[1]
    hidden = [c for c in table.columns if "/" in c and c.split("/")[1].split("@")[0] != metric]
    datasets = list(dict.fromkeys(table["dataset"]))
    alone = ["dataset"] if len(datasets) == 1 else []
    narrow = as_text(table.drop(columns=["data", *hidden, *alone]))
    show(
        f"sweep {name} on {', '.join(datasets)}",
        [str(c) for c in narrow.columns],
        narrow.to_numpy().tolist(),
    )
