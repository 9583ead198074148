"""ImageNet (ILSVRC2012) in class folders, and its shift sets where their folders are there."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

import numpy as np
import open_clip
from timm.data.imagenet_info import ImageNetInfo

from clipbench.core import paths
from clipbench.core.errors import UserError
from clipbench.datamodules.base_classification import ClassificationDataModule
from clipbench.datamodules.metadata import read
from clipbench.datamodules.options import Options
from clipbench.loading import class_names
from clipbench.loading.images.folder_walk import is_image
from clipbench.loading.split import Split, carve

# In label order, which is sorted order.
WNIDS: Sequence[str] = ImageNetInfo().label_names()  # type: ignore[no-untyped-call]
# Model soups (Wortsman et al. 2022) hold out 2 % of train too, by a list of their own.
VAL_FRACTION = 0.02
TRAIN, VAL = 1_281_167, 50_000  # images, Russakovsky et al. 2015


@dataclass(frozen=True)
class Shift:
    """A set that is only evaluated on.

    Attributes:
        folders: where its class folders may be, below the folder of the shift sets.
        n: its images as published; None where that is not what its download holds.
        numbered: whether its class folders are called 0 .. 999.
        border: pixels that frame each image.
    """

    folders: tuple[str, ...]
    n: int | None
    numbered: bool = False
    border: int = 0


SHIFTS = {
    "test_v2": Shift(("imagenetv2-matched-frequency-format-val",), 10_000, numbered=True),
    "test_r": Shift(("imagenet-r",), 30_000),
    "test_a": Shift(("imagenet-a",), 7_500),
    "test_sketch": Shift(("sketch", "imagenet-sketch"), None),
    # Each image has a red frame; WiSE-FT (src/datasets/objectnet.py) cuts two pixels off.
    "test_objectnet": Shift(("objectnet-1.0/images",), None, border=2),
}


class ImageNetDataModule(ClassificationDataModule):
    """1,000 classes: 1,281,167 photos to train on; the official val, 50,000, is the test split.

    The names are open_clip's, in which "missile" and "sunglasses" stand for two classes each. On a
    shift set of fewer classes a prediction chooses among those only; where several classes are one
    class of ObjectNet, the highest of them counts (WiSE-FT, src/datasets/objectnet.py).

    Args:
        root: holds ``train/<wnid>/`` and ``val/<wnid>/``.
        shifts: holds the folders of the shift sets; None for the folder above the root.
        options: see :class:`clipbench.datamodules.base.Options`. With ``subset`` the folders of
            the other classes need not be there.

    Raises:
        UserError: for an option's value that there is not.
    """

    metrics = ("acc",)
    homonyms = ("missile", "sunglasses")
    published_name = "imagenet1k"
    instructions = read("downloads")["instructions"]["imagenet"]

    def __init__(
        self, *, root: str | Path, shifts: str | Path | None = None, **options: Unpack[Options]
    ) -> None:
        super().__init__(root=root, **options)
        self.shifts = paths.expanded(shifts) if shifts is not None else self.root.parent
        self._name()
        self.templates = [template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES]

    def read_splits(self) -> dict[str, Split]:
        """Return train less a fiftieth, that as val, the official val as test, and the shifts.

        Raises:
            UserError: if a class folder is absent, or train has not all of its images.
        """
        self._name()
        wanted: Sequence[int] = range(1000)
        if self.subset is not None:
            wanted = class_names.chosen(self.keys or (), self.classes, self.subset)
        labels = {WNIDS[label]: label for label in sorted(wanted)}
        train = self._official("train", labels, TRAIN)
        if len(train) < train.expected:
            raise UserError(
                f"{self.root / 'train'} holds {len(train):,} of {TRAIN:,} images. Download the rest"
            )
        train, val = carve(train, VAL_FRACTION)
        splits = {"train": train, "val": val, "test": self._official("val", labels, VAL)}
        for name, shift in SHIFTS.items():
            if (found := self._shift(name, shift, set(wanted))) is not None:
                splits[name] = found
        for name, split in splits.items():
            if len(split) < split.expected:
                self.warnings.append(
                    f"{split.expected - len(split):,} of the {split.expected:,} images of {name} "
                    f"are not on disk: its results are not to be set beside the whole split"
                )
        return splits

    def _name(self) -> None:
        self.keys = list(WNIDS)
        self.classes = list(open_clip.IMAGENET_CLASSNAMES)

    def _official(self, part: str, labels: Mapping[str, int], n: int) -> Split:
        home = self.root / part
        missing = [wnid for wnid in labels if not (home / wnid).is_dir()]
        if missing:
            raise UserError(
                f"{home} lacks {len(missing):,} of {len(labels):,} class folders, first "
                f"{missing[0]}: {self.instructions}",
                [f"{home / wnid}: not there" for wnid in missing],
            )
        return self._listed(home, labels, self.root, n)

    def _shift(self, name: str, shift: Shift, wanted: set[int]) -> Split | None:
        """Return a shift set, if its folder is there and has images of the wanted classes."""
        home = next((p for f in shift.folders if (p := self.shifts / f).is_dir()), None)
        if home is None:
            return None
        same = classes_of(name)
        labels = {str(k): k for k in range(1000)} if shift.numbered else same
        labels = {folder: label for folder, label in labels.items() if label in wanted}
        split = self._listed(home, labels, self.shifts, shift.n)
        if len(split) == 0:
            return None
        if name == "test_objectnet":
            rule = f"its {len(labels)} classes that ImageNet has, {shift.border} pixels cut off"
            return replace(split, among=merged(), border=shift.border, rule=rule)
        whole = len(same) == len(WNIDS)
        return split if whole else replace(split, among=tuple(sorted(same.values())))

    def _listed(self, home: Path, labels: Mapping[str, int], above: Path, n: int | None) -> Split:
        """Return the images of class folders, in ImageFolder's order."""
        files = [
            (home / folder / name, labels[folder])
            for folder in sorted(labels)
            for name in sorted(_images(home / folder))
        ]
        return Split(
            ids=[path.relative_to(above).as_posix() for path, _ in files],
            labels=np.array([label for _, label in files], dtype=np.int64),
            images=[path for path, _ in files],
            expected=len(files) if self.subset is not None else max(n or 0, len(files)),
        )


def classes_of(name: str) -> dict[str, int]:
    """Return the label of each class folder of a shift set; by default all of ImageNet's."""
    order = {wnid: label for label, wnid in enumerate(WNIDS)}
    folders = read("imagenet_shifts").get(name, WNIDS)
    if isinstance(folders, dict):
        return {folder: order[wnids[0]] for folder, wnids in folders.items()}
    return {wnid: order[wnid] for wnid in folders}


def merged() -> dict[int, tuple[int, ...]]:
    """Return the ImageNet classes that count as each label of ObjectNet."""
    order = {wnid: label for label, wnid in enumerate(WNIDS)}
    folders = read("imagenet_shifts")["test_objectnet"]
    same = [[order[wnid] for wnid in wnids] for wnids in folders.values()]
    return {labels[0]: tuple(labels) for labels in same}


def _images(folder: Path) -> Iterable[str]:
    if not folder.is_dir():
        return ()
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if is_image(entry.name)]
