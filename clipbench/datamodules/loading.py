"""How pictures become batches: keyed shuffling, keyed augmentation, collation."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler, default_collate

from clipbench.datamodules.split import Split
from clipbench.transforms import Transform


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
    """A split with its transform: rows ``{"image", "label", "index"[, "captions"]}``."""

    def __init__(self, split: Split, transform: Transform, seed: int = 0) -> None:
        self.split, self.transform, self.seed = split, transform, seed

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        keyed = np.random.SeedSequence([self.seed, epoch, index]).generate_state(1)[0]
        with torch.random.fork_rng(devices=[]):
            # not torch.manual_seed, which would reseed an accelerator's generator for good
            torch.default_generator.manual_seed(int(keyed))
            image = self.transform(self.split.picture(index))
        row = {"image": image, "label": int(self.split.labels[index]), "index": index}
        if self.split.captions is not None:
            row["captions"] = self.split.captions[index]
        return row


def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch: tensors stacked; captions as they are, since pictures may differ in their number."""
    captions = [row.pop("captions") for row in rows if "captions" in row]
    batch: dict[str, Any] = default_collate(rows)
    return {**batch, "captions": captions} if captions else batch
