"""Whether two models differ, by what they predicted for the same images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats

from clipbench.metrics import registry
from clipbench.metrics.intervals import mcnemar
from clipbench.metrics.seeds import Side, spread, t_test

Floats = NDArray[np.float64]
Labels = NDArray[Any]
Runs = Sequence[Path]
Score = Callable[[NDArray[Any]], Floats]

SURE = 0.05  # a difference with a smaller p may be claimed
RESAMPLES = 10_000
_AT_ONCE = 4_000_000  # draws held in memory


@dataclass(frozen=True)
class Difference:
    """Second minus first, on the same images.

    Attributes:
        metric: which one, of which split.
        estimate: the difference of the means over seeds.
        low: of its interval.
        high: of its interval.
        p: two-sided; adjusted where several comparisons were made.
        test: how it was come by.
        n: images.
        seeds: runs on either side.
        covers_seeds: whether p counts what another seed could have given. Where it does not, these
            two trained models are compared, and another seed may reverse it.
    """

    metric: str
    estimate: float
    low: float
    high: float
    p: float
    test: str
    n: int
    seeds: tuple[int, int]
    covers_seeds: bool

    @property
    def claimed(self) -> bool:
        """Whether the models differ, by more than the images and the seeds explain."""
        return self.covers_seeds and self.p < SURE

    @property
    def of_these_runs(self) -> bool:
        """Whether the trained models differ on these images, and nothing is known of their kind."""
        return not self.covers_seeds and self.p < SURE


def difference(
    labels: Labels,
    first: Sequence[Labels],
    second: Sequence[Labels],
    metric: str = "acc",
    level: float = 0.95,
    resamples: int = RESAMPLES,
    varies: tuple[bool, bool] = (True, True),
) -> Difference:
    """Return how two models differ: their means over seeds, compared on the same images.

    Of one run each, the interval is the paired bootstrap's over images, and p the exact McNemar
    test's for the accuracy (Dietterich 1998), the bootstrap's for other metrics. A single run is
    judged as that run: what another seed would have given nobody knows, unless there is none.

    With several seeds, both sources count (Bouthillier et al. 2021). The variance of the
    difference is that of Welch's test over seeds, plus the bootstrap's over images of the mean
    over seeds, see :func:`clipbench.metrics.seeds.t_test`. To resample three seeds, as is
    often done, takes their spread for a third less than it is. One seed beside
    several is taken to scatter as they do, see :func:`clipbench.metrics.seeds.spread`.

    Args:
        labels: (n,).
        first: predictions (n,) of each seed.
        second: likewise of the other model.
        metric: one of :data:`clipbench.metrics.registry.PAIRED`.
        level: of the interval.
        resamples: of the images.
        varies: of either model, whether another seed would give another one.
    """
    sides = (first, second)
    scores = [_scorer(labels, side, metric) for side in sides]

    def mean(index: NDArray[Any]) -> Floats:
        means: list[Floats] = [score(index).mean(0) for score in scores]
        return means[1] - means[0]

    found = _bootstrap(mean, labels, level, resamples)
    each = [score(np.arange(len(labels)))[:, 0] for score in scores]
    estimate = float(each[1].mean() - each[0].mean())
    seeds = (len(first), len(second))
    training = spread(*(Side(own.tolist(), of) for own, of in zip(each, varies, strict=True)))
    if max(seeds) > 1 and (training.parts or any(varies)):
        images = (float(found.standard_error) ** 2, len(labels) - 1)
        low, high, p = t_test(estimate, training.parts, images, level)
        test = "Welch's t over seeds and images" if training.parts else "t over images"
    else:
        low, high = found.confidence_interval
        p, test = _crossing(found.bootstrap_distribution), "paired bootstrap"
        if registry.METRICS[metric].mcnemar:
            p, test = mcnemar(labels == first[0], labels == second[0]), "exact McNemar"
    ends, n = (float(low), float(high)), len(labels)
    return Difference(metric, estimate, *ends, p, test, n, seeds, training.known)


def _scorer(labels: Labels, predicted: Sequence[Labels], metric: str) -> Score:
    """Return the function of resamples (B, n) of positions to the metric of each run, (runs, B)."""
    score: Score = registry.resolve(registry.METRICS[metric].resampled)(labels, predicted)
    return score


def accuracy(labels: Labels, predicted: Sequence[Labels]) -> Score:
    """Return the score of the accuracy."""
    hits = [(p == labels).astype(float) for p in predicted]
    return lambda index: np.stack([hit[np.atleast_2d(index)].mean(-1) for hit in hits])


def mean_recall(labels: Labels, predicted: Sequence[Labels]) -> Score:
    """Return the score of the mean recall over the classes of a resample."""
    return _over_classes(
        labels, predicted, lambda correct, support, taken: correct / np.maximum(support, 1)
    )


def mean_f1(labels: Labels, predicted: Sequence[Labels]) -> Score:
    """Return the score of the mean F1 over the classes of a resample: 2 tp / (2 tp + fp + fn)."""
    return _over_classes(
        labels,
        predicted,
        lambda correct, support, taken: 2 * correct / np.maximum(support + taken, 1),
    )


def _over_classes(
    labels: Labels,
    predicted: Sequence[Labels],
    value: Callable[[Floats, Floats, Floats], Floats],
) -> Score:
    """Return the mean of a value over the classes that a resample has.

    Args:
        labels: (n,).
        predicted: (n,) of each run.
        value: of true positives, support and predictions of each class, each (classes, B).
    """
    size = int(max(labels.max(), *(p.max() for p in predicted))) + 1
    truth = _one_hot(labels, size)
    right = [_one_hot(labels, size, (p == labels).astype(float)) for p in predicted]
    taken = [_one_hot(p, size) for p in predicted]

    def score(index: NDArray[Any]) -> Floats:
        counts = _counts(np.atleast_2d(index), len(labels))
        support = truth @ counts
        present = support > 0
        values = [
            value(hits @ counts, support, guesses @ counts)
            for hits, guesses in zip(right, taken, strict=True)
        ]
        return np.stack([v.sum(0, where=present) / present.sum(0) for v in values])

    return score


def _one_hot(labels: Labels, size: int, weight: Floats | None = None) -> Any:
    """Return a sparse matrix (classes, n) of what each position counts for its class."""
    n = len(labels)
    data = np.ones(n) if weight is None else weight
    return sparse.csr_array((data, (labels, np.arange(n))), shape=(size, n))


def _counts(index: NDArray[Any], n: int) -> Floats:
    """Return how often each position is in each resample: (n, B)."""
    offset = np.arange(len(index))[:, None] * n
    counts = np.bincount((index + offset).ravel(), minlength=len(index) * n)
    return counts.reshape(len(index), n).T.astype(float)


def _bootstrap(
    statistic: Callable[[NDArray[Any]], Floats], labels: Labels, level: float, resamples: int
) -> Any:
    """Return SciPy's bootstrap over the positions of n images, given their labels."""
    n = len(labels)

    def vectorised(index: NDArray[Any], axis: int = -1) -> Any:
        value = statistic(index)
        return value if index.ndim > 1 else value[0]

    return stats.bootstrap(
        (np.arange(n),),
        vectorised,
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, _AT_ONCE // max(n, int(labels.max()) + 1)),
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(0),
    )


def _crossing(distribution: Floats) -> float:
    """Return twice the smaller share of resamples on either side of zero, zero included."""
    n = len(distribution)
    tail = min(int((distribution <= 0).sum()), int((distribution >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (n + 1))
