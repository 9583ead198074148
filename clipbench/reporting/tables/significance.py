"""Which row of a column is better than every other by more than chance: the bold one."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from clipbench.metrics import significance
from clipbench.metrics.intervals import discordant, goodness, holm, share_of_images
from clipbench.metrics.seeds import Part, Side, spread, t_test
from clipbench.metrics.significance import Difference
from clipbench.reporting.tables.cells import Measured
from clipbench.results import comparison, predictions

Key = TypeVar("Key")
WELCH = "Welch's t"
_RESAMPLES = 2000  # of the pictures: a table has many pairs
_AT_MOST = 8  # rows that are compared on saved predictions: 28 pairs


@dataclass(frozen=True)
class Best:
    """The best row of a column, and what may be said of it.

    Attributes:
        place: of the row.
        tests: that were run, by name.
        claimed: it is better than every other row, by more than images and seeds explain: bold.
        of_these_runs: it is not, but the trained models differ from all the others' on these
            images, where too few seeds were trained to tell what others would give.
    """

    place: int
    tests: Sequence[str]
    claimed: bool
    of_these_runs: bool


def best(rows: Sequence[Measured]) -> Best | None:
    """Compare the best row with every other, p adjusted over all pairs by Holm.

    Over all pairs, not only those with the best one: which is best was seen in the same numbers.

    Args:
        rows: of one column, measured on the same pictures.

    Returns:
        None where there are not two rows.
    """
    if len(rows) < 2:
        return None
    place = max(range(len(rows)), key=lambda i: goodness(rows[i].metric, rows[i].interval.estimate))
    saved = len(rows) <= _AT_MOST
    found = {
        (a, b): compare(rows[a], rows[b], saved=saved)
        for a, b in itertools.combinations(range(len(rows)), 2)
    }
    of_best = [one for pair, one in adjusted(found).items() if place in pair]
    claimed = all(one.claimed for one in of_best)
    apart = all(one.claimed or one.of_these_runs for one in of_best)
    tests = sorted({one.test for one in of_best})
    return Best(place, tests, claimed, apart and not claimed)


def adjusted(found: Mapping[Key, Difference]) -> dict[Key, Difference]:
    """Return the differences with their p adjusted for their number by Holm's rule."""
    ps = holm([one.p for one in found.values()])
    return {key: replace(one, p=p) for (key, one), p in zip(found.items(), ps, strict=True)}


def compare(first: Measured, second: Measured, *, saved: bool = True) -> Difference:
    """Return the second less the first, by the best evidence there is of both.

    That is their saved predictions; of runs that have none, as frozen ones, their numbers and what
    is kept of each pair.

    Args:
        first: runs that differ by their seed alone.
        second: likewise, measured on the same pictures.
        saved: False to let saved predictions be.
    """
    if saved and _predicted(first) and _predicted(second):
        split, metric = first.column.split("/")
        other_split, other = second.column.split("/")
        if (split, metric.split("@")[0]) == (other_split, other.split("@")[0]):
            both = (first.folders, second.folders)
            return comparison.compare(*both, split, metric, other, resamples=_RESAMPLES)
    return _by_numbers(first, second)


def _predicted(row: Measured) -> bool:
    """Whether there are predictions of just this metric of all its runs."""
    split, _, metric = row.column.partition("/")
    name, *alpha = metric.split("@alpha", 1)
    if name not in significance.METRICS or not row.folders:
        return False
    return all(predictions.saved(folder, split, *alpha) for folder in row.folders)


def _by_numbers(first: Measured, second: Measured) -> Difference:
    """Welch's test over seeds, with what is known of the images; p is 1 where nothing is."""
    one, other = ([*row.by_seed.values()] for row in (first, second))
    training = spread(Side(one, first.varies), Side(other, second.varies))
    estimate = float(np.mean(other) - np.mean(one))
    pairs = _pairs(first, second)
    images, told = (_over_pairs(pairs), "images") if pairs else _unpaired(first, second)
    low, high, p, test = float("nan"), float("nan"), 1.0, "none"
    if training.parts or images:
        low, high, p = t_test(estimate, training.parts, images)
        over = [name for name, known in (("seeds", training.parts), (told, images)) if known]
        test = f"{WELCH if training.parts else 't'} over {' and '.join(over)}"
    if len(pairs) == 1 and not training.parts:
        p, test = discordant(*pairs[0][1:]), "exact McNemar"
    n = first.split.n if first.split else 0
    seeds = (len(one), len(other))
    return Difference(first.column, estimate, low, high, p, test, n, seeds, training.known)


def _pairs(first: Measured, second: Measured) -> list[tuple[int, int, int]]:
    """What is kept of the pairs of runs: of each seed, or of every one with every other.

    All of them, or none: (images, only the first is right, only the second is right).
    """
    same = first.column == second.column and first.column.endswith("/acc")
    if not same or first.split is None or not (first.counts and first.keys and second.keys):
        return []
    name = first.split.name
    keys = [(first.keys[i], second.keys[j]) for i, j in paired_runs(first, second)]
    found = [first.counts.get((name, *pair)) for pair in keys]
    return [] if None in found else [counts for counts in found if counts]


def paired_runs(first: Measured, second: Measured) -> list[tuple[int, int]]:
    """Return which runs of two rows are paired, by place: of each seed, or every one with every.

    Args:
        first: runs that differ by their seed alone.
        second: likewise.
    """
    seeds = [list(row.by_seed) for row in (first, second)]
    if sorted(seeds[0]) == sorted(seeds[1]):
        return [(i, seeds[1].index(seed)) for i, seed in enumerate(seeds[0])]
    return list(itertools.product(range(len(seeds[0])), range(len(seeds[1]))))


def _over_pairs(pairs: Sequence[tuple[int, int, int]]) -> Part:
    """The variance over images of the mean difference: at most the mean of the pairs' own."""
    n = pairs[0][0]
    own = [(b + c) / n - ((b - c) / n) ** 2 for _, b, c in pairs]
    return float(np.mean(own)) / n, n - 1


def _unpaired(first: Measured, second: Measured) -> tuple[Part | None, str]:
    """Of two shares of n images, as if each had images of its own, which is more than it is."""
    if not (share_of_images(first.metric) and first.split and second.split):
        return None, ""
    n = first.split.n
    shares = [row.interval.estimate for row in (first, second)]
    variance = sum(share * (1 - share) for share in shares) / n
    return ((variance, n - 1), "images, unpaired") if variance > 0 else (None, "")
