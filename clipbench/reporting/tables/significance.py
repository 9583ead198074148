"""Tests between the rows of a column; a row better than every other by more than chance is bold."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from clipbench.metrics import registry
from clipbench.metrics.intervals import discordant, goodness, holm
from clipbench.metrics.seeds import Part, Side, spread, t_test
from clipbench.metrics.significance import Difference
from clipbench.reporting.tables.cells import Measured
from clipbench.results import comparison, predictions

Key = TypeVar("Key")
WELCH = "Welch's t"
_RESAMPLES = 2000  # of the images: a table has many pairs
_AT_MOST = 8  # rows that are compared on saved predictions: 28 pairs


@dataclass(frozen=True)
class Best:
    """The best row of a column.

    Attributes:
        place: of the row.
        tests: names of the tests that were run.
        claimed: whether it is better than every other row by more than images and seeds explain,
            and therefore bold.
        of_these_runs: whether it is not, but these trained models differ from all the others on
            these images, and too few seeds were trained to say more.
    """

    place: int
    tests: Sequence[str]
    claimed: bool
    of_these_runs: bool


def best(rows: Sequence[Measured]) -> Best | None:
    """Compare the best row with every other, p adjusted over all pairs by Holm.

    The adjustment is over all pairs, because the best row was chosen by the same numbers.

    Args:
        rows: of one column, measured on the same images.

    Returns:
        The best row, or None if there are fewer than two rows.
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
    """Return the second minus the first, by the best available evidence.

    That is their saved predictions. Frozen runs have none: their numbers are compared, with the
    counts of each pair.

    Args:
        first: runs that differ only by seed.
        second: likewise, measured on the same images.
        saved: whether to use saved predictions.
    """
    if saved and _predicted(first) and _predicted(second):
        split, metric = first.column.split("/")
        other_split, other = second.column.split("/")
        if (split, metric.split("@")[0]) == (other_split, other.split("@")[0]):
            both = (first.folders, second.folders)
            return comparison.compare(*both, split, metric, other, resamples=_RESAMPLES)
    return _by_numbers(first, second)


def _predicted(row: Measured) -> bool:
    """Return whether all runs of a row have saved predictions of its metric."""
    split, _, metric = row.column.partition("/")
    name, *alpha = metric.split("@alpha", 1)
    if name not in registry.PAIRED or not row.folders:
        return False
    return all(predictions.saved(folder, split, *alpha) for folder in row.folders)


def _by_numbers(first: Measured, second: Measured) -> Difference:
    """Return Welch's test over seeds, with what is known of the images; p is 1 if nothing is."""
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
    """Return the counts of each pair of runs, or nothing if any pair has none.

    A count is (images, only the first is right, only the second is right).
    """
    same = first.column == second.column and "@alpha" not in first.column
    if (
        not (same and registry.of(first.column).mcnemar)
        or first.split is None
        or not (first.counts and first.keys and second.keys)
    ):
        return []
    name = first.split.name
    keys = [(first.keys[i], second.keys[j]) for i, j in paired_runs(first, second)]
    found = [first.counts.get((name, *pair)) for pair in keys]
    return [] if None in found else [counts for counts in found if counts]


def paired_runs(first: Measured, second: Measured) -> list[tuple[int, int]]:
    """Return the pairs of runs of two rows, by place: by seed, or each with each.

    Args:
        first: runs that differ only by seed.
        second: likewise.
    """
    seeds = [list(row.by_seed) for row in (first, second)]
    if sorted(seeds[0]) == sorted(seeds[1]):
        return [(i, seeds[1].index(seed)) for i, seed in enumerate(seeds[0])]
    return list(itertools.product(range(len(seeds[0])), range(len(seeds[1]))))


def _over_pairs(pairs: Sequence[tuple[int, int, int]]) -> Part:
    """Return a bound on the mean difference's variance over images: the mean of the pairs'."""
    n = pairs[0][0]
    own = [(b + c) / n - ((b - c) / n) ** 2 for _, b, c in pairs]
    return float(np.mean(own)) / n, n - 1


def _unpaired(first: Measured, second: Measured) -> tuple[Part | None, str]:
    """Return the variance of two shares of n images as if unpaired, which is an upper bound."""
    if not (registry.of(first.metric).counts_images and first.split and second.split):
        return None, ""
    n = first.split.n
    shares = [row.interval.estimate for row in (first, second)]
    variance = sum(share * (1 - share) for share in shares) / n
    return ((variance, n - 1), "images, unpaired") if variance > 0 else (None, "")
