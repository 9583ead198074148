"""What would spoil a run, found before its first step: absent and bad images, wrong labels."""

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
from clipbench.loading.images.decoding import Range, Source
from clipbench.loading.split import Split

TRAINING = ("train", "val")


def present(name: str, split: Split) -> tuple[Split, list[str]]:
    """Return the images of a split that are on disk, and the warning if some are not.

    An image that is not on disk is not a bad image: an evaluation split goes on with what is
    there and keeps ``expected``; training on less than everything would be another experiment.

    Raises:
        UserError: if any is absent from train or val, or all are from another split.
    """
    missing = absent(split.sources)
    if not missing:
        return split, []
    lost = f"{len(missing):,} of the {len(split):,} images of {name} are not on disk"
    if name in TRAINING or len(missing) == len(split):
        details = [f"{split.images[i]}: not there" for i in missing]
        raise UserError(f"{lost}. Bring them, or set dataset.root to a whole copy", details)
    kept = np.setdiff1d(np.arange(len(split)), missing)
    warning = f"{lost}: its results are of {len(kept):,}, not to be set beside the whole split"
    return replace(split.take(kept), expected=split.expected), [warning]


def absent(sources: Sequence[Source]) -> list[int]:
    """Return the positions of the images whose file is not on disk."""
    # One listing a folder: asking for each of a million files takes minutes on a network disk.
    files = [source if isinstance(source, Path) else source.path for source in sources]
    folders = {path.parent for path in files}
    listed = {folder: set(folder.iterdir()) for folder in folders if os.access(folder, os.R_OK)}
    return [i for i, path in enumerate(files) if path not in listed.get(path.parent, ())]


def seen(
    splits: Mapping[str, Split], root: Path, value_range: Range | None
) -> tuple[dict[str, Split], dict[Source, str]]:
    """Look at the size, the header and the ends of every image that nobody has looked at yet.

    Args:
        splits: by name.
        root: of the dataset, whose looks are kept together under the outputs root.
        value_range: as for :func:`clipbench.loading.images.contents.looks`.

    Returns:
        The splits with the digests of their images, and the reason for each that cannot be read.
    """
    new = {name: split for name, split in splits.items() if split.digests is None}
    sources = [source for split in new.values() for source in split.sources]
    cache = kept_in(paths.outputs() / "cache", str(root.absolute()), value_range)
    found = looks(sources, value_range, cache) if sources else {}
    bad = {source: look.reason for source, look in found.items() if look.reason is not None}
    return {
        name: split if split.digests is not None else replace(split, digests=_digests(split, found))
        for name, split in splits.items()
    }, bad


def _digests(split: Split, found: Mapping[Source, Look]) -> NDArray[np.uint8]:
    if isinstance(split.images, np.ndarray):
        return split.drawn()
    rows = b"".join(found[source].digest for source in split.images)
    return np.frombuffer(rows, np.uint8).reshape(-1, SIZE)


def readable(name: str, split: Split, bad: Mapping[Source, str]) -> tuple[Split, list[str]]:
    """Return the images of a split that can be read, and the warning if some cannot.

    Args:
        name: the split's.
        split: to be sifted.
        bad: of :func:`seen`.

    Raises:
        UserError: if none can.
    """
    details = [f"{source}: {bad[source]}" for source in split.sources if source in bad]
    if not details:
        return split, []
    kept = [i for i, source in enumerate(split.sources) if source not in bad]
    if not kept:
        raise UserError(f"no image of {name} can be read. Replace them", details)
    count = f"{len(split) - len(kept):,} of the {len(split):,}"
    warning = f"{count} images of {name} cannot be read and were left out, first {details[0]}"
    rest = split.take(np.array(kept))
    return replace(rest, expected=split.expected, unreadable=len(details)), [warning]


def check_images(splits: Mapping[str, Split], bad: Mapping[Source, str]) -> None:
    """Refuse splits that hold an image that cannot be read.

    Args:
        splits: by name.
        bad: of :func:`seen`.

    Raises:
        UserError: with ``path: reason`` for each of them.
    """
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
    """Refuse class names and templates that make no, or the same, prompts.

    Args:
        classes: their names.
        templates: with one place for the name.
        homonyms: names that may occur twice, as they do in the dataset's list.

    Raises:
        UserError: if a name is empty or occurs twice, or a template does not have exactly one place
            for it.
    """
    if len(classes) < 2:
        raise UserError(f"{len(classes)} class is nothing to tell apart. Two at least are needed")
    counts = Counter(classes)
    if twice := [c for c in counts if (counts[c] > 1 and c not in homonyms) or not c.strip()]:
        raise UserError(f"class names occur twice or are empty: {twice}. Give each its own name")
    if not templates or (wrong := [t for t in templates if t.count("{}") + t.count("{a}") != 1]):
        what = f"{wrong} do not have" if templates else "there are none; one must have"
        raise UserError(f"templates: {what} exactly one {{}} (or {{a}}) for the class name")


def check_splits(splits: Mapping[str, Split]) -> None:
    """Refuse splits that are empty, or that share images.

    Raises:
        UserError: if a split is empty, or an image of train or val is also in another.
    """
    for name, split in splits.items():
        if len(split) == 0:
            raise UserError(f"the split {name} is empty. Give it images")
    for name in TRAINING:
        for other in splits.keys() - {name}:
            if name in splits and (both := set(splits[name].ids) & set(splits[other].ids)):
                raise UserError(f"{name} and {other} share {len(both)} images", sorted(both))


def check_labels(splits: Mapping[str, Split], classes: Sequence[str]) -> list[str]:
    """Refuse labels that have no class.

    Returns:
        Warnings: the classes that are evaluated and never trained.

    Raises:
        UserError: with ``id: label`` for each of them.
    """
    for name, split in splits.items():
        wrong = np.flatnonzero((split.labels < 0) | (split.labels >= len(classes)))
        if len(wrong):
            raise UserError(
                f"{len(wrong)} labels of {name} are outside 0..{len(classes) - 1}. Fix the labels",
                [f"{split.ids[i]}: label {split.labels[i]}" for i in wrong.tolist()],
            )
    if "train" not in splits:
        return []
    trained = set(splits["train"].labels.tolist())
    untrained = {k for split in splits.values() for k in split.labels.tolist()} - trained
    if not untrained:
        return []
    names = ", ".join(classes[k] for k in sorted(untrained)[:5])
    what = "1 class is" if len(untrained) == 1 else f"{len(untrained)} classes are"
    has = "has" if len(untrained) == 1 else "have"
    more = " ..." if len(untrained) > 5 else ""
    return [f"{what} evaluated but {has} no training image: {names}{more}"]
