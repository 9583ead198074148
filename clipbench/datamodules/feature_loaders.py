"""A dataset seen through a frozen image tower: every image encoded once, without augmentation."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from clipbench.core import distributed
from clipbench.core.console import track
from clipbench.core.errors import UserError
from clipbench.datamodules.base import DataModule
from clipbench.loading.dataset import collate, row_captions
from clipbench.loading.samplers import Key, RankSampler
from clipbench.loading.split import Split
from clipbench.transforms.mixup import Batch


class Features(Dataset[Batch]):
    """Rows ``{"features", "label", "index"[, "captions"]}`` of a split's features (n, D).

    ``pairs`` are those of :class:`clipbench.loading.dataset.ImageDataset`.
    """

    def __init__(
        self, split: Split, features: Tensor, pairs: NDArray[np.int64] | None = None
    ) -> None:
        self.split, self.features, self.pairs = split, features, pairs
        self.labels = torch.tensor(split.labels)

    def __len__(self) -> int:
        return len(self.split if self.pairs is None else self.pairs)

    def __getitem__(self, key: int | Key) -> Batch:
        place = key[1] if isinstance(key, tuple) else key
        index = place if self.pairs is None else int(self.pairs[place, 0])
        row: Batch = {"features": self.features[index], "label": self.labels[index], "index": index}
        if self.split.captions is not None:
            row["captions"] = row_captions(self.split.captions[index], place, self.pairs)
        return row


class FeatureLoaders:
    """The loaders of a datamodule, with features in place of images.

    Args:
        data: a datamodule that has been attached.
        encode: images (B, 3, S, S) to features (B, D) on the CPU.
    """

    def __init__(self, data: DataModule, encode: Callable[[Tensor], Tensor]) -> None:
        self.data, self.encode = data, encode
        self.encoded: dict[str, Features] = {}

    def features(self, split: str) -> Features:
        """Return the features of a split, computed on the first call."""
        if split not in self.encoded:
            loader = track(self.data.eval_dataloader(split), f"encoding {split}")
            parts = [(self.encode(batch["image"]), batch["index"]) for batch in loader]
            features, index = (torch.cat(part) for part in zip(*parts, strict=True))
            self.encoded[split] = Features(
                self.data.splits[split], distributed.whole(features, index)
            )
        return self.encoded[split]

    def tensors(self, split: str) -> tuple[Tensor, Tensor]:
        """Return the features (n, D) and labels (n,) of a split, for a closed-form fit.

        Raises:
            UserError: where classes should be drawn evenly, which a fit cannot.
        """
        if self.data.balance == "sampler":
            raise UserError("a fitted head draws no images. Use dataset.balance=weights")
        rows = self.features(split)
        return rows.features, rows.labels

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return a loader of this rank's share of train, shuffled as images would be."""
        split, features = self.data.splits["train"], self.features("train").features
        order = RankSampler(self.data.train_sampler(), self.data.batch_size)
        return self._loader(Features(split, features, self.data.caption_rows), order)

    def eval_dataloader(self, name: str) -> DataLoader[Batch]:
        """Return a loader of this rank's share of a split, in order, each row once."""
        features = self.features(name)
        return self._loader(features, distributed.own(len(features)))

    def _loader(self, rows: Features, order: Iterable[Any]) -> DataLoader[Batch]:
        size = self.data.batch_size // distributed.here.world
        return DataLoader(rows, batch_size=size, sampler=order, collate_fn=collate)
