"""The candidates of a sweep: each model and strategy, at its best setting on val."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from clipbench.metrics import registry
from clipbench.metrics.intervals import Interval, goodness, interval
from clipbench.results import comparison, frames
from clipbench.results.record import RunRecord
from clipbench.strategies import about

MOST = 8  # candidates compared, if one model and strategy has many settings


@dataclass(frozen=True)
class Candidate:
    """One setting with all its seeds.

    Attributes:
        name: the model, the strategy, and whatever else tells it from the others.
        model: the option typed.
        strategy: likewise.
        folders: of its runs, one per seed.
        records: of the same runs.
        tried: how many runs of this model and strategy its setting was chosen from.
        tried_seconds: the time of all of these.
    """

    name: str
    model: str
    strategy: str
    folders: tuple[Path, ...]
    records: tuple[RunRecord, ...]
    tried: int
    tried_seconds: float

    def mean(self, key: str) -> float | None:
        """Return the mean of a final metric over the seeds, or None if no run has it."""
        values = [v for record in self.records if (v := record.final.get(key)) is not None]
        return sum(values) / len(values) if values else None

    def before(self, metric: str) -> float | None:
        """Return the mean on val before training, or None if the head was random."""
        rows = [row for record in self.records for row in record.curve if row["epoch"] == 0]
        starts = [row[f"val/{metric}"] for row in rows if row.get(f"val/{metric}") is not None]
        return sum(starts) / len(starts) if starts and len(starts) == len(rows) else None

    def interval(self, split: str, metric: str) -> Interval | None:
        """Return the 95 % interval over seeds, or over the images of one run or of equal runs."""
        name = f"{split}/{metric}"
        values = [r.final[name] for r in self.records if r.final.get(name) is not None]
        if len(values) < len(self.records):
            return None
        over_seeds = interval(values, name, self.records[0].data[split].n)
        if math.isnan(over_seeds.low) and metric in registry.PAIRED:
            return comparison.over_images(self.folders[0], split, metric)
        return over_seeds

    @property
    def seconds(self) -> float:
        """The time of its fastest run: other work on the machine only adds to it."""
        return min(float(record.cost.seconds) for record in self.records)

    @property
    def total(self) -> int:
        """The number of parameters, head included."""
        return int(self.records[0].parameters.total)

    @property
    def trained(self) -> int:
        """The number of trained parameters."""
        return int(self.records[0].parameters.trainable)

    @property
    def memory(self) -> float:
        """The peak memory in bytes."""
        return max(float(record.cost.peak_memory_bytes) for record in self.records)


def measure(records: Sequence[RunRecord]) -> str:
    """Return the metric that orders candidates: that of their selection, or else accuracy."""
    metric = str(records[0].selection.metric).split("/")[1]
    return metric if registry.of(metric).compares else registry.HEADLINE


def candidates(runs: frames.Runs, metric: str) -> list[Candidate]:
    """Return the best setting of each model and strategy, the best one first, all by val.

    If the runs are of one model and strategy, return its best settings.

    Args:
        runs: completed runs on one dataset.
        metric: from :func:`measure`.
    """
    frame = frames.frame(runs)
    axes = frames.seedless(frame)
    further = [axis for axis in axes if axis not in ("model", "strategy")]
    kinds: dict[tuple[str, str], list[list[int]]] = {}
    for rows in _settings(frame, frames.settings(frame, axes)):
        first = frame.iloc[rows[0]]
        kinds.setdefault((str(first["model"]), str(first["strategy"])), []).append(rows)
    alone, best = len(kinds) == 1, list[Candidate]()
    for (model, strategy), settings in kinds.items():
        same = [runs[r][1] for rows in settings for r in rows]
        of_kind: list[Candidate] = []
        for rows in settings:
            name, first = f"{model}, {about.label(strategy)}", frame.iloc[rows[0]]
            if len(settings) > 1:
                name = " ".join([name, *(f"{a}={frames.cell(first[a])}" for a in further)])
            if name in [c.name for c in (*best, *of_kind)]:  # they differ in no column
                name = f"{name} ({first['key']})"
            folders, records = zip(*(runs[r] for r in rows), strict=True)
            seconds = float(sum(record.cost.seconds for record in same))
            of_kind.append(Candidate(name, model, strategy, folders, records, len(same), seconds))
        best += of_kind if alone else [max(of_kind, key=lambda c: _on_val(c, metric))]
    best.sort(key=lambda c: (-_on_val(c, metric), c.seconds))
    return best[:MOST] if alone else best


def _on_val(candidate: Candidate, metric: str) -> float:
    """Return how good a candidate is on val; higher is better, and not measured is worst."""
    value = candidate.mean(f"val/{metric}")
    return -math.inf if value is None else goodness(metric, value)


def _settings(frame: pd.DataFrame, axes: Sequence[str]) -> list[list[int]]:
    """Return the positions of the runs of each setting, which differ by their seed alone."""
    if not axes:
        return [list(range(len(frame)))]
    words = frame[[*axes]].astype(str).reset_index(drop=True)
    return [list(rows.index) for _, rows in words.groupby([*axes], sort=False, dropna=False)]
