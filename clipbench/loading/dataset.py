"""How images become batches: keyed shuffling, keyed augmentation, collation."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, default_collate
from torchvision.transforms.v2.functional import to_pil_image

from clipbench.core import paths
from clipbench.loading.cache import Kept, kept
from clipbench.loading.samplers import Key
from clipbench.loading.split import Split
from clipbench.transforms.mixup import Batch
from clipbench.transforms.preprocess import ImageInput, View


class ImageDataset(Dataset[Batch]):
    """A split as a model sees it: rows ``{"image", "label", "index"[, "captions"]}``.

    The seed and the :data:`Key` decide what is random in the view. ``decoder=pillow`` is exact to
    the last bit of what the checkpoint's library makes of an image, ``torchvision`` is faster and
    at most 1 of 255 away; images in memory are always exact. Decoded images on disk take
    ``cache_gb`` at most, 0 keeps none. For pairs see
    :class:`clipbench.loading.samplers.EpochPlan`.
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
        self.split, self.view, self.seed, self.pairs = split, view, seed, pairs
        self.exact = decoder == "pillow" or isinstance(split.images, np.ndarray)
        self.value_range = value_range
        self.kept: Kept | None = None
        if cache_gb > 0 and split.sources:
            values = value_range and list(value_range)
            reading = {"exact": self.exact, "value_range": values, "border": split.border}
            self.kept = kept(
                split.sources,
                view.deterministic,
                self._fixed,
                reading=reading,
                limit_gb=cache_gb,
                folder=paths.outputs() / "cache",
            )

    def __len__(self) -> int:
        return len(self.split if self.pairs is None else self.pairs)

    def __getitem__(self, key: int | Key) -> Batch:
        epoch, place, draw = key if isinstance(key, tuple) else (0, key, 0)
        index = place if self.pairs is None else int(self.pairs[place, 0])
        row: Batch = {
            "image": self._image(index, (epoch, place, draw)),
            "label": int(self.split.labels[index]),
            "index": index,
        }
        if self.split.captions is not None:
            row["captions"] = row_captions(self.split.captions[index], place, self.pairs)
        return row

    def _image(self, index: int, key: Key) -> Tensor:
        image = self._fixed(index) if self.kept is None else self.kept(index)
        if self.exact and self.view.deterministic is None and isinstance(image, Tensor):
            image = to_pil_image(image)
        if self.view.random is None:
            return self.view.finish(image)
        epoch, place, draw = key
        # The first draw is keyed as in a run that draws each image once.
        entropy = [self.seed, epoch, place, *([draw] if draw else [])]
        keyed = np.random.SeedSequence(entropy).generate_state(1)[0]
        with torch.random.fork_rng(devices=[]):
            # not torch.manual_seed, which would reseed an accelerator's generator for good
            torch.default_generator.manual_seed(int(keyed))
            return self.view.finish(image)

    def _fixed(self, index: int) -> ImageInput:
        """Return the image decoded, after the deterministic part of the view."""
        decoded = self.split.image if self.exact else self.split.pixels
        image = decoded(index, self.value_range)
        return image if self.view.deterministic is None else self.view.deterministic(image)


def row_captions(
    captions: Sequence[str], place: int, pairs: NDArray[np.int64] | None
) -> Sequence[str]:
    """Return the captions of a row: all of its image, or the caption of its pair."""
    return captions if pairs is None else [captions[pairs[place, 1]]]


def paired(captions: Sequence[Sequence[str]]) -> NDArray[np.int64]:
    """Return every pair of an image and one of its captions, in order: (m, 2) positions."""
    rows = [(i, k) for i, texts in enumerate(captions) for k in range(len(texts))]
    return np.array(rows, dtype=np.int64)


def collate(rows: list[Batch]) -> Batch:
    """Return a batch of rows: tensors stacked, captions as lists, which may differ in length."""
    captions = [row.pop("captions") for row in rows if "captions" in row]
    batch: Batch = default_collate(rows)
    return {**batch, "captions": captions} if captions else batch
