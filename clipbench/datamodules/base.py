"""What every dataset shares: named splits with fingerprints, and loaders keyed by the seed."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from clipbench.datamodules.checks import check_labels, check_names, check_pictures, present
from clipbench.datamodules.loading import KeyedSampler, Pictures, collate
from clipbench.datamodules.split import Split, carve, few_shot
from clipbench.transforms import Augment, Preprocess, eval_transform, train_transform

__all__ = ["ClassificationDataModule", "KeyedSampler", "Pictures", "Split", "carve", "few_shot"]


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
