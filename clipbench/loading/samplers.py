"""Which images a batch takes, and in which order, on how many ranks."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from clipbench.core import distributed

# The epoch, a position in the split, and how often that was drawn before in this epoch.
Key = tuple[int, int, int]


@dataclass(frozen=True)
class EpochPlan:
    """The rows of an epoch, and how they come in batches.

    Attributes:
        images: how many train has.
        pairs: the rows, where these are not the images: of each the image's position and which
            of its captions, (m, 2).
        full_batches: leave out what is left over, where there is a full batch.
    """

    images: int
    pairs: NDArray[np.int64] | None = None
    full_batches: bool = False

    def __len__(self) -> int:
        return self.images if self.pairs is None else len(self.pairs)

    def kept(self, size: int) -> int:
        """Return how many rows are used, in batches of a size."""
        whole = len(self) // size * size
        return whole if self.full_batches and whole else len(self)

    def batches(self, size: int) -> int:
        """Return how many batches of a size there are."""
        return -(-self.kept(size) // size)

    def fewest(self, size: int, devices: int = 1, micro: int | None = None) -> int:
        """Return the smallest number of rows that a device takes at once.

        Args:
            size: rows of a global batch.
            devices: that share it.
            micro: the most that one takes at once; None for all of its share.
        """
        whole, rest = divmod(self.kept(size), size)
        shares = [size // devices] * bool(whole) + [-(-rest // devices)] * bool(rest)
        return min((own % (micro or own) or micro or own for own in shares), default=0)


class KeyedSampler(Sampler[Key]):
    """Positions in an order that is a function of (seed, epoch) alone.

    It yields a :data:`Key`, so that the augmentation of an image can be keyed by (seed, epoch,
    position, draw) in whichever worker it happens. Drawn with replacement, a rare image comes
    several times in an epoch, and is to look different each time.

    Args:
        length: how many positions there are.
        seed: of the run.
        weights: how likely each position is drawn, (length,), with replacement; None for each once.
        kept: how many of the order are taken; None for all.
    """

    def __init__(
        self,
        length: int,
        seed: int,
        weights: NDArray[np.float64] | None = None,
        kept: int | None = None,
    ) -> None:
        self.length, self.seed, self.epoch, self.first = length, seed, 0, 0
        self.kept = length if kept is None else kept
        self.share = None if weights is None else weights / weights.sum()

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; the Trainer calls this before each, though workers may have begun it."""
        if epoch != self.epoch:
            self.epoch, self.first = epoch, 0

    def begin(self, epoch: int, row: int) -> None:
        """Go on in the midst of an epoch, whose rows before this one have been seen."""
        self.epoch, self.first = epoch, row

    def __len__(self) -> int:
        return self.kept

    def order(self) -> NDArray[np.int64]:
        """Return the positions of an epoch, drawn anew for each."""
        rng = np.random.default_rng([self.seed, self.epoch])
        if self.share is None:
            return rng.permutation(self.length)
        return rng.choice(self.length, self.length, p=self.share)

    def __iter__(self) -> Iterator[Key]:
        # Of the whole order: an epoch that goes on in its midst numbers its draws as before.
        keys = list(_keys(self.epoch, self.order().tolist()))
        return iter(keys[self.first : self.kept])


def _keys(epoch: int, order: Iterable[int]) -> Iterator[Key]:
    drawn = Counter[int]()
    for position in order:
        yield epoch, position, drawn[position]
        drawn[position] += 1


class RankSampler(Sampler[Key]):
    """This rank's part of each global batch; together the ranks take what one alone would.

    Args:
        order: of all rows.
        batch_size: global.
    """

    def __init__(self, order: KeyedSampler, batch_size: int) -> None:
        self.order, self.batch_size = order, batch_size

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, as the Trainer does before each."""
        self.order.set_epoch(epoch)

    def begin(self, epoch: int, row: int) -> None:
        """Go on in the midst of an epoch, by the rows of the whole order."""
        self.order.begin(epoch, row)

    def __len__(self) -> int:
        whole, rest = divmod(len(self.order), self.batch_size)
        return whole * (self.batch_size // distributed.here.world) + -(
            -rest // distributed.here.world
        )

    def __iter__(self) -> Iterator[Key]:
        rows, size = list(self.order), self.batch_size
        return distributed.shares(rows[start : start + size] for start in range(0, len(rows), size))


Counts = NDArray[np.int64]


class UniqueSampler(KeyedSampler):
    """An order whose batches hold of each class what is its share, rounded up or down.

    A class of no more images than there are batches is then at most once in each: in a
    contrastive loss on captions of classes no pair is a false negative. One of more images is as
    often in a batch as it must be. Which images and classes meet is drawn anew each epoch, from
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
        """Return the positions of an epoch, batch after batch."""
        rng = np.random.default_rng([self.seed, self.epoch])
        shuffled = rng.permutation(self.length)
        sorted_by_class = shuffled[np.argsort(self.labels[shuffled], kind="stable")]
        left = np.bincount(self.labels)
        ends = np.cumsum(left)
        whole, rest = divmod(self.length, self.batch_size)
        # The short batch is the last, but dealt first: a class with an image for every batch must
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
    """Return how many images of each class a batch takes: its share, rounded up or down.

    Args:
        left: images of each class not dealt yet, (C,).
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
