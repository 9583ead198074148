"""Anyone's own images, in folders named after their classes or with their labels in a table."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Unpack

import numpy as np

from clipbench.core.errors import UserError, printable
from clipbench.datamodules.base import carve_missing
from clipbench.datamodules.base_classification import ClassificationDataModule
from clipbench.datamodules.options import Options
from clipbench.loading.class_names import ordered
from clipbench.loading.images.folder_walk import Finder, identifier, walk
from clipbench.loading.readers import folder_layouts, inspection, label_tables, webdataset
from clipbench.loading.readers.folder_layouts import Layout
from clipbench.loading.split import Split

HINTED = 10  # of many wrong names those that are compared with the right ones
LABELS = (None, "folder", "good_or_defect")


class ImageFolderDataModule(ClassificationDataModule):
    """Images in class folders, divided by the folders above them or by a fixed rule.

    ``root/{train,val,test}/<class>/``, ``root/<class>/{train,val,test}/`` or ``root/<class>/``;
    a split's folder may have any usual name, see
    :func:`clipbench.loading.readers.text_files.split_name`, and each ``test_<name>`` is one more
    evaluation split. What there is no folder for is carved from train,
    first test, then val, by :func:`carve`, whose rule depends only on the file names.
    Label ids are those of train's sorted class folders, numbers in their order, in every split.

    Or a table of paths and labels, see :mod:`clipbench.loading.readers.label_tables`; or webdataset
    shards with a label to each image, see :mod:`clipbench.loading.readers.webdataset`.

    Args:
        root: the folder, the table, or a pattern of shards such as ``train-{000..099}.tar``.
        splits: the folders of each split, where their names do not tell; ``none`` if the top
            folders are the classes, whatever they are called.
        labels: ``folder``, or ``good_or_defect`` to join all classes but that of flawless parts;
            None for the first, but in MVTec's layout the second.
        path_key: the column of paths in a table; None for the one whose name says so.
        label_key: the column of labels; None for the one whose name says so.
        split_key: the column of splits; None for the one whose name says so, if any.
        test_fraction: share of each class carved as test.
        val_fraction: share of each class of what is left carved as val.
        options: see :class:`clipbench.datamodules.base.Options`; the key of a class is its folder,
            its name that folder's with spaces for underscores.
    """

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        splits: Mapping[str, str | Sequence[str]] | str | None = None,
        labels: str | None = None,
        path_key: str | None = None,
        label_key: str | None = None,
        split_key: str | None = None,
        test_fraction: float = 0.2,
        val_fraction: float = 0.2,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(root=root or "", **options)
        self.given = root is not None
        if labels not in LABELS:
            raise UserError(f"dataset.labels={labels}: unknown. Use folder or good_or_defect")
        self.folders_of, self.labels_by = splits, labels
        self.column_keys = {"path": path_key, "label": label_key, "split": split_key}
        self.templates = ["a photo of a {}."]
        self.fractions = {"test": test_fraction, "val": val_fraction}

    def read_splits(self) -> dict[str, Split]:
        """Return the splits that have folders, and those carved from train."""
        if not self.given:
            raise UserError("dataset.root is not set. Name your folder: dataset.root=/my/images")
        if webdataset.matches(self.root):
            self.classes, splits, warnings = webdataset.labelled(self.root)
            self.warnings += warnings
            return self._carved(splits, self.classes)
        if label_tables.matches(self.root):
            layout = label_tables.read(self.root, self.column_keys)
            return self._of(layout, Finder(self.root.parent).find)
        if not self.root.is_dir():
            raise UserError(
                f"dataset.root={printable(self.root)} is not a folder. Use that of your images"
            )
        return self._of(self._walked(), self.root.joinpath)

    def _walked(self) -> Layout:
        tree = walk(self.root)
        layout = folder_layouts.read(tree, self.folders_of)
        _refuse_disagreement(layout.listed)
        if files := sorted([*layout.left_out, *tree.others]):
            first = ", ".join(map(printable, files[:3])) + (" ..." if len(files) > 3 else "")
            layout.warnings.append(
                f"{len(files):,} files are not images in a class folder, left out: {first}"
            )
        if copies := tree.copies:
            first = ", ".join(map(printable, copies[:3]))
            layout.warnings.append(f"{len(copies):,} folders of small copies are left out: {first}")
        return layout

    def _of(self, layout: Layout, find: Callable[[str], Path]) -> dict[str, Split]:
        """Return the splits of a layout, whose images ``find`` resolves by name."""
        listed = layout.listed
        if self.labels_by == "good_or_defect" or (layout.rule and self.labels_by is None):
            listed = inspection.good_or_defect(listed)
        _refuse_untrained(listed)
        classes = ordered(listed["train"])
        self.warnings += layout.warnings + _alike(classes)
        self.keys = classes
        self.classes = [folder.replace("_", " ") for folder in classes]
        splits = {
            name: _split(classes, images, find, layout.rule) for name, images in listed.items()
        }
        return self._carved(splits, classes)

    def _carved(self, splits: dict[str, Split], classes: Sequence[str]) -> dict[str, Split]:
        whole = carve_missing(splits, self.fractions)
        counts = np.bincount(whole["train"].labels, minlength=len(classes))
        if few := [name for name, n in zip(classes, counts, strict=True) if n == 0]:
            raise UserError(
                f"class {few[0]} has too few images to share between train, val and test. Add "
                "some, or make the splits train, val and test yourself",
                [f"{name}: too few images" for name in few],
            )
        return whole


def _split(
    classes: Sequence[str],
    images: Mapping[str, Sequence[str]],
    find: Callable[[str], Path],
    rule: str | None,
) -> Split:
    files = [file for name in classes for file in images.get(name, ())]
    ids = [identifier(file) for file in files]
    if len(set(ids)) < len(ids):  # é written in either way, side by side
        ids = [printable(file) for file in files]
    counts = [len(images.get(name, ())) for name in classes]
    return Split(
        ids=ids,
        labels=np.repeat(np.arange(len(classes), dtype=np.int64), counts),
        images=[find(file) for file in files],
        expected=len(ids),
        rule=rule,
    )


def _alike(classes: Iterable[str]) -> list[str]:
    """Return the warning that classes differ by case alone, if any do."""
    folded: dict[str, list[str]] = {}
    for name in classes:
        folded.setdefault(name.casefold(), []).append(name)
    same = [" and ".join(names) for names in folded.values() if len(names) > 1]
    return [f"classes differ by upper and lower case alone: {', '.join(same)}"] if same else []


def _refuse_untrained(listed: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
    """Refuse labels that no image of train has."""
    if not (trained := listed.get("train", {}).keys()):
        raise UserError("dataset.root names no image of train. Give some to the split train")
    wrong: list[str] = []
    for split, images in listed.items():
        for name in sorted(images.keys() - trained):
            wrong.append(f"{split}: {name}{_hint(name, trained, len(wrong))}")
    if wrong:
        raise UserError(
            f"{len(wrong)} labels are not in train, first {wrong[0]}. Give train images of them",
            wrong,
        )


def _hint(name: str, classes: Iterable[str], before: int) -> str:
    """Return the class that a name may mean, for the first few: 1,500 of 1,500 take 36 s."""
    near = get_close_matches(name, classes, 1) if before < HINTED else []
    return f"; did you mean {near[0]}?" if near else ""


def _refuse_disagreement(listed: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
    trained = listed.get("train", {}).keys()
    if not trained:
        raise UserError("dataset.root holds no class folders. Put each class's images in its own")
    wrong: list[str] = []
    for split, folders in listed.items():
        for name in sorted(folders):
            if name not in trained:
                hint = _hint(name, trained, len(wrong))
                wrong.append(f"{split}/{name}: train has no class folder of that name{hint}")
            elif not folders[name]:
                wrong.append(f"{split}/{name}: no image in this class folder")
        wrong += [f"{split}/{name}: missing, train has it" for name in sorted(trained - folders)]
    if wrong:
        raise UserError(
            f"{len(wrong)} class folders are wrong, first {wrong[0]}. Every split needs the same "
            "class folders, none empty",
            wrong,
        )
