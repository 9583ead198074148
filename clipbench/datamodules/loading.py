"""How pictures become batches: keyed shuffling, keyed augmentation, collation."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler, default_collate
from torchvision.transforms.v2.functional import to_pil_image

from clipbench import paths
from clipbench.datamodules.cache import Kept, kept
from clipbench.datamodules.split import Split
from clipbench.transforms import Picture, View


class KeyedSampler(Sampler[tuple[int, int]]):
    """Positions in an order that is a function of (seed, epoch) alone.

    It yields ``(epoch, position)``, so that the augmentation of a picture can be keyed by
    (seed, epoch, position) in whichever worker it happens.

    Args:
        length: of the split, and of an epoch.
        seed: of the run.
        weights: how likely each position is drawn, (length,), with replacement; None for each once.
    """

    def __init__(self, length: int, seed: int, weights: NDArray[np.float64] | None = None) -> None:
        self.length, self.seed, self.epoch = length, seed, 0
        self.share = None if weights is None else weights / weights.sum()

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        if self.share is None:
            order = rng.permutation(self.length)
        else:
            order = rng.choice(self.length, self.length, p=self.share)
        return iter([(self.epoch, int(i)) for i in order])


class Pictures(Dataset[dict[str, Any]]):
    """A split as a model sees it: rows ``{"image", "label", "index"[, "captions"]}``.

    Args:
        split: its pictures.
        view: of training or of evaluation.
        seed: of what is random in the view, together with the epoch and the position.
        decoder: ``pillow``, exact to the last bit of what the checkpoint's library makes of a
            picture, or ``torchvision``, faster and at most 1 of 255 away. Pictures in memory
            need no decoder: they are prepared exactly.
        value_range: see :func:`clipbench.pictures.read`.
        cache_gb: the most that decoded pictures kept on disk may take; 0 keeps none.
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
    ) -> None:
        self.split, self.view, self.seed = split, view, seed
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
        return len(self.split)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        row = {
            "image": self._image(epoch, index),
            "label": int(self.split.labels[index]),
            "index": index,
        }
        if self.split.captions is not None:
            row["captions"] = self.split.captions[index]
        return row

    def _image(self, epoch: int, index: int) -> Tensor:
        picture = self._fixed(index) if self.kept is None else self.kept(index)
        if self.exact and self.view.fixed is None and isinstance(picture, Tensor):
            picture = to_pil_image(picture)
        if self.view.varied is None:
            return self.view.finish(picture)
        keyed = np.random.SeedSequence([self.seed, epoch, index]).generate_state(1)[0]
        with torch.random.fork_rng(devices=[]):
            # not torch.manual_seed, which would reseed an accelerator's generator for good
            torch.default_generator.manual_seed(int(keyed))
            return self.view.finish(picture)

    def _fixed(self, index: int) -> Picture:
        """The picture decoded, after the part of the view that is the same at every look."""
        decoded = self.split.picture if self.exact else self.split.pixels
        picture = decoded(index, self.value_range)
        return picture if self.view.fixed is None else self.view.fixed(picture)


def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch: tensors stacked; captions as they are, since pictures may differ in their number."""
    captions = [row.pop("captions") for row in rows if "captions" in row]
    batch: dict[str, Any] = default_collate(rows)
    return {**batch, "captions": captions} if captions else batch
