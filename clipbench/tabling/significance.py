"""Which row of a column is better than every other by more than chance: the bold one."""

import itertools
from collections.abc import Sequence

import numpy as np
from scipy import stats

from clipbench import paired
from clipbench.statistics import goodness, holm
from clipbench.tabling.cells import Measured

LEVEL = 0.95
_RESAMPLES = 2000  # of the pictures: a table has many pairs
_AT_MOST = 8  # rows that are compared on saved predictions: 28 pairs


def winner(rows: Sequence[Measured], metric: str) -> tuple[int, str] | None:
    """The row that is significantly better than every other, p adjusted over all pairs by Holm.

    Over all pairs, not only those with the best one: which is best was seen in the same numbers.
    Saved predictions are compared where all runs have them, and otherwise runs of one seed with
    one another (paired t), or their means where they share no two seeds (Welch). Nothing is said of
    single runs without predictions.

    Args:
        rows: of one column, measured on the same pictures.
        metric: such as ``test/acc``.

    Returns:
        Its place, and the name of the test.
    """
    if len(rows) < 2:
        return None
    best = max(range(len(rows)), key=lambda i: goodness(metric, rows[i].interval.estimate))
    pairs = list(itertools.combinations(range(len(rows)), 2))
    split, name = metric.split("/")
    if _predicted(rows) and name in paired.METRICS and len(rows) <= _AT_MOST:
        found = [
            paired.compare(rows[a].folders, rows[b].folders, split, name, resamples=_RESAMPLES).p
            for a, b in pairs
        ]
        test = "on saved predictions"
    else:
        found = [_over_seeds(rows[a], rows[b]) for a, b in pairs]
        test = "paired t over seeds"
    sure = {pair: p < 1 - LEVEL for pair, p in zip(pairs, holm(found), strict=True) if best in pair}
    return (best, test) if all(sure.values()) else None


def _predicted(rows: Sequence[Measured]) -> bool:
    return all(
        row.folders and all((folder / "predictions.parquet").is_file() for folder in row.folders)
        for row in rows
    )


def _over_seeds(one: Measured, other: Measured) -> float:
    """Two-sided p; 1 where there is too little to say."""
    shared = sorted(one.by_seed.keys() & other.by_seed.keys())
    first, second = (np.array([row.by_seed[s] for s in shared]) for row in (one, other))
    if len(shared) > 1:
        return _p(first - second)
    if min(len(one.by_seed), len(other.by_seed)) < 2:
        return 1.0
    means = ([*one.by_seed.values()], [*other.by_seed.values()])
    return float(stats.ttest_ind(*means, equal_var=False).pvalue)


def _p(differences: np.ndarray) -> float:
    if np.ptp(differences) < 1e-12:  # the same in each seed: t has nothing to divide by
        return 1.0
    return float(stats.ttest_1samp(differences, 0).pvalue)
