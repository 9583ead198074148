"""What a sweep offers to choose from: each way of tuning each model, at its best setting on val."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from clipbench.metrics import significance
from clipbench.metrics.intervals import Interval, interval
from clipbench.results import comparison, frames
from clipbench.strategies import about

MOST = 8  # that are compared, where one model and strategy has many settings


@dataclass(frozen=True)
class Candidate:
    """One setting, in all its seeds.

    Attributes:
        name: the model, the strategy, and what else tells it from the others.
        model: the option typed.
        strategy: the option typed.
        folders: of its runs, one a seed.
        records: of the same runs.
        tried: how many runs of this model and strategy its setting was chosen among.
        tried_seconds: what all of these took.
    """

    name: str
    model: str
    strategy: str
    folders: tuple[Path, ...]
    records: tuple[Mapping[str, Any], ...]
    tried: int
    tried_seconds: float

    def mean(self, key: str) -> float | None:
        """Of a final metric over the seeds; None where there is none."""
        values = [record["final"].get(key) for record in self.records]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None

    def before(self, metric: str) -> float | None:
        """The mean on val before training; None where the head started at random."""
        rows = [row for record in self.records for row in record["curve"] if row["epoch"] == 0]
        starts = [row.get(f"val/{metric}") for row in rows]
        return None if None in starts or not starts else sum(starts) / len(starts)

    def interval(self, split: str, metric: str) -> Interval | None:
        """Where the metric may lie: over seeds, or over images of one run, or of equal ones."""
        values = [record["final"].get(f"{split}/{metric}") for record in self.records]
        if None in values:
            return None
        found = interval(values, f"{split}/{metric}", self.records[0]["data"][split]["n"])
        if math.isnan(found.low) and metric in significance.METRICS:
            return comparison.over_pictures(self.folders[0], split, metric)
        return found

    @property
    def seconds(self) -> float:
        """Of its fastest run: other work on the machine only adds."""
        return min(float(record["cost"]["seconds"]) for record in self.records)

    @property
    def total(self) -> int:
        """Parameters, head and all."""
        return int(self.records[0]["parameters"]["total"])

    @property
    def trained(self) -> int:
        """Parameters that were trained."""
        return int(self.records[0]["parameters"]["trainable"])

    @property
    def memory(self) -> float:
        """Peak, in bytes."""
        return max(float(record["cost"]["peak_memory_bytes"]) for record in self.records)


def measure(records: Sequence[Mapping[str, Any]]) -> str:
    """What candidates are ordered by: what their epochs were chosen by, or else accuracy."""
    asked = str(records[0]["selection"]["metric"]).split("/")[1]
    recall = asked.startswith("mean_recall")
    return asked if asked in significance.METRICS or recall else "acc"


def candidates(runs: frames.Runs, metric: str) -> list[Candidate]:
    """The best setting of each model and strategy, the best one first, all by val.

    Where there is one model and one strategy, its best settings.

    Args:
        runs: completed, on one dataset.
        metric: of :func:`measure`.
    """
    frame = frames.frame(runs)
    axes = frames.seedless(frame)
    settings = _settings(frame, frames.settings(frame, axes))
    kinds = [
        [str(frame[axis].iloc[rows[0]]) for axis in ("model", "strategy")] for rows in settings
    ]
    alone = len({tuple(kind) for kind in kinds}) == 1
    told = [axis for axis in axes if axis not in ("model", "strategy")]
    found: dict[Any, Candidate] = {}
    for number, (rows, kind) in enumerate(zip(settings, kinds, strict=True)):
        same = [r for own, other in zip(settings, kinds, strict=True) if other == kind for r in own]
        name = f"{kind[0]}, {about.label(kind[1])}"
        if len(same) > len(rows):
            values = [f"{axis}={frames.cell(frame[axis].iloc[rows[0]])}" for axis in told]
            name = " ".join([name, *values])
        if name in {one.name for one in found.values()}:  # apart by what no column says
            name = f"{name} ({frame['key'].iloc[rows[0]]})"
        one = Candidate(
            name,
            model=kind[0],
            strategy=kind[1],
            folders=tuple(runs[r][0] for r in rows),
            records=tuple(runs[r][1] for r in rows),
            tried=len(same),
            tried_seconds=float(sum(runs[r][1]["cost"]["seconds"] for r in same)),
        )
        place: Any = number if alone else tuple(kind)
        found[place] = max(found.get(place, one), one, key=lambda c: c.mean(f"val/{metric}") or 0)
    ordered = sorted(found.values(), key=lambda c: (-(c.mean(f"val/{metric}") or 0), c.seconds))
    return ordered[:MOST] if alone else ordered


def _settings(frame: pd.DataFrame, axes: Sequence[str]) -> list[list[int]]:
    """Positions of the runs that differ by their seed alone."""
    if not axes:
        return [list(range(len(frame)))]
    words = frame[[*axes]].astype(str).reset_index(drop=True)
    return [list(rows.index) for _, rows in words.groupby([*axes], sort=False, dropna=False)]
