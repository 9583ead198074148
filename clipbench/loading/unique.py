"""Batches of as many different classes as there can be, each picture once an epoch."""

import numpy as np
from numpy.typing import NDArray

from clipbench.loading.dataset import KeyedSampler

Counts = NDArray[np.int64]


class UniqueSampler(KeyedSampler):
    """An order whose batches hold of each class what is its share, rounded up or down.

    A class of no more pictures than there are batches is then at most once in each: in a
    contrastive loss on captions of classes no pair is a false negative. One of more pictures is as
    often in a batch as it must be. Which pictures and classes meet is drawn anew each epoch, from
    (seed, epoch) alone; the last batch may be short.

    Args:
        labels: of the split, (n,).
        seed: of the run.
        batch_size: of what the order is cut into.
        kept: how many rows an epoch has, the last batch left out; None for all.
    """

    def __init__(
        self, labels: NDArray[np.int64], seed: int, batch_size: int, kept: int | None = None
    ) -> None:
        super().__init__(len(labels), seed, kept=kept)
        self.labels, self.batch_size = labels, batch_size

    def order(self) -> Counts:
        """The positions of an epoch, batch after batch."""
        rng = np.random.default_rng([self.seed, self.epoch])
        shuffled = rng.permutation(self.length)
        sorted_by_class = shuffled[np.argsort(self.labels[shuffled], kind="stable")]
        left = np.bincount(self.labels)
        ends = np.cumsum(left)
        whole, rest = divmod(self.length, self.batch_size)
        # The short batch is the last, but dealt first: a class with a picture for every batch must
        # be in it too, and then the others have a place for all that is left.
        sizes = [rest] * bool(rest) + [self.batch_size] * whole
        batches = []
        for position, size in enumerate(sizes):
            taken = _deal(left, size, left == len(sizes) - position, rng)
            rows = [sorted_by_class[ends[c] - left[c] :][: taken[c]] for c in np.flatnonzero(taken)]
            batches.append(rng.permutation(np.concatenate(rows)))
            left = left - taken
        return np.concatenate(batches[1:] + batches[:1] if rest else batches)


def _deal(left: Counts, size: int, must: NDArray[np.bool_], rng: np.random.Generator) -> Counts:
    """How many pictures of each class a batch takes: its share of what is left, up or down.

    Args:
        left: pictures of each class not dealt yet, (C,).
        size: of the batch.
        must: classes that are in it before others.
        rng: draws which shares are rounded up, those just below a whole number more often.
    """
    taken, over = np.divmod(left * size, left.sum())
    # The smallest of exponential times over weights are a draw without replacement (Efraimidis
    # and Spirakis 2006).
    with np.errstate(divide="ignore"):
        times = np.where(must & (over > 0), -1.0, rng.exponential(size=len(left)) / over)
    taken[np.argsort(times, kind="stable")[: size - taken.sum()]] += 1
    return taken
