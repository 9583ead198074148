"""What the seeds of two models say of a difference between them, one of which may have but one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clipbench.metrics.intervals import EQUAL

Part = tuple[float, int]  # a variance and its degrees of freedom


@dataclass(frozen=True)
class Side:
    """One model's metric.

    Attributes:
        values: of each run, a seed each.
        varies: whether another seed would give another model. Zero-shot, or a head fitted on all
            there is, comes out the same every time.
    """

    values: Sequence[float]
    varies: bool

    @property
    def variance(self) -> float | None:
        """Between seeds; None where one run says nothing of it."""
        if not self.varies:
            return 0.0
        if len(self.values) < 2:
            return None
        return float(np.var(self.values, ddof=1)) if np.ptp(self.values) > EQUAL else 0.0


@dataclass(frozen=True)
class Spread:
    """How far training alone could move the difference of two means.

    Attributes:
        parts: independent variances of the difference.
        known: False where nothing says how far another seed would be from the one at hand.
    """

    parts: Sequence[Part]
    known: bool


def spread(first: Side, second: Side) -> Spread:
    """Return what Welch's test takes of the seeds, one seed borrowing from several.

    A side of one seed is taken to scatter as the other side does. It borrows nothing of a side that
    does not scatter, as where no epoch of any seed was better than the start.

    Args:
        first: one model.
        second: the other one.
    """
    own = [side.variance for side in (first, second)]
    counts = [len(side.values) for side in (first, second)]
    if None not in own:
        told = [(v / n, n - 1) for v, n in zip(own, counts, strict=True) if v]
        return Spread(told, known=True)
    several = [(v, n) for v, n in zip(own, counts, strict=True) if v]
    if not several:
        return Spread([], known=False)
    ((variance, n),) = several
    return Spread([(variance * (1 + 1 / n), n - 1)], known=True)


def t_test(
    estimate: float, training: Sequence[Part], images: Part | None, level: float = 0.95
) -> tuple[float, float, float]:
    """Return the interval and two-sided p of an estimate that varies over seeds and over images.

    Over seeds alone this is Welch's test. The images add their variance, and no degrees of
    freedom: with Satterthwaite's of both, 7 % of comparisons of one seed with three of the same
    model came out below 0.05, where seeds scatter by two points.

    Args:
        estimate: a difference.
        training: of :func:`spread`.
        images: the variance over images, where it is known.
        level: of the interval.
    """
    from scipy import stats  # over half a second, for what a table of means never asks

    own = [part for part in training if part[0]]
    parts = own if images is None else [*own, images]
    total = sum(variance for variance, _ in parts)
    if total == 0:  # no seed and no image differs
        return estimate, estimate, float(estimate == 0)
    ruling = own or parts
    freedom = sum(v for v, _ in ruling) ** 2 / sum(v**2 / n for v, n in ruling)
    error = math.sqrt(total)
    low, high = stats.t.interval(level, freedom, estimate, error)
    return float(low), float(high), float(2 * stats.t.sf(abs(estimate) / error, freedom))
