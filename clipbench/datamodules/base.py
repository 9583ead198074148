"""What every dataset shares: named splits with fingerprints, and loaders keyed by the seed."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler

from clipbench.transforms import Augment, Preprocess, Transform, eval_transform, train_transform


@dataclass(frozen=True)
class Split:
    """The pictures of one named split.

    Attributes:
        ids: a stable name for each picture, such as its path below the dataset's root.
        labels: class index of each picture, int64 (n,).
        pictures: path of each picture, or the pixels themselves, uint8 (n, H, W, 3).
        expected: how many pictures the split should have; more than n where some are not on disk.
        captions: the captions of each picture, for datasets that have them.
        rule: how the split was made, where its source does not define it.
    """

    ids: Sequence[str]
    labels: NDArray[np.int64]
    pictures: Sequence[Path] | NDArray[np.uint8]
    expected: int
    captions: Sequence[Sequence[str]] | None = None
    rule: str | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def picture(self, index: int) -> Image.Image:
        """The picture at a position, decoded."""
        source = self.pictures[index]
        return Image.open(source) if isinstance(source, Path) else Image.fromarray(source)

    def take(self, index: NDArray[np.int64]) -> "Split":
        """The pictures at some positions, as a split that expects just those."""
        pictures = self.pictures
        return replace(
            self,
            ids=[self.ids[i] for i in index],
            labels=self.labels[index],
            pictures=pictures[index]
            if isinstance(pictures, np.ndarray)
            else [pictures[i] for i in index],
            captions=self.captions and [self.captions[i] for i in index],
            expected=len(index),
        )

    def fingerprint(self) -> str:
        """Sha256 over the sorted (id, label) rows: two results compare only if these are equal."""
        rows = sorted(f"{i}\t{label}\n" for i, label in zip(self.ids, self.labels, strict=True))
        return hashlib.sha256("".join(rows).encode()).hexdigest()


def few_shot(split: Split, shots: int, seed: int) -> Split:
    """The first ``shots`` pictures of each class in a seeded order, so that more shots add to fewer."""
    order = np.random.default_rng([seed, 0x5407]).permutation(len(split))
    kept = [order[split.labels[order] == label][:shots] for label in np.unique(split.labels)]
    few = split.take(np.sort(np.concatenate(kept)))
    return replace(few, rule=f"{shots} a class, seed {seed}")


def carve(split: Split, fraction: float) -> tuple[Split, Split]:
    """Divide a split in two, class by class, by the hash of each id.

    The rule depends on nothing but the ids: not on the order of a listing, nor on a seed. Of each
    class the ``round(fraction * n)`` pictures (one at least) whose sha256 is lowest are taken.

    Returns:
        The rest, and the part taken.
    """
    digest = np.array([hashlib.sha256(i.encode()).hexdigest() for i in split.ids])
    taken = []
    for label in np.unique(split.labels):
        members = np.flatnonzero(split.labels == label)
        count = max(1, round(fraction * len(members)))
        taken.append(members[np.argsort(digest[members], kind="stable")[:count]])
    chosen = np.sort(np.concatenate(taken))
    rest = np.setdiff1d(np.arange(len(split)), chosen)
    rule = f"{fraction:g} of each class, lowest sha256 of the id"
    return replace(split.take(rest), rule=rule), replace(split.take(chosen), rule=rule)


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
    """A split with its transform: rows ``{"image", "label", "index"}``."""

    def __init__(self, split: Split, transform: Transform, seed: int = 0) -> None:
        self.split, self.transform, self.seed = split, transform, seed

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        keyed = np.random.SeedSequence([self.seed, epoch, index]).generate_state(1)[0]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(keyed))
            image = self.transform(self.split.picture(index))
        return {"image": image, "label": int(self.split.labels[index]), "index": index}


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
    """

    classes: list[str]
    templates: list[str]
    metrics: Sequence[str] = ("acc", "mean_per_class")

    def __init__(self, *, root: str | Path = ".", shots: int | None = None, workers: int = 0) -> None:
        super().__init__()
        self.root, self.shots, self.workers = Path(root).expanduser(), shots, workers
        self.splits: dict[str, Split] = {}

    @abstractmethod
    def read_splits(self) -> dict[str, Split]:
        """The splits as they are on disk: ``train``, ``val``, ``test`` and named shifts.

        Raises:
            Refused: if the dataset is not there, or its class folders disagree.
        """

    def prepare(self, seed: int) -> None:
        """Read the splits; the few-shot choice depends on the seed."""
        self.splits = self.read_splits()
        if self.shots is not None:
            self.splits["train"] = few_shot(self.splits["train"], self.shots, seed)

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
