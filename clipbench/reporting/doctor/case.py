"""A run as the doctor sees it: its record, and what several symptoms derive from it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from clipbench.core.config.option_files import Node
from clipbench.core.errors import UserError
from clipbench.metrics import confusion
from clipbench.metrics.confusion import Counts
from clipbench.metrics.intervals import goodness, wilson
from clipbench.results import store
from clipbench.results.record import RunRecord
from clipbench.strategies import about, published_ranges
from clipbench.strategies.about import About


@dataclass
class Case:
    """A run as the symptoms see it.

    Attributes:
        record: its ``result.json``.
        confusion: (C, C) counts of each split, the true class by row; empty if it was cut short.
    """

    record: RunRecord
    confusion: Mapping[str, Counts] = field(default_factory=dict)

    @property
    def config(self) -> Node:
        """The resolved config."""
        config: Node = self.record.config
        return config

    def series(self, key: str) -> list[tuple[int, float]]:
        """Return the epochs that have a value, each with it."""
        rows = self.record.curve
        return [(row["epoch"], row[key]) for row in rows if row.get(key) is not None]

    @property
    def losses(self) -> list[float]:
        """The values of train/loss."""
        return [loss for _, loss in self.series("train/loss")]

    @property
    def metric(self) -> str:
        """The metric that chose the best epoch."""
        return self.record.selection.metric

    @property
    def clip(self) -> bool:
        """Whether the model reads text."""
        return self.record.reads_text

    @property
    def trains(self) -> bool:
        """Whether an optimizer took steps."""
        return bool(self.record.steps.total and self.losses)

    @property
    def lr(self) -> float:
        """The requested learning rate."""
        return float(self.record.lr)

    @property
    def cautious(self) -> bool:
        """Whether the highest learning rate is far below the recommended one."""
        usual = published_ranges.own_lr(self.config["model"], self.config["strategy"])
        return usual is not None and min(self.lr, self.record.steps.peak_lr) < usual / 3

    @property
    def epochs(self) -> int:
        """The number of trained epochs."""
        return max((int(row["epoch"]) for row in self.record.curve), default=0)

    @cached_property
    def about(self) -> About:
        """The facts that the strategy's file states."""
        return about.of(self.config["strategy"])

    @property
    def of_pairs(self) -> bool:
        """Whether the loss tells apart the pairs of a batch, not the classes."""
        return self.about.pairs

    @cached_property
    def guessing(self) -> float | None:
        """The loss of guessing: ln(classes), or ln(batch) for a loss of pairs."""
        if self.of_pairs:
            return math.log(self._batch)
        return math.log(self.confusion["val"].shape[0]) if "val" in self.confusion else None

    @property
    def _batch(self) -> int:
        return int(min(self.record.batch_size, self.record.data["train"].n))

    @cached_property
    def floor(self) -> float:
        """The smallest possible train/loss, in nats.

        With smoothed labels it is their entropy. If the pairs of one class look the same to the
        loss, the best model still guesses among those in a batch: the mean of ln(images of a class
        in a batch), by how often classes occur.
        """
        if "val" not in self.confusion:
            return 0.0
        counts = self.confusion["val"].sum(1).astype(float)
        if self.about.classes_alike:
            if (self.config.get("dataset") or {}).get("balance") in ("sampler", "unique"):
                counts = np.ones(len(counts))
            shares = counts[counts > 0] / counts.sum()
            return float((shares * np.log(np.maximum(1.0, shares * self._batch))).sum())
        smoothing = self.config.get("label_smoothing") or 0.0
        if self.of_pairs or not smoothing:
            return 0.0
        target = np.full(len(counts), smoothing / len(counts))
        target[0] += 1 - smoothing
        return float(special.entr(target).sum())

    def good(self, value: float) -> float:
        """Return a value of the metric so that more is better."""
        return goodness(self.metric, value)

    def gain(self, before: float, after: float) -> float:
        """Return how much better the metric got; negative where it got worse."""
        return self.good(after) - self.good(before)

    @property
    def of_share(self) -> bool:
        """Whether the metric is a fraction that is better when higher: an accuracy, a recall."""
        return self.good(1.0) > 0

    @cached_property
    def noise(self) -> float:
        """A difference of the metric that means nothing: half of the best one's Wilson interval.

        Of a loss or a rank, which are not shares of n images, a tenth of the best one.
        """
        values = [value for _, value in self.series(self.metric)]
        if not self.of_share:
            return 0.1 * min(values, default=0.0)
        n = self.record.data["val"].n
        interval = wilson(min(1.0, max(0.0, max(values, default=0.5))), n)
        return (interval.high - interval.low) / 2

    @property
    def between(self) -> list[Mapping[str, Any]]:
        """The points of WiSE-FT's line that are neither its start nor its end."""
        return [p for p in self.record.alpha_curve if 0 < p["alpha"] < 1]


def read(folder: Path) -> Case:
    """Return the case of a run's folder, also of a run that failed.

    Raises:
        UserError: if the folder has no record.
    """
    record = store.read(folder)
    if record is None:
        raise UserError(f"run={folder}: no result.json in it. Give the folder of a run.")
    file = folder / "confusion.npz"
    return Case(record, confusion.read(file) if file.is_file() else {})
