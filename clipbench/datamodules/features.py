"""A dataset seen through a frozen image tower: every picture encoded once, without augmentation."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from clipbench.datamodules.base import ClassificationDataModule
from clipbench.errors import Refused
from clipbench.progress import track


class Features(Dataset[dict[str, Any]]):
    """Rows ``{"features", "label", "index"}`` of features (n, D) and labels (n,)."""

    def __init__(self, features: Tensor, labels: Tensor) -> None:
        self.features, self.labels = features, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        index = key[1] if isinstance(key, tuple) else key
        return {"features": self.features[index], "label": self.labels[index], "index": index}


class FeatureLoaders:
    """The loaders of a datamodule, with features in place of pictures.

    Args:
        data: a datamodule that has been attached.
        encode: pictures (B, 3, S, S) to features (B, D) on the CPU.
    """

    def __init__(self, data: ClassificationDataModule, encode: Callable[[Tensor], Tensor]) -> None:
        self.data, self.encode = data, encode
        self.encoded: dict[str, Features] = {}

    def features(self, split: str) -> Features:
        """The features of a split, computed when first asked for."""
        if split not in self.encoded:
            loader = track(self.data.eval_dataloader(split), f"encoding {split}")
            parts = [(self.encode(batch["image"]), batch["label"]) for batch in loader]
            features, labels = zip(*parts, strict=True)
            self.encoded[split] = Features(torch.cat(features), torch.cat(labels))
        return self.encoded[split]

    def tensors(self, split: str) -> tuple[Tensor, Tensor]:
        """The features (n, D) and labels (n,) of a split, for a fit that reads them whole.

        Raises:
            Refused: where classes should be drawn evenly, which a fit cannot.
        """
        if self.data.balance == "sampler":
            raise Refused("a fitted head draws no pictures; use dataset.balance=weights")
        rows = self.features(split)
        return rows.features, rows.labels

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Shuffled by (seed, epoch), as pictures would be."""
        rows = self.features("train")
        sampler = self.data.train_sampler()
        return DataLoader(rows, batch_size=self.data.batch_size, sampler=sampler)

    def eval_dataloader(self, name: str) -> DataLoader[dict[str, Any]]:
        """A split in order, every row once."""
        return DataLoader(self.features(name), batch_size=self.data.batch_size)
