"""Checks before the first step of a run: absent and unreadable images, wrong labels."""

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipbench.core import paths
from clipbench.core.errors import UserError
from clipbench.loading.images.contents import SIZE, Look, kept_in, looks
from clipbench.loading.images.decoding import Range, Source, file_of
from clipbench.loading.split import Split

TRAINING = ("train", "val")


def present(name: str, split: Split) -> tuple[Split, list[str]]:
    """Return the images of a split that are on disk, and the warning if some are not.

    An evaluation split without some goes on and keeps ``expected``; training on fewer images would
    be another experiment.

    Raises:
        UserError: if any is absent from train or val, or all from another split.
    """
    missing = absent(split.sources)
    if not missing:
        return split, []
    lost = f"{len(missing):,} of the {len(split):,} images of {name} are not on disk"
    if name in TRAINING or len(missing) == len(split):
        details = [f"{split.images[i]}: not there" for i in missing]
        raise UserError(f"{lost}. Bring them, or set dataset.root to a whole copy", details)
    there = np.setdiff1d(np.arange(len(split)), missing)
    warning = f"{lost}: its results are of {len(there):,}, not to be compared with the whole split"
    return replace(split.take(there), expected=split.expected), [warning]


def absent(sources: Sequence[Source]) -> list[int]:
    """Return the positions of the images whose file is not on disk."""
    # One listing per folder: checking each of a million files takes minutes on a network disk.
    files = [file_of(source) for source in sources]
    folders = {path.parent for path in files}
    listed = {folder: set(folder.iterdir()) for folder in folders if os.access(folder, os.R_OK)}
    return [i for i, path in enumerate(files) if path not in listed.get(path.parent, ())]


def seen(
    splits: Mapping[str, Split], root: Path, value_range: Range | None
) -> tuple[dict[str, Split], dict[Source, str]]:
    """Look at the size, the header and the ends of every image not looked at yet.

    The looks at the images of a dataset's root are kept in the outputs folder.

    Returns:
        The splits with the digests of their images, and the reason for each that cannot be read.
    """
    new = {name: split for name, split in splits.items() if split.digests is None}
    sources = [source for split in new.values() for source in split.sources]
    cache = kept_in(paths.outputs() / "cache", str(root.absolute()), value_range)
    looked = looks(sources, value_range, cache) if sources else {}
    bad = {source: look.reason for source, look in looked.items() if look.reason is not None}
    digested = {n: replace(split, digests=_digests(split, looked)) for n, split in new.items()}
    return {name: digested.get(name, split) for name, split in splits.items()}, bad


def _digests(split: Split, looked: Mapping[Source, Look]) -> NDArray[np.uint8]:
    if isinstance(split.images, np.ndarray):
        return split.drawn()
    rows = b"".join(looked[source].digest for source in split.images)
    return np.frombuffer(rows, np.uint8).reshape(-1, SIZE)


def readable(name: str, split: Split, bad: Mapping[Source, str]) -> tuple[Split, list[str]]:
    """Return the images of a split that can be read, and the warning if some are ``bad``.

    Raises:
        UserError: if all are.
    """
    details = [f"{source}: {bad[source]}" for source in split.sources if source in bad]
    if not details:
        return split, []
    good = [i for i, source in enumerate(split.sources) if source not in bad]
    if not good:
        raise UserError(f"no image of {name} can be read. Replace them", details)
    count = f"{len(details):,} of the {len(split):,}"
    warning = f"{count} images of {name} cannot be read and were left out, first {details[0]}"
    readable = split.take(np.array(good))
    return replace(readable, expected=split.expected, unreadable=len(details)), [warning]


def check_images(splits: Mapping[str, Split], bad: Mapping[Source, str]) -> None:
    """Refuse splits that hold an image that cannot be read, with ``path: reason`` for each."""
    sources = dict.fromkeys(source for split in splits.values() for source in split.sources)
    if wrong := [source for source in sources if source in bad]:
        raise UserError(
            f"{len(wrong):,} of {len(sources):,} images cannot be read. Replace or remove them, "
            "or leave them out with dataset.bad_images=skip",
            [f"{source}: {bad[source]}" for source in wrong],
        )


def check_names(
    classes: Sequence[str], templates: Sequence[str], homonyms: Collection[str] = ()
) -> None:
    """Refuse class names that are empty or, except for homonyms, occur twice, and bad templates.

    A template has exactly one place for the name.
    """
    if len(classes) < 2:
        raise UserError(f"{len(classes)} class cannot be told apart. At least two are needed")
    counts = Counter(classes)
    if twice := [c for c in counts if (counts[c] > 1 and c not in homonyms) or not c.strip()]:
        raise UserError(f"class names occur twice or are empty: {twice}. Give each its own name")
    if not templates or (wrong := [t for t in templates if t.count("{}") + t.count("{a}") != 1]):
        what = f"{wrong} do not have" if templates else "none; one must have"
        raise UserError(f"templates: {what} exactly one {{}} (or {{a}}) for the class name")


def check_splits(splits: Mapping[str, Split]) -> None:
    """Refuse a split that is empty, and an image of train or val that is also in another split."""
    for name, split in splits.items():
        if len(split) == 0:
            raise UserError(f"the split {name} is empty. Give it images")
    for name in TRAINING:
        for other in splits.keys() - {name}:
            if name in splits and (both := set(splits[name].ids) & set(splits[other].ids)):
                raise UserError(f"{name} and {other} share {len(both)} images", sorted(both))


def check_labels(splits: Mapping[str, Split], classes: Sequence[str]) -> list[str]:
    """Refuse labels without a class, and warn of classes that are evaluated but never trained."""
    for name, split in splits.items():
        wrong = np.flatnonzero((split.labels < 0) | (split.labels >= len(classes)))
        if len(wrong):
            raise UserError(
                f"{len(wrong)} labels of {name} are outside 0..{len(classes) - 1}. Fix the labels",
                [f"{split.ids[i]}: label {split.labels[i]}" for i in wrong.tolist()],
            )
    labels = {k for split in splits.values() for k in split.labels.tolist()}
    untrained = labels - set(splits["train"].labels.tolist()) if "train" in splits else ()
    if not untrained:
        return []
    names = ", ".join(classes[k] for k in sorted(untrained)[:5])
    more = " ..." if len(untrained) > 5 else ""
    count = "1 class is" if len(untrained) == 1 else f"{len(untrained)} classes are"
    return [f"{count} evaluated without any training image: {names}{more}"]
