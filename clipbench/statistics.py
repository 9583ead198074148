"""How sure a number is, and which of several p-values are left after all were looked at.

Two things make a test accuracy what it is: which pictures are in the test split, and which seed
trained the model. An interval over seeds knows of the second only, Wilson's of the first only;
``clipbench.paired`` compares saved predictions and counts both.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special


@dataclass(frozen=True)
class Interval:
    """An estimate and where the truth may lie.

    Attributes:
        estimate: the number itself.
        low: lower end; NaN where nothing can be said.
        high: upper end.
        over: what it would vary over: ``seeds`` or ``pictures``.
        n: how many of them there were.
    """

    estimate: float
    low: float
    high: float
    over: str
    n: int


def over_seeds(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean and Student's t interval; of one seed there is no interval.

    Args:
        values: of one metric, a run each, all on one test split.
        level: how often such intervals hold the mean over all seeds.
    """
    numbers = np.asarray(values, float)
    mean, low, high = float(numbers.mean()), float("nan"), float("nan")
    if len(numbers) > 1:
        half = _quantile(level, len(numbers) - 1) * float(numbers.std(ddof=1)) / len(numbers) ** 0.5
        low, high = mean - half, mean + half
    return Interval(mean, low, high, "seeds", len(numbers))


@functools.cache
def _quantile(level: float, freedom: int) -> float:
    """Student's, two-sided; kept, for a table asks for the same one thousands of times."""
    return float(special.stdtrit(freedom, (1 + level) / 2))


def wilson(accuracy: float, n: int, level: float = 0.95) -> Interval:
    """Wilson's interval of one run's accuracy (Wilson 1927), for a share of n pictures only.

    Args:
        accuracy: a count over n; mean_per_class and macro_f1 are none, see
            :func:`clipbench.paired.over_pictures`.
        n: pictures of the split.
        level: of confidence.
    """
    from scipy import stats  # over half a second, for what a table of means never asks

    found = stats.binomtest(round(accuracy * n), n).proportion_ci(level, "wilson")
    return Interval(accuracy, float(found.low), float(found.high), "pictures", n)


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """The exact McNemar test: p of two classifiers being right equally often.

    Args:
        first: whether it was right, (n,).
        second: likewise of the same pictures.
    """
    from scipy import stats

    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(stats.binomtest(only_first, only_first + only_second).pvalue)


def holm(ps: Sequence[float]) -> list[float]:
    """p-values adjusted for their number by Holm's step-down rule (Holm 1979)."""
    order = np.argsort(ps)
    steps = np.asarray(ps, float)[order] * np.arange(len(ps), 0, -1)
    adjusted = np.empty(len(ps))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted.tolist()


def goodness(metric: str, value: float) -> float:
    """A metric's value, or its negative where less is better: of equal metrics the higher wins.

    Args:
        metric: ``<name>`` or ``<split>/<name>``, with or without ``@alpha=...``.
        value: its value.
    """
    name = metric.split("@")[0].split("/")[-1]
    return -value if name.startswith("ece") or name.endswith(("loss", "rank")) else value
