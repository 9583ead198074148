"""Runs as rows: what sets them apart, what came out, what it cost; and means over their seeds."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from clipbench.core.spreadsheet import unsafe
from clipbench.metrics.intervals import interval
from clipbench.results import identity, store
from clipbench.results.record import Parameters, Row, RunRecord, Steps

Runs = Sequence[tuple[Path, RunRecord]]

AXES = (
    *("model", "dataset", "strategy", "lr", "batch_size", "epochs"),
    *("freeze_depth", "shots", "seed"),
)
_NO_AXES = ("key", "status", "folder", "epoch0")
_SPLIT = ("n", "expected", "sha256", "content")
VARIES, SETTING = "run/varies", "run/setting"
_NUMBERS = ("lr", "batch_size", "epochs", "shots", "seed", "epoch0")


def frame(runs: Runs) -> pd.DataFrame:
    """Return one row a run: what its sweep typed, its axes, metrics, cost, data and versions.

    ``data/n``, ``data/expected``, ``data/sha256`` and ``data/content`` are of the test split, or of
    val where there is none; other splits' are ``data/val/n``, ... ``curve/0``, ``curve/1``, ... is
    the metric that the run was selected by, after that many epochs.
    """
    rows = pd.DataFrame([_row(folder, record) for folder, record in runs])
    names = [str(c) for c in rows]
    typed = sorted(n for n in names if "/" not in n and n not in (*AXES, *_NO_AXES))
    first = [n for n in (*_NO_AXES, *AXES, *typed) if n in names]
    return rows[[*first, *sorted(n for n in names if n not in first)]]


def _row(folder: Path, record: RunRecord) -> Row:
    # A group that the record names, and one that it has under another name, are one column.
    known = {*AXES, "dataset.shots"}
    typed = {k: v for k, v in record.typed.items() if k not in known}
    split = record.data["test" if "test" in record.data else "val"]
    flat: Row = typed | store.row(folder, record)
    flat |= {"cost/parameters": record.parameters.total}
    flat |= {"cost/trainable": record.parameters.trainable}
    flat |= {"cost/steps": record.steps.total}
    flat |= {f"data/{name}": getattr(split, name) for name in _SPLIT}
    evaluated = {name: of for name, of in record.data.items() if name not in ("train", "test")}
    for name, of in evaluated.items():
        flat |= {f"data/{name}/{what}": getattr(of, what) for what in _SPLIT}
    flat |= {"data/scheme": record.config["dataset"].get("scheme")}
    metric = record.selection.metric
    flat |= {f"curve/{row['epoch']}": row.get(metric) for row in record.curve}
    flat |= {f"versions/{name}": version for name, version in record.versions.items()}
    git = record.git or {}
    return flat | {"git/commit": git.get("commit"), "git/dirty": git.get("dirty")}


def read(path: Path) -> pd.DataFrame:
    """Read a frame that was written as CSV; it is the same but for its folders."""
    # What was typed are words, null and 1e-4 too; so is a key of digits alone.
    with path.open(newline="") as lines:
        names = next(csv.reader(lines))
    words = {c: str for c in names if "/" not in c and c not in _NUMBERS}
    rules: Any = {"keep_default_na": False, "na_values": [""]}
    found: pd.DataFrame = pd.read_csv(path, dtype=words, **rules)
    for column in words:
        found[column] = found[column].map(unsafe, na_action="ignore")
    found = found.copy()  # in one piece: pandas warns of hundreds of columns read one by one
    if VARIES not in found:  # frozen before there was such a column
        found[VARIES] = [identity.varies(_record(row)) for row in found.to_dict("records")]
    return found


def _record(row: dict[Any, Any]) -> RunRecord:
    """Return what a frozen row says of its training, as a record."""
    parameters, total = row.get("cost/trainable", 1), row.get("cost/steps", 1)
    shots = row.get("shots")
    few = None if shots is None or pd.isna(shots) else shots
    return RunRecord(
        parameters=Parameters(trainable=parameters),
        steps=Steps(total=total),
        config={"dataset": {"shots": few}},
    )


def curves(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the selection metric as a row a run and a column an epoch, from 0 on."""
    names = {int(c.split("/")[1]): c for c in map(str, frame) if c.startswith("curve/")}
    found = frame[[names[epoch] for epoch in sorted(names)]].astype(float)
    return found.set_axis(sorted(names), axis=1)


def varying(frame: pd.DataFrame) -> list[str]:
    """Return what sets the runs apart: the axes, then the keys that only this sweep typed."""
    told = [str(c) for c in frame if c not in (*AXES, *_NO_AXES) and "/" not in str(c)]
    # Not astype(str): since pandas 3 it keeps NaN, which nunique and groupby leave out.
    return [axis for axis in (*AXES, *told) if frame[axis].map(str).nunique() > 1]


