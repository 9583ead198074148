"""What every dataset shares: named splits with fingerprints, and loaders keyed by the seed."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from clipbench.datamodules.checks import check_labels, check_names, check_pictures, present
from clipbench.datamodules.split import Split, carve, few_shot
from clipbench.transforms import Augment, Preprocess, Transform, eval_transform, train_transform

__all__ = ["ClassificationDataModule", "KeyedSampler", "Pictures", "Split", "carve", "few_shot"]


class KeyedSampler(Sampler[tuple[int, int]]):
    """Positions in an order that is a function of (seed, epoch) alone.

    It yields ``(epoch, position)``, so that the augmentation of a picture can be keyed by
    (seed, epoch, position) in whichever worker it happens.
    """

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed, self.epoch = length, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
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


class ClassificationDataModule(LightningDataModule, ABC):
    """A dataset of labelled pictures.

    A subclass sets ``classes`` and ``templates`` and yields its splits; it needs no model. Before
    loaders are asked for, :meth:`attach` brings what the model and the recipe decide.

    Args:
        root: the dataset's folder.
        shots: pictures a class to train on; None for all of them.
        workers: processes that decode pictures; 0 decodes in the training process.

    Attributes:
        classes: class names as prompts use them, in label order.
        templates: prompts with one ``{}`` for the class name.
        metrics: names of the metrics reported for each split, the one selected on first.
        splits: filled by :meth:`prepare`.
        warnings: what is not wrong enough to stop a run, to be said once and kept in its record.
        published_name: the dataset's name in ``experiments/published/clip_benchmark.csv``.
    """

    classes: list[str]
    templates: list[str]
    metrics: Sequence[str] = ("acc", "mean_per_class")
    published_name: str | None = None

    def __init__(
        self, *, root: str | Path = ".", shots: int | None = None, workers: int = 0
    ) -> None:
        super().__init__()
        self.root, self.shots, self.workers = Path(root).expanduser(), shots, workers
        self.splits: dict[str, Split] = {}
        self.warnings: list[str] = []

    @abstractmethod
    def read_splits(self) -> dict[str, Split]:
        """The splits as they are on disk: ``train``, ``val``, ``test`` and named shifts.

        Raises:
            Refused: if the dataset is not there, or its class folders disagree.
        """

    def prepare(self, seed: int) -> None:
        """Read the splits; the few-shot choice depends on the seed.

        Raises:
            Refused: if the dataset is not there, or pictures of train or val are not on disk.
        """
        self.splits, self.warnings = {}, []
        splits = self.read_splits()
        if self.shots is not None:
            splits["train"] = few_shot(splits["train"], self.shots, seed)
        for name, split in splits.items():
            self.splits[name], warning = present(name, split)
            self.warnings += [warning] if warning else []

    def check(self) -> None:
        """Look for what would spoil the run: names, labels, then every picture, decoded.

        Raises:
            Refused: with the list of what is wrong.
        """
        check_names(self.classes, self.templates)
        found = check_labels(self.splits, self.classes)
        self.warnings += [warning for warning in found if warning not in self.warnings]
        check_pictures(self.splits)

    def attach(
        self, *, preprocess: Preprocess, augment: Augment, batch_size: int, seed: int
    ) -> None:
        """Say how pictures become batches."""
        self.preprocess, self.augment = preprocess, augment
        self.batch_size, self.seed = batch_size, seed

    @property
    def evaluation_splits(self) -> list[str]:
        """The splits that are read once, at the chosen epoch: all but train and val."""
        return [name for name in self.splits if name not in ("train", "val")]

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Augmented, shuffled by (seed, epoch), the last batch possibly short."""
        split = self.splits["train"]
        pictures = Pictures(split, train_transform(self.preprocess, self.augment), self.seed)
        return DataLoader(
            pictures,
            batch_size=self.batch_size,
            sampler=KeyedSampler(len(split), self.seed),
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            collate_fn=collate,
        )

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """The validation split, in order."""
        return self.eval_dataloader("val")

    def eval_dataloader(self, name: str) -> DataLoader[dict[str, Any]]:
        """A split as it is, every picture once."""
        return DataLoader(
            Pictures(self.splits[name], eval_transform(self.preprocess)),
            batch_size=self.batch_size,
            num_workers=self.workers,
            collate_fn=collate,
        )

    def record(self) -> dict[str, dict[str, Any]]:
        """For the run's record: per split its n, what n should be, and its fingerprint."""
        return {
            name: {
                "n": len(split),
                "expected": split.expected,
                "sha256": split.fingerprint(),
                "rule": split.rule,
            }
            for name, split in self.splits.items()
        }
