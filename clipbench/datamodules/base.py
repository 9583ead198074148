"""What every dataset shares: named splits with fingerprints, looked at before they are used."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from clipbench.core import distributed, paths
from clipbench.core.errors import UserError
from clipbench.datamodules.options import Options, refuse_unknown
from clipbench.loading.dataset import ImageDataset, paired
from clipbench.loading.decoded import decode
from clipbench.loading.download.files import Remote, bring, refuse_unasked
from clipbench.loading.images.decoding import Source
from clipbench.loading.loaders import loader
from clipbench.loading.samplers import EpochPlan, KeyedSampler, RankSampler
from clipbench.loading.split import Split, carve
from clipbench.loading.validation import check_images, check_splits, present, readable, seen
from clipbench.results.record import SplitRecord
from clipbench.transforms.augment import Augment
from clipbench.transforms.mixup import Batch
from clipbench.transforms.preprocess import Preprocess, View


class DataModule(LightningDataModule, ABC):
    """A dataset of images in named splits.

    A subclass yields its splits as the official lists have them; this class finds out what of that
    is on disk and can be read. It needs no model: before loaders are asked for, :meth:`attach`
    brings what the model and the recipe decide.

    Args:
        root: the dataset's folder.
        options: see :class:`Options`.

    Attributes:
        splits: filled by :meth:`prepare`.
        unreadable: why each image that cannot be read cannot, as far as :meth:`look` has looked.
        caption_rows: the pairs that an epoch goes through, see :meth:`arrange`; None for images.
        warnings: what does not stop a run; printed once and kept in its record.
        published_name: the dataset's name in ``experiments/published/*.csv``.
        files: what may be fetched for it, below its root.
        instructions: how to get what may not be fetched.

    Raises:
        UserError: for an unknown value of an option.
    """

    published_name: str | None = None
    files: Sequence[Remote] = ()
    instructions: str = ""

    def __init__(self, *, root: str | Path = ".", **options: Unpack[Options]) -> None:
        super().__init__()
        refuse_unknown(options)
        self.root = paths.expanded(root)
        self.workers = options.get("workers", 0)
        self.shots = options.get("shots")
        self.subset = options.get("subset")
        self.given_names = options.get("class_names")
        self.given_templates = options.get("templates")
        self.balance = options.get("balance")
        self.resize_mode = options.get("resize_mode")
        self.bad_images = options.get("bad_images", "stop")
        self.value_range = options.get("value_range")
        self.decoder = options.get("decoder", "torchvision")
        self.cache_gb = options.get("cache_gb", 0.0)
        self.splits, self.unreadable = dict[str, Split](), dict[Source, str]()
        self.warnings: list[str] = []
        self.caption_rows: NDArray[np.int64] | None = None
        self.full_batches = False

    @abstractmethod
    def read_splits(self) -> dict[str, Split]:
        """Return the splits of the official lists: ``train``, ``val``, ``test``, named shifts.

        Raises:
            UserError: if the dataset is not there, or its lists disagree.
        """

    def fetch(self) -> None:
        """Bring those files that are not there yet.

        Raises:
            UserError: naming each file, its address and its place, if one cannot be had.
        """
        bring(self.files, self.root)

    def lists(self, seed: int) -> dict[str, Split]:
        """Return the splits of the lists, after ``subset`` and ``shots`` have chosen their rows.

        Args:
            seed: of the few-shot choice.

        Raises:
            UserError: if the dataset is not there.
        """
        if self.instructions and not self.root.is_dir():
            raise UserError(f"there is no folder {self.root}: {self.instructions}")
        return self._arranged(self.read_splits(), seed)

    def prepare(self, seed: int) -> None:
        """Read the splits, and leave out of evaluation what is not on disk.

        What is small enough is fetched if it is not there.

        Args:
            seed: of the few-shot choice.

        Raises:
            UserError: if the dataset is not there, or images of train or val are not on disk.
        """
        self.splits, self.warnings = {}, []
        refuse_unasked(self.files, self.root)
        self.fetch()
        for name, split in self.lists(seed).items():
            self.splits[name], warning = present(name, split)
            self.warnings += warning
        if self.bad_images == "skip":
            self.look()
            self.decode()
            for name, split in self.splits.items():
                self.splits[name], warning = readable(name, split, self.unreadable)
                self.warnings += warning

    def _arranged(self, splits: dict[str, Split], seed: int) -> dict[str, Split]:
        """Return the splits after ``subset`` and ``shots`` have chosen their rows."""
        return splits

    def look(self) -> None:
        """Look at every image once: what it holds, and whether it can be read."""
        self.splits, bad = seen(self.splits, self.root, self.value_range)
        self.unreadable |= bad

    def decode(self) -> None:
        """Decode every image that nobody has decoded yet, for a minute at most."""
        published = bool(self.files or self.instructions or self.published_name)
        faults, warnings = decode(self.splits, self.root, self.value_range, as_published=published)
        self.unreadable |= faults
        self.warnings += warnings

    def check(self) -> None:
        """Refuse what would spoil the run, first in the lists, then in every image.

        Raises:
            UserError: with the list of what is wrong.
        """
        if lacking := [name for name in ("train", "val") if name not in self.splits]:
            raise UserError(f"the split {lacking[0]} is missing. Training needs train and val")
        check_splits(self.splits)
        self.check_images()

    def check_images(self) -> None:
        """Refuse images that cannot be read, as seen from outside, then as decoders find."""
        self.look()
        check_images(self.splits, self.unreadable)
        if self.bad_images == "stop":  # else it was done when they were left out
            self.decode()
            check_images(self.splits, self.unreadable)

    def attach(
        self, *, preprocess: Preprocess, augment: Augment, batch_size: int, seed: int
    ) -> None:
        """Set how images become batches."""
        self.preprocess = preprocess.with_mode(self.resize_mode)
        self.augment = augment
        self.batch_size, self.seed = batch_size, seed

    @property
    def evaluation_splits(self) -> list[str]:
        """The splits that are read once, at the chosen epoch: all but train and val."""
        return [name for name in self.splits if name not in ("train", "val")]

    def arrange(self, *, every_pair: bool, full_batches: bool) -> None:
        """Set what an epoch is: each image, or each pair of an image and a caption.

        Raises:
            UserError: for all captions of images that are drawn evenly over classes.
        """
        self.full_batches, captions = full_batches, self.splits["train"].captions
        if every_pair and captions is not None:
            if self.balance in ("sampler", "unique"):
                raise UserError(
                    f"dataset.balance={self.balance}: draws images, not pairs. "
                    "Use strategy.captions=sampled"
                )
            self.caption_rows = paired(captions)

    @property
    def epoch(self) -> EpochPlan:
        """What an epoch of train is made of."""
        return EpochPlan(len(self.splits["train"]), self.caption_rows, self.full_batches)

    def train_sampler(self) -> KeyedSampler:
        """Return the sampler of an epoch's rows, shuffled by (seed, epoch)."""
        return KeyedSampler(len(self.epoch), self.seed, kept=self.epoch.kept(self.batch_size))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return a loader of this rank's share of train, augmented and shuffled.

        The last batch may be short.
        """
        order = RankSampler(self.train_sampler(), self.batch_size)
        view = View(self.preprocess, self.augment)
        return self._loader("train", view, order, self.caption_rows, persistent=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the loader of the validation split, in order."""
        return self.eval_dataloader("val")

    def eval_dataloader(self, name: str) -> DataLoader[Batch]:
        """Return a loader of this rank's share of a split, in order, each image once."""
        order = distributed.own(len(self.splits[name]))
        return self._loader(name, View(self.preprocess), order)

    def _loader(
        self,
        name: str,
        view: View,
        order: Iterable[Any],
        pairs: NDArray[np.int64] | None = None,
        persistent: bool = False,
    ) -> DataLoader[Batch]:
        images = ImageDataset(
            self.splits[name],
            view,
            self.seed,
            decoder=self.decoder,
            value_range=self.value_range,
            cache_gb=self.cache_gb,
            pairs=pairs,
        )
        side, rows = self.preprocess.size, self.batch_size
        return loader(images, side, order, rows, workers=self.workers, persistent=persistent)

    def record(self) -> dict[str, SplitRecord]:
        """Return what a run's record says of each split, see :meth:`Split.record`."""
        self.look()
        return {name: split.record() for name, split in self.splits.items()}


def carve_missing(
    splits: Mapping[str, Split], fractions: Mapping[str, float], of: str = "class"
) -> dict[str, Split]:
    """Return the splits in their usual order, those that are missing carved from train.

    Args:
        splits: by name; without train nothing is carved.
        fractions: by name, the share of train to carve where that split is missing.
        of: see :func:`carve`.

    Raises:
        UserError: if a fraction is out of range.
    """
    whole = dict(splits)
    for name, fraction in fractions.items():
        if name not in whole and "train" in whole:
            if not 0 < fraction < 1:
                raise UserError(f"dataset.{name}_fraction={fraction}: not between 0 and 1. Use 0.2")
            whole["train"], whole[name] = carve(whole["train"], fraction, of)
    usual = ("train", "val", "test")
    order = [*usual, *sorted(whole.keys() - set(usual))]
    return {name: whole[name] for name in order if name in whole}
