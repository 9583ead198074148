"""Anyone's own pictures, in folders named after their classes."""

import os
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Unpack

import numpy as np

from clipbench.datamodules import shards
from clipbench.datamodules.base import ClassificationDataModule, Options, Split, carve
from clipbench.errors import Refused
from clipbench.imaging.pictures import EXTENSIONS

VAL_NAMES = ("val", "valid", "validation")


class ImageFolderDataModule(ClassificationDataModule):
    """Pictures in class folders, divided by the folders above them or by a fixed rule.

    Either ``root/{train,val,test}/<class>/`` (val may be called valid or validation; each
    ``root/test_<name>/<class>/`` is one more evaluation split) or ``root/<class>/``. What there is
    no folder for is carved from train, first test, then val, by :func:`carve`, whose rule depends
    only on the file names. Label ids are those of train's sorted class folders, in every split.

    Or webdataset shards with a label to each picture, see :mod:`clipbench.datamodules.shards`.

    Args:
        root: the folder, or a pattern of shards such as ``train-{000..099}.tar``.
        test_fraction: share of each class carved as test.
        val_fraction: share of each class of what is left carved as val.
        options: see :class:`clipbench.datamodules.base.Options`; the key of a class is its folder,
            its name that folder's with spaces for underscores.
    """

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        test_fraction: float = 0.2,
        val_fraction: float = 0.2,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(root=root or "", **options)
        self.given = root is not None
        self.templates = ["a photo of a {}."]
        self.fractions = {"test": test_fraction, "val": val_fraction}

    def read_splits(self) -> dict[str, Split]:
        """The splits that have folders, then those carved from train."""
        if not self.given:
            raise Refused("dataset.root is not set; name your folder: dataset.root=/my/pictures")
        if shards.meant(self.root):
            self.classes, splits, warnings = shards.labelled(self.root)
            self.warnings += warnings
            return self._carved(splits, self.classes)
        if not self.root.is_dir():
            raise Refused(f"dataset.root={self.root} is not a folder; set it to your pictures'")
        folders, files = _walk(self.root)
        listed, others = _sort_in(folders, files, _split_folders(self.root, folders))
        _refuse_one_too_high(self.root, folders, listed)
        _refuse_disagreement(listed)
        if others:
            shown = ", ".join(others[:3]) + (" ..." if len(others) > 3 else "")
            self.warnings.append(
                f"{len(others):,} files are not pictures in a class folder, left out: {shown}"
            )
        classes = sorted(listed["train"])
        self.keys = classes
        self.classes = [folder.replace("_", " ") for folder in classes]
        splits = {name: self._split(classes, pictures) for name, pictures in listed.items()}
        return self._carved(splits, classes)

    def _split(self, classes: Sequence[str], pictures: Mapping[str, Sequence[str]]) -> Split:
        ids = [file for name in classes for file in pictures[name]]
        counts = [len(pictures[name]) for name in classes]
        return Split(
            ids=ids,
            labels=np.repeat(np.arange(len(classes), dtype=np.int64), counts),
            pictures=[self.root / file for file in ids],
            expected=len(ids),
        )

    def _carved(self, splits: dict[str, Split], classes: Sequence[str]) -> dict[str, Split]:
        for name, fraction in self.fractions.items():
            if name not in splits:
                if not 0 < fraction < 1:
                    raise Refused(f"dataset.{name}_fraction={fraction} is not between 0 and 1")
                splits["train"], splits[name] = carve(splits["train"], fraction)
        left = np.bincount(splits["train"].labels, minlength=len(classes))
        if few := [name for name, n in zip(classes, left, strict=True) if n == 0]:
            raise Refused(
                f"class folder {few[0]} has too few pictures to share between train, val and "
                "test; add some, or make the folders train/, val/ and test/",
                [f"{name}: too few pictures" for name in few],
            )
        order = ("train", "val", "test")
        return {name: splits[name] for name in (*order, *sorted(splits.keys() - set(order)))}


def _walk(root: Path) -> tuple[list[str], list[str]]:
    """Folders and files below a root, as sorted relative paths; links followed, hidden ones not."""
    folders, files = [], []
    for here, below, names in os.walk(root, followlinks=True):
        home = Path(here).relative_to(root)
        real = os.path.realpath(here)
        below[:] = [
            name
            for name in below
            if not name.startswith((".", "__MACOSX"))
            # a link to a folder above would go round for ever
            and not f"{real}{os.sep}".startswith(os.path.realpath(Path(here, name)) + os.sep)
        ]
        folders += [(home / name).as_posix() for name in below]
        files += [(home / name).as_posix() for name in names if not name.startswith(".")]
    return sorted(folders), sorted(files)


def _split_folders(root: Path, folders: Iterable[str]) -> dict[str, str]:
    """Top folder of each split; ``{"": "train"}`` where the top folders are the classes."""
    tops = {folder.split("/")[0] for folder in folders if "/" in folder}  # those with folders in
    vals = tops.intersection(VAL_NAMES)
    tests = {top for top in tops if top == "test" or top.startswith("test_")}
    if len(vals) > 1:
        raise Refused(f"{root} has {' and '.join(sorted(vals))}; keep one as the validation split")
    if "train" in tops:
        return {"train": "train"} | dict.fromkeys(vals, "val") | {top: top for top in tests}
    if vals or "test" in tests:
        raise Refused(f"{root} has {min(vals | tests)}/ but no train/ with class folders; add it")
    return {"": "train"}


def _sort_in(
    folders: Iterable[str], files: Iterable[str], owner: Mapping[str, str]
) -> tuple[dict[str, dict[str, list[str]]], list[str]]:
    """Pictures by split and class folder, and the files that are none."""
    top = "/" if "" in owner else ""
    listed: dict[str, dict[str, list[str]]] = {name: {} for name in owner.values()}
    others = []
    for folder in folders:
        parts = (top + folder).split("/")
        if len(parts) == 2 and parts[0] in owner:
            listed[owner[parts[0]]][parts[1]] = []
    for file in files:
        parts = (top + file).split("/")
        known = len(parts) > 2 and parts[0] in owner
        if known and Path(file).suffix.lower() in EXTENSIONS:
            listed[owner[parts[0]]][parts[1]].append(file)
        else:
            others.append(file)
    return listed, others


def _refuse_one_too_high(
    root: Path, folders: Iterable[str], listed: Mapping[str, Mapping[str, Sequence[str]]]
) -> None:
    """Refuse the folder around the one that is meant, as archives leave it when unpacked."""
    if list(listed) == ["train"] and len(listed["train"]) == 1:
        (only,) = listed["train"]
        if any(folder.startswith(f"{only}/") for folder in folders):
            raise Refused(
                f"{root} has one folder, which holds further ones: as a class that is nothing to "
                f"tell apart; use dataset.root={root / only}"
            )


def _refuse_disagreement(listed: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
    trained = listed["train"].keys()
    if not trained:
        raise Refused("dataset.root holds no class folders; put each class's pictures in its own")
    wrong = []
    for split, folders in listed.items():
        for name in sorted(folders):
            if name not in trained:
                near = get_close_matches(name, trained, 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                wrong.append(f"{split}/{name}: train has no class folder of that name{hint}")
            elif not folders[name]:
                wrong.append(f"{split}/{name}: no picture in this class folder")
        wrong += [f"{split}/{name}: missing, train has it" for name in sorted(trained - folders)]
    if wrong:
        raise Refused(
            f"{len(wrong)} class folders are wrong, first {wrong[0]}; every split needs the same "
            "class folders, none empty",
            wrong,
        )
