"""Datasets read by torchvision's own classes: file lists, labels and splits; nothing is decoded."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Unpack

import numpy as np
from torchvision import datasets

from clipbench.core.errors import UserError
from clipbench.datamodules.base_classification import ClassificationDataModule
from clipbench.datamodules.metadata import class_names, read, remotes
from clipbench.datamodules.options import Options
from clipbench.loading.download.files import wrong
from clipbench.loading.split import Split, carve

VAL_FRACTION = 0.1  # of train, for a dataset that publishes no validation split
Parts = Mapping[str, Mapping[str, str | bool | int]]


class TorchvisionDataModule(ClassificationDataModule):
    """A dataset that torchvision reads, in torchvision's rows, splits and label order.

    Where there is no official val, a tenth of each class of train is carved off by its ids.

    Args:
        root: torchvision's root, which holds the dataset's folder.
        options: see :class:`clipbench.datamodules.base.Options`.

    Attributes:
        source: torchvision's class.
        parts: of each split the arguments that choose it.
        home: the dataset's folder below the root.
        names_key: the key in ``class_names.yaml``; None where a subclass names its classes.

    Raises:
        UserError: for an option's value that there is not.
    """

    source: Callable[..., Any]
    parts: ClassVar[Parts]
    home: str
    names_key: str | None = None

    def __init__(self, *, root: str | Path, **options: Unpack[Options]) -> None:
        super().__init__(root=root, **options)
        self.name_classes()

    def name_classes(self) -> None:
        """Set the names of its classes and its templates, or set them again before an option."""
        if self.names_key is not None:
            self.keys, self.classes, self.templates = class_names(self.names_key)

    def read_splits(self) -> dict[str, Split]:
        """Return the official splits, row for row as torchvision has them.

        Raises:
            UserError: if a list is absent or damaged, or names other classes than the official.
        """
        self.name_classes()
        splits = {
            name: self.split(name, self.official(**which)) for name, which in self.parts.items()
        }
        if "val" not in splits:
            splits["train"], splits["val"] = carve(splits["train"], VAL_FRACTION)
        return {name: splits[name] for name in ("train", "val", "test")}

    def official(self, **which: Any) -> Any:
        """Return torchvision's dataset of the split that its arguments choose."""
        try:
            found = type(self).source(self.root, **which)
        except (RuntimeError, OSError, KeyError, ValueError, IndexError) as error:
            raise UserError(f"{self._culprit(error)}: {self._remedy()}") from error
        if self.names_key is not None:
            self._same_classes(found.classes)
        return found

    def split(self, name: str, official: Any) -> Split:
        """Return a torchvision dataset as a split."""
        paths, labels = listed(official)
        return Split(
            ids=[path.relative_to(self.root).as_posix() for path in paths],
            labels=np.array(labels, dtype=np.int64),
            images=paths,
            expected=len(paths),
        )

    def _culprit(self, error: Exception) -> str:
        for file in self.files:
            path = self.root / file.name
            if file.unpack is None and path.is_file() and (amiss := wrong(file, path)):
                return f"{path} is not the official file, {amiss}"
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return f"{self.root / self.home} is absent or damaged ({reason})"

    def _remedy(self) -> str:
        return self.instructions or "delete it, and it is fetched again"

    def _same_classes(self, found: Sequence[str]) -> None:
        ours, theirs = ([_plain(name) for name in names] for names in (self.keys or (), found))
        if ours != theirs:
            odd = sorted(set(ours) ^ set(theirs)) or ["their order"]
            raise UserError(
                f"the lists in {self.root / self.home} do not have the {len(ours)} official "
                f"classes: {odd[0]} differs. Bring the original lists",
                odd,
            )


def listed(official: Any) -> tuple[list[Path], list[int]]:
    """Return the files and labels of a torchvision dataset, whose attributes differ in name."""
    for name in ("_image_files", "_images"):
        if hasattr(official, name):
            return [Path(path) for path in getattr(official, name)], list(official._labels)
    samples = official._samples if hasattr(official, "_samples") else official.samples
    return [Path(path) for path, _ in samples], [int(label) for _, label in samples]


def _plain(name: str) -> str:
    return name.replace("_", " ").casefold()


class DTDDataModule(TorchvisionDataModule):
    """Describable Textures, partition 1 of its ten: 1,880 / 1,880 / 1,880 (Cimpoi et al. 2014)."""

    source, names_key, home = datasets.DTD, "dtd", "dtd"
    parts: ClassVar[Parts] = {
        name: {"split": name, "partition": 1} for name in ("train", "val", "test")
    }
    published_name = "vtab/dtd"
    files = remotes("dtd")


class OxfordPetsDataModule(TorchvisionDataModule):
    """Oxford-IIIT Pet: 3,680 trainval and 3,669 test photos of 37 breeds (Parkhi et al. 2012)."""

    source, names_key, home = datasets.OxfordIIITPet, "oxford_pets", "oxford-iiit-pet"
    parts: ClassVar[Parts] = {"train": {"split": "trainval"}, "test": {"split": "test"}}
    metrics = ("mean_per_class", "acc")  # as CLIP reports it
    published_name = "vtab/pets"
    files = remotes("oxford_pets")


class StanfordCarsDataModule(TorchvisionDataModule):
    """Stanford Cars: 8,144 and 8,041 photos of 196 models by year (Krause et al. 2013)."""

    source, names_key, home = datasets.StanfordCars, "stanford_cars", "stanford_cars"
    parts: ClassVar[Parts] = {"train": {"split": "train"}, "test": {"split": "test"}}
    published_name = "cars"
    instructions = read("downloads")["instructions"]["stanford_cars"]


class Food101DataModule(TorchvisionDataModule):
    """Food-101: 750 training and 250 test photos of each of 101 dishes (Bossard et al. 2014)."""

    source, names_key, home = datasets.Food101, "food101", "food-101"
    parts: ClassVar[Parts] = {"train": {"split": "train"}, "test": {"split": "test"}}
    published_name = "food101"
    files = remotes("food101")
