"""What would spoil a run, found before its first step: absent and bad pictures, wrong labels."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from clipbench.datamodules.split import Split
from clipbench.errors import Refused
from clipbench.pictures import faults

TRAINING = ("train", "val")


def present(name: str, split: Split) -> tuple[Split, str | None]:
    """The pictures of a split that are on disk, and the warning that some are not.

    A picture that is not on disk is not a bad picture: an evaluation split goes on with what is
    there and keeps ``expected``; training on less than everything would be another experiment.

    Raises:
        Refused: if any is absent from train or val, or all are from another split.
    """
    absent = _absent(split.paths)
    if not absent:
        return split, None
    lost = f"{len(absent):,} of the {len(split):,} pictures of {name} are not on disk"
    if name in TRAINING or len(absent) == len(split):
        details = [f"{split.pictures[i]}: not there" for i in absent]
        raise Refused(f"{lost}; bring them, or set dataset.root to a whole copy", details)
    kept = np.setdiff1d(np.arange(len(split)), absent)
    warning = f"{lost}: its results are of {len(kept):,}, not to be set beside the whole split"
    return replace(split.take(kept), expected=split.expected), warning


def _absent(paths: Sequence[Path]) -> list[int]:
    # One listing a folder: asking for each of a million files takes minutes on a network disk.
    folders = {path.parent for path in paths}
    listed = {folder: set(folder.iterdir()) for folder in folders if os.access(folder, os.R_OK)}
    return [i for i, path in enumerate(paths) if path not in listed.get(path.parent, ())]


def check_pictures(splits: Mapping[str, Split]) -> None:
    """Decode every file of every split.

    Raises:
        Refused: if any cannot be read, with ``path: reason`` for each of them.
    """
    paths = list(dict.fromkeys(path for split in splits.values() for path in split.paths))
    bad = faults(paths)
    if bad:
        raise Refused(
            f"{len(bad):,} of {len(paths):,} pictures cannot be read; replace or remove them",
            [f"{path}: {reason}" for path, reason in bad.items()],
        )


def check_names(classes: Sequence[str], templates: Sequence[str]) -> None:
    """Refuse class names and templates that make no, or the same, prompts.

    Raises:
        Refused: if a name is empty or stands twice, or a template has not exactly one ``{}``.
    """
    if len(classes) < 2:
        raise Refused(f"{len(classes)} class is nothing to tell apart; two at least are needed")
    if twice := [name for name, n in Counter(classes).items() if n > 1 or not name.strip()]:
        raise Refused(f"class names stand twice or are empty: {twice}; give each its own name")
    if not templates or (wrong := [t for t in templates if t.count("{}") != 1]):
        what = f"{wrong} do not have" if templates else "there are none; one must have"
        raise Refused(f"templates: {what} exactly one {{}} for the class name")


def check_labels(splits: Mapping[str, Split], classes: Sequence[str]) -> list[str]:
    """Refuse splits whose labels or ids cannot be right.

    Returns:
        Warnings: the classes that are evaluated and never trained.

    Raises:
        Refused: if a split is empty, a label has no class, or a picture of train or val is also
            in another split.
    """
    for name, split in splits.items():
        if len(split) == 0:
            raise Refused(f"the split {name} is empty; give it pictures")
        wrong = np.flatnonzero((split.labels < 0) | (split.labels >= len(classes)))
        if len(wrong):
            raise Refused(
                f"{len(wrong)} labels of {name} are outside 0..{len(classes) - 1}; mend the labels",
                [f"{split.ids[i]}: label {split.labels[i]}" for i in wrong.tolist()],
            )
    for name in TRAINING:
        for other in splits.keys() - {name}:
            if name in splits and (both := set(splits[name].ids) & set(splits[other].ids)):
                raise Refused(f"{name} and {other} share {len(both)} pictures", sorted(both))
    if "train" not in splits:
        raise Refused("there is no split named train; a dataset needs one")
    trained = set(splits["train"].labels.tolist())
    untrained = {k for split in splits.values() for k in split.labels.tolist()} - trained
    if not untrained:
        return []
    names = ", ".join(classes[k] for k in sorted(untrained)[:5])
    what = "1 class is" if len(untrained) == 1 else f"{len(untrained)} classes are"
    has = "has" if len(untrained) == 1 else "have"
    more = " ..." if len(untrained) > 5 else ""
    return [f"{what} evaluated but {has} no training picture: {names}{more}"]
