"""Which images a batch takes, and in which order, on how many ranks."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from clipbench.core import distributed

# The epoch, a position in the split, and how often it was drawn before in this epoch.
Key = tuple[int, int, int]


@dataclass(frozen=True)
class EpochPlan:
    """The rows of an epoch, and how they come in batches.

    Attributes:
        images: how many train has.
        pairs: the rows if they are not the images: the position of an image, and which of its
            captions, (m, 2).
        full_batches: leave out a last batch that is short, unless it is the only one.
    """

    images: int
    pairs: NDArray[np.int64] | None = None
    full_batches: bool = False

    def __len__(self) -> int:
        return self.images if self.pairs is None else len(self.pairs)

    def kept(self, size: int) -> int:
        """Return how many rows are used in batches of a size."""
        whole = len(self) // size * size
        return whole if self.full_batches and whole else len(self)

    def batches(self, size: int) -> int:
        """Return how many batches of a size there are."""
        return -(-self.kept(size) // size)

    def fewest(self, size: int, devices: int = 1, micro: int | None = None) -> int:
        """Return the fewest rows that a device takes at once from global batches of a size.

        Of its share a device takes ``micro`` at most at once; None for all of it.
        """
        whole, last = divmod(self.kept(size), size)
        shares = [size // devices] * bool(whole) + [-(-last // devices)] * bool(last)
        return min((share % (micro or share) or micro or share for share in shares), default=0)


class KeyedSampler(Sampler[Key]):
    """Positions in an order that is a function of (seed, epoch) alone.

    It yields a :data:`Key`, so that the augmentation of an image is keyed by (seed, epoch,
    position, draw) in any worker. An image that is drawn several times in an epoch looks different
    each time.

    With weights, (length,), positions are drawn with replacement, else each once. Only the first
    ``kept`` of the order are used; None for all.
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
        """Set the epoch; the Trainer calls this before each, even if workers have begun it."""
        if epoch != self.epoch:
            self.epoch, self.first = epoch, 0

    def begin(self, epoch: int, row: int) -> None:
        """Go on within an epoch, whose rows before this one have been used."""
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
        draws, keys = Counter[int](), []
        for position in self.order().tolist():  # all of them, so that a resumed epoch counts alike
            keys.append((self.epoch, position, draws[position]))
            draws[position] += 1
        return iter(keys[self.first : self.kept])


class RankSampler(Sampler[Key]):
    """This rank's part of each global batch; all ranks together take what one alone would."""

    def __init__(self, order: KeyedSampler, batch_size: int) -> None:
        self.order, self.batch_size = order, batch_size
        self.set_epoch, self.begin = order.set_epoch, order.begin

    def __len__(self) -> int:
        whole, last = divmod(len(self.order), self.batch_size)
        world = distributed.here.world
        return whole * (self.batch_size // world) + -(-last // world)

    def __iter__(self) -> Iterator[Key]:
        rows, size = list(self.order), self.batch_size
        return distributed.shares(rows[start : start + size] for start in range(0, len(rows), size))


class UniqueSampler(KeyedSampler):
    """An order whose batches hold each class in proportion, rounded up or down.

    A class with no more images than there are batches is then at most once in each: in a
    contrastive loss on captions of classes no pair is a false negative. A larger class is as often
    in a batch as it must be. Which images and classes meet is drawn anew each epoch, from
    (seed, epoch) alone; the last batch may be short. Labels are int64 (n,).
    """

    def __init__(
        self, labels: NDArray[np.int64], seed: int, batch_size: int, kept: int | None = None
    ) -> None:
        super().__init__(len(labels), seed, kept=kept)
        self.labels, self.batch_size = labels, batch_size

    def order(self) -> NDArray[np.int64]:
        """Return the positions of an epoch, batch after batch."""
        rng = np.random.default_rng([self.seed, self.epoch])
        shuffled = rng.permutation(self.length)
        sorted_by_class = shuffled[np.argsort(self.labels[shuffled], kind="stable")]
        remaining = np.bincount(self.labels)
        ends = np.cumsum(remaining)
        whole, last = divmod(self.length, self.batch_size)
        # The short batch is the last, but dealt first: a class with an image for every batch must
        # be in it too, and then all other images still have a place.
        sizes = [last] * bool(last) + [self.batch_size] * whole
        batches = []
        for position, size in enumerate(sizes):
            dealt = _deal(remaining, size, remaining == len(sizes) - position, rng)
            rows = [
                sorted_by_class[ends[c] - remaining[c] :][: dealt[c]] for c in np.flatnonzero(dealt)
            ]
            batches.append(rng.permutation(np.concatenate(rows)))
            remaining = remaining - dealt
        return np.concatenate(batches[1:] + batches[:1] if last else batches)


def _deal(
    remaining: NDArray[np.int64], size: int, must: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return how many of the remaining images of each class, (C,), a batch of a size takes.

    Each share is rounded up or down: up for classes that ``must`` be in it, then by draw, more
    often the nearer it is to the next whole number.
    """
    dealt, over = np.divmod(remaining * size, remaining.sum())
    # The smallest of exponential times over weights are a draw without replacement (Efraimidis
    # and Spirakis 2006).
    with np.errstate(divide="ignore"):
        times = np.where(must & (over > 0), -1.0, rng.exponential(size=len(remaining)) / over)
    dealt[np.argsort(times, kind="stable")[: size - dealt.sum()]] += 1
    return dealt


def even_weights(labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Return n / (C' n_c) of each of C classes, (C,), for n labels; 0 for classes without one.

    C' is the number of classes with a label, so that the mean over images is 1 (sklearn's
    "balanced").
    """
    counts = np.bincount(labels, minlength=classes)
    present = counts > 0
    return np.where(present, counts.sum() / (present.sum() * np.maximum(counts, 1)), 0.0)
