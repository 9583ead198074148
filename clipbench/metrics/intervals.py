"""How sure a number is, and which of several p-values are left after all were looked at.

Two things make a test accuracy what it is: which images are in the test split, and which seed
trained the model. An interval over seeds knows of the second only, Wilson's of the first only;
``clipbench.metrics.significance`` compares saved predictions and counts both.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from clipbench.metrics import registry

EQUAL = 1e-12  # numbers that are nearer than that are one number


@dataclass(frozen=True)
class Interval:
    """An estimate and where the truth may lie.

    Attributes:
        estimate: the number itself.
        low: lower end; NaN where nothing can be said.
        high: upper end.
        over: what it would vary over: ``seeds`` or ``images``.
        n: how many of them there were.
    """

    estimate: float
    low: float
    high: float
    over: str
    n: int


def over_seeds(values: Sequence[float], level: float = 0.95, *, share: bool = False) -> Interval:
    """Return the mean and Student's t interval; of one seed, or of equal ones, there is none.

    Equal numbers do not say that the truth is known to the last digit: they say that no seed
    mattered, so that the images are what it may vary over.

    Args:
        values: of one metric, a run each, all on one test split.
        level: how often such intervals hold the mean over all seeds.
        share: whether the interval ends at 0 and at 1.
    """
    numbers = np.asarray(values, float)
    mean, low, high = float(numbers.mean()), float("nan"), float("nan")
    if len(numbers) > 1 and np.ptp(numbers) > EQUAL:
        half = _quantile(level, len(numbers) - 1) * float(numbers.std(ddof=1)) / len(numbers) ** 0.5
        low, high = mean - half, mean + half
        if share:
            low, high = max(low, 0.0), min(high, 1.0)
    return Interval(mean, low, high, "seeds", len(numbers))


def interval(values: Sequence[float], metric: str, n: int | None) -> Interval:
    """Return the mean of runs and where it may lie: over seeds, else over images if they say so.

    Args:
        values: of each run, a seed each.
        metric: ``<split>/<name>``, with or without ``@alpha=...``.
        n: images of the split; None where they are not known.
    """
    found = over_seeds(values, share=registry.of(metric).bounded)
    if np.isnan(found.low) and n and registry.of(metric).counts_images:
        return wilson(found.estimate, n)
    return found


@functools.cache
def _quantile(level: float, freedom: int) -> float:
    """Return Student's two-sided quantile, cached: a table needs one thousands of times."""
    return float(special.stdtrit(freedom, (1 + level) / 2))


def wilson(accuracy: float, n: int, level: float = 0.95) -> Interval:
    """Return Wilson's interval of one run's accuracy (Wilson 1927), for a share of n images only.

    Args:
        accuracy: a count over n; mean_per_class and macro_f1 are none, see
            :func:`clipbench.metrics.significance.over_images`.
        n: images of the split.
        level: of confidence.
    """
    from scipy import stats  # over half a second, for what a table of means never asks

    found = stats.binomtest(round(accuracy * n), n).proportion_ci(level, "wilson")
    return Interval(accuracy, float(found.low), float(found.high), "images", n)


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Return the p of the exact McNemar test that two classifiers are right equally often.

    Args:
        first: whether it was right, (n,).
        second: likewise of the same images.
    """
    return discordant(int((first & ~second).sum()), int((second & ~first).sum()))


def discordant(only_first: int, only_second: int) -> float:
    """Return McNemar's exact p from the images that one classifier alone gets right.

    Args:
        only_first: how many the first alone does.
        only_second: likewise the second.
    """
    from scipy import stats

    if only_first + only_second == 0:
        return 1.0
    return float(stats.binomtest(only_first, only_first + only_second).pvalue)


def holm(ps: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number by Holm's step-down rule (Holm 1979)."""
    order = np.argsort(ps)
    steps = np.asarray(ps, float)[order] * np.arange(len(ps), 0, -1)
    adjusted = np.empty(len(ps))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted.tolist()


def goodness(metric: str, value: float) -> float:
    """Return a metric's value, or its negative if lower is better, so that the higher one wins.

    Args:
        metric: ``<name>`` or ``<split>/<name>``, with or without ``@alpha=...``.
        value: its value.
    """
    return -value if registry.of(metric).lower_is_better else value