def ordered(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Sort rows by some columns: numbers first, by size, then words."""

    def rank(column: pd.Series) -> pd.Series:
        def place(value: Any) -> tuple[bool, float, str]:
            try:
                number = float(value)
            except (TypeError, ValueError):
                number = math.nan
            word = math.isnan(number)
            return word, 0.0 if word else number, "" if pd.isna(value) else str(value)

        return column.map({value: place(value) for value in column.unique()})

    return frame.sort_values([*by], key=rank, kind="stable", ignore_index=True)


def seedless(frame: pd.DataFrame) -> list[str]:
    """Return what sets the runs apart but for their seeds: runs that share it are one mean.

    A learning rate that follows from the model or the strategy, as recommended ones do, is none.
    """
    axes = [axis for axis in varying(frame) if axis != "seed"]
    for follower in ("lr", "batch_size", "epochs"):
        rest = [axis for axis in axes if axis != follower]
        if follower in axes and rest:
            values = frame[follower].map(str).groupby([frame[a].map(str) for a in rest])
            axes = rest if values.nunique().max() == 1 else axes
    return axes


def settings(frame: pd.DataFrame, axes: Sequence[str]) -> list[str]:
    """Return what the runs of a mean share: some axes, and the rest that makes up their keys.

    Args:
        frame: one row a run.
        axes: of :func:`seedless`.
    """
    apart = SETTING in frame and frame[SETTING].map(str).nunique() > 1
    return [*axes, SETTING] if apart else [*axes]


def means(frame: pd.DataFrame, axes: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """Return means over the runs that share some axes, and where they may lie.

    Args:
        frame: one row a run.
        axes: what the runs of a mean share.
        columns: of numbers.

    Returns:
        A row a mean: the axes, ``n``, each column, and the ends of its interval, ``<column> low``
        and ``<column> high``, NaN where nothing is known: over seeds, or of one seed and of equal
        ones over images, see :func:`clipbench.metrics.intervals.interval`.
    """
    rows = []
    sizes = {column: _size(frame, column) for column in columns}
    wanted = (*axes, *columns, *(name for _, name in sizes.values() if name))
    frame = frame[[*dict.fromkeys(wanted)]]  # of hundreds, which each part would copy
    text = [frame[axis].map(str) for axis in axes]
    parts = [part for _, part in frame.groupby(text, sort=False)] if axes else [frame]
    for part in parts:
        row: dict[str, Any] = {axis: part[axis].iloc[0] for axis in axes} | {"n": len(part)}
        for column, (metric, name) in sizes.items():
            values = pd.to_numeric(part[column]).dropna()
            n = int(part[name].iloc[0]) if name else None
            found = interval(values.tolist(), metric, n) if len(values) else None
            row[column] = found.estimate if found else float("nan")
            row[f"{column} low"] = found.low if found else float("nan")
            row[f"{column} high"] = found.high if found else float("nan")
        rows.append(row)
    return pd.DataFrame(rows)


def _size(frame: pd.DataFrame, column: str) -> tuple[str, str | None]:
    """Return the metric of a column, and the column that has the number of its images."""
    metric = column
    if column.replace(" ", "") == "epoch0" or column.startswith("curve/"):
        metric = str(frame["selection/metric"].iloc[0]) if "selection/metric" in frame else column
    split = metric.split("/")[0]
    own = f"data/{split}/n"
    name = own if own in frame else "data/n" if split == "test" and "data/n" in frame else None
    return metric, name


def bars(frame: pd.DataFrame, column: str) -> list[list[float]]:
    """Return how far the intervals of :func:`means` go below their means, and above."""
    ends = (frame[column] - frame[f"{column} low"], frame[f"{column} high"] - frame[column])
    return [end.clip(lower=0).tolist() for end in ends]


def contents(frame: pd.DataFrame, stem: str = "data") -> list[str | None]:
    """Return what the images of each row held; None for runs of before that was recorded.

    Args:
        frame: one row a run.
        stem: of the columns of a split: ``data``, ``data/val``, ...
    """
    column = frame.get(f"{stem}/content", pd.Series(None, index=frame.index, dtype=object))
    return [None if pd.isna(value) else str(value) for value in column]


def shown(sha256: str, content: str | None) -> str:
    """Return the start of a split's fingerprint and of its images', as tables print them."""
    return sha256[:8] + (f"/{content[:8]}" if content else "")


def cell(value: Any) -> str:
    """Return a value of an axis as people write it: 80 and not 80.0."""
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:g}"
    return "" if value is None else str(value)
