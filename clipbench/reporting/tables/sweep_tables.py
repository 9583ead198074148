"""The tables and figures of a sweep: one row per run, means over seeds, costs; no torch."""

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from clipbench.core import paths
from clipbench.core.config import overrides
from clipbench.core.console import marked, show
from clipbench.metrics import registry
from clipbench.reporting.tables import alpha_figures, axis_figures, figures, typeset
from clipbench.results import frames
from clipbench.results.sweep_log import sweep_runs


def _metrics(frame: pd.DataFrame) -> list[str]:
    """Return the metrics of the table: val first, then test, then shifts."""
    about = ("selection/", "cost/", "data/", "curve/", "versions/", "git/", "run/")
    names = [c for c in frame.columns if "/" in c and not c.startswith(about)]
    if any(c.endswith("@alpha") for c in names):  # only the best alpha; the rest is a curve
        names = [c for c in names if "@alpha=" not in c]
    order = {"val": 0, "test": 1}
    chosen = {metric.split("/")[1] for metric in frame["selection/metric"]}
    kept = [
        c
        for c in names
        if registry.name_of(c) in chosen
        or registry.of(c).tables == "all"
        or (registry.of(c).tables == "test" and c.startswith("test/"))
    ]
    return sorted(kept, key=lambda c: (order.get(c.split("/")[0], 2), c))


def _axes(frame: pd.DataFrame) -> list[str]:
    """Return the columns that identify a run, in the order of the axes."""
    names = list(dict.fromkeys(["model", "dataset", *frames.varying(frame)]))
    return sorted(names, key=[*frames.AXES, *names].index)


def result_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per run: the varying axes, epoch 0, the chosen epoch, metrics, and the data.

    ``data`` is the start of the test split's fingerprints and the number of its images. Only rows
    with equal data compare.
    """
    axes, table = _axes(frame), _named(frame)
    alpha = ["alpha"] if table.get("alpha", pd.Series()).notna().any() else []
    columns = [*axes, "epoch 0", "chosen", *alpha, *_metrics(frame), "data", "key"]
    return frames.ordered(table, [*axes, "key"])[columns]


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
    """Return one row per run: parameters, time, memory, which no two machines share."""
    axes = _axes(frame)
    same = {name: frame[f"cost/{name}"] for name in ("parameters", "trainable", "steps", "device")}
    numbers = {
        "seconds": frame["cost/seconds"].round(1),
        "images/s": _whole(frame["cost/images_per_second"]),
        "peak memory MB": _whole(frame["cost/peak_memory_bytes"] / 1e6),
    }
    table = frame.assign(**same, **numbers)
    return frames.ordered(table, [*axes, "key"])[[*axes, *_COSTS, "device", "key"]]


def _whole(numbers: pd.Series) -> pd.Series:
    return pd.to_numeric(numbers).round().astype("Int64")


_COSTS = ("parameters", "trainable", "steps", "seconds", "images/s", "peak memory MB")


def seed_means(frame: pd.DataFrame, axes: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """Return one row for the runs that differ only by seed: mean and 95 % interval.

    Args:
        frame: from :func:`clipbench.results.frames.frame`.
        axes: the columns that tell settings apart, besides ``data``, without the seed.
        columns: of metrics, as :func:`result_table` names them.
    """
    table = frames.ordered(_named(frame), [*_axes(frame), "key"])
    means = frames.means(table, frames.settings(table, [*axes, "data"]), columns)
    rows = means[[*axes, "n"]].rename(columns={"n": "seeds"})
    for column in columns:
        ends = (means[column], means[f"{column} low"], means[f"{column} high"])
        rows[column] = [_mean(*interval) for interval in zip(*ends, strict=True)]
    return rows.assign(data=means["data"])


def _mean(mean: float, low: float, high: float) -> str:
    """Return a mean with half of its interval, or with both ends if it is not symmetric."""
    if math.isnan(mean) or math.isnan(low):
        return "" if math.isnan(mean) else f"{mean:.4f}"
    if math.isclose(mean - low, high - mean):
        return f"{mean:.4f} ± {high - mean:.4f}"
    return f"{mean:.4f} [{low:.4f}, {high:.4f}]"


def least(cost: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """Return one row for the runs that differ only by seed: the fastest time, the most memory.

    Other work on the machine only adds to a run's time, so the least says more than the mean.
    """
    apart = cost.assign(**{axis: cost[axis].map(frames.cell) for axis in axes})
    rules = {column: "min" if column == "seconds" else "max" for column in _COSTS}
    return apart.groupby([*axes], sort=False, as_index=False).agg(rules)


def as_text(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table as text: metrics to four digits, axes as they were typed."""
    text = frame.astype(object)
    for column in frame.columns:
        digits = ".4f" if "/" in column or column == "epoch 0" else "g"
        text[column] = [
            "" if pd.isna(v) else format(v, digits) if isinstance(v, float) else str(v)
            for v in frame[column]
        ]
    return text


def sweep(folder: Path, *, told: bool = True) -> list[Path]:
    """Write the tables and figures of a sweep's folder as :func:`of_frame`, naming failed jobs."""
    runs, failed = sweep_runs(folder)
    for job in failed:
        marked(f"{job['status']}:", f"{overrides.shell(job['overrides'])}: {job['error']}", "red")
    return of_frame(frames.frame(runs), folder.name, told=told) if runs else []


def of_frame(frame: pd.DataFrame, name: str, *, told: bool = True) -> list[Path]:
    """Write the tables of a sweep's runs and draw the figures; return the files.

    One table is printed if ``told``.
    """
    target = paths.outputs() / "tables"
    target.mkdir(parents=True, exist_ok=True)
    stem = target / f"sweep_{name}"
    table, cost = result_table(frame), cost_table(frame)
    tables = {"": table, "_cost": cost}
    if "seed" in table:
        axes = [c for c in _axes(frame) if c != "seed"]
        tables["_means"] = seed_means(frame, axes, ["epoch 0", *_metrics(frame)])
        tables["_cost_least"] = least(cost, axes)
    written = []
    for ending, one in tables.items():
        shown = as_text(one)
        rows, header = shown.to_numpy().tolist(), [str(c) for c in shown]
        written += typeset.write(stem.with_name(stem.name + ending), header, rows, one)
    trained = frame[frame["strategy"] != "soup"]  # a soup has no lr
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
