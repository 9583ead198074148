"""How pictures become batches: keyed shuffling, keyed augmentation, collation."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler, default_collate
from torchvision.transforms.v2.functional import to_pil_image

from clipbench.core import distributed, paths
from clipbench.loading.cache import Kept, kept
from clipbench.loading.split import Split
from clipbench.transforms.preprocess import Picture, View

# The epoch, a position in the split, and how often that was drawn before in this epoch.
Key = tuple[int, int, int]


@dataclass(frozen=True)
class Epoch:
    """The rows of an epoch, and how they come in batches.

    Attributes:
        pictures: how many train has.
        pairs: the rows, where these are not the pictures: of each the picture's position and which
            of its captions, (m, 2).
        full_batches: leave out what is left over, where there is a full batch.
    """

    pictures: int
    pairs: NDArray[np.int64] | None = None
    full_batches: bool = False

    def __len__(self) -> int:
        return self.pictures if self.pairs is None else len(self.pairs)

    def kept(self, size: int) -> int:
        """How many rows are taken, in batches of a size."""
        whole = len(self) // size * size
        return whole if self.full_batches and whole else len(self)

    def batches(self, size: int) -> int:
        """How many batches of a size there are."""
        return -(-self.kept(size) // size)

    def fewest(self, size: int, devices: int = 1, micro: int | None = None) -> int:
        """The least rows that a device takes at once.

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
        """Called by the Trainer before each epoch, though after a loader may have asked."""
        if epoch != self.epoch:
            self.epoch, self.first = epoch, 0

    def begin(self, epoch: int, row: int) -> None:
        """Go on in the midst of an epoch, whose rows before this one have been seen."""
        self.epoch, self.first = epoch, row

    def __len__(self) -> int:
        return self.kept

    def order(self) -> NDArray[np.int64]:
        """The positions of an epoch from its first row on, drawn anew for each."""
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


class Share(Sampler[Key]):
    """This rank's part of each global batch; together the ranks take what one alone would.

    Args:
        order: of all rows.
        batch_size: global.
    """

    def __init__(self, order: KeyedSampler, batch_size: int) -> None:
        self.order, self.batch_size = order, batch_size

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each epoch."""
        self.order.set_epoch(epoch)

    def begin(self, epoch: int, row: int) -> None:
        """As the whole order does, by its rows."""
        self.order.begin(epoch, row)

    def __len__(self) -> int:
        whole, rest = divmod(len(self.order), self.batch_size)
        return whole * (self.batch_size // distributed.here.world) + -(
            -rest // distributed.here.world
        )

    def __iter__(self) -> Iterator[Key]:
        rows, size = list(self.order), self.batch_size
        return distributed.shares(rows[start : start + size] for start in range(0, len(rows), size))


class Pictures(Dataset[dict[str, Any]]):
    """A split as a model sees it: rows ``{"image", "label", "index"[, "captions"]}``.

    Args:
        split: its pictures.
        view: of training or of evaluation.
        seed: of what is random in the view, together with the :data:`Key`.
        decoder: ``pillow``, exact to the last bit of what the checkpoint's library makes of a
            picture, or ``torchvision``, faster and at most 1 of 255 away. Pictures in memory
            need no decoder: they are prepared exactly.
        value_range: see :func:`clipbench.loading.images.integrity.read`.
        cache_gb: the most that decoded pictures kept on disk may take; 0 keeps none.
        pairs: see :class:`Epoch`.
    """

    def __init__(
        self,
        split: Split,
        view: View,
        seed: int = 0,
        *,
        decoder: str = "torchvision",
        value_range: tuple[float, float] | None = None,
        cache_gb: float = 0.0,
        pairs: NDArray[np.int64] | None = None,
    ) -> None:
        self.split, self.view, self.seed = split, view, seed
        self.pairs = pairs
        self.exact = decoder == "pillow" or isinstance(split.pictures, np.ndarray)
        self.value_range = value_range
        self.kept: Kept | None = None
        if cache_gb > 0 and split.sources:
            self.kept = kept(
                split.sources,
                view.fixed,
                self._fixed,
                reading={
                    "exact": self.exact,
                    "value_range": value_range and list(value_range),
                    "border": split.border,
                },
                limit_gb=cache_gb,
                folder=paths.outputs() / "cache",
            )

    def __len__(self) -> int:
        return len(self.split if self.pairs is None else self.pairs)

    def __getitem__(self, key: int | Key) -> dict[str, Any]:
        epoch, place, draw = key if isinstance(key, tuple) else (0, key, 0)
        index = place if self.pairs is None else int(self.pairs[place, 0])
        row = {
            "image": self._image(index, (epoch, place, draw)),
            "label": int(self.split.labels[index]),
            "index": index,
        }
        if self.split.captions is not None:
            row["captions"] = said(self.split.captions[index], place, self.pairs)
        return row

    def _image(self, index: int, key: Key) -> Tensor:
        picture = self._fixed(index) if self.kept is None else self.kept(index)
        if self.exact and self.view.fixed is None and isinstance(picture, Tensor):
            picture = to_pil_image(picture)
        if self.view.varied is None:
            return self.view.finish(picture)
        epoch, place, draw = key
        # The first draw is keyed as in a run that draws each image once.
        entropy = [self.seed, epoch, place, *([draw] if draw else [])]
        keyed = np.random.SeedSequence(entropy).generate_state(1)[0]
        with torch.random.fork_rng(devices=[]):
            # not torch.manual_seed, which would reseed an accelerator's generator for good
            torch.default_generator.manual_seed(int(keyed))
            return self.view.finish(picture)

    def _fixed(self, index: int) -> Picture:
        """The picture decoded, after the part of the view that is the same at every look."""
        decoded = self.split.picture if self.exact else self.split.pixels
        picture = decoded(index, self.value_range)
        return picture if self.view.fixed is None else self.view.fixed(picture)


def said(captions: Sequence[str], place: int, pairs: NDArray[np.int64] | None) -> Sequence[str]:
    """Of a picture's captions those of a row: all of them, or the one of its pair."""
    return captions if pairs is None else [captions[pairs[place, 1]]]


def paired(captions: Sequence[Sequence[str]]) -> NDArray[np.int64]:
    """Every pair of a picture and one of its captions, in order: (m, 2) positions."""
    rows = [(i, k) for i, own in enumerate(captions) for k in range(len(own))]
    return np.array(rows, dtype=np.int64)


def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch: tensors stacked; captions as they are, since pictures may differ in their number."""
    captions = [row.pop("captions") for row in rows if "captions" in row]
    batch: dict[str, Any] = default_collate(rows)
    return {**batch, "captions": captions} if captions else batch
