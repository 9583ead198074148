"""What would spoil a run, found before its first step: absent and bad pictures, wrong labels."""

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from clipbench.datamodules.split import Split
from clipbench.errors import Refused
from clipbench.imaging.pictures import Source, faults

TRAINING = ("train", "val")


def present(name: str, split: Split) -> tuple[Split, str | None]:
    """The pictures of a split that are on disk, and the warning that some are not.

    A picture that is not on disk is not a bad picture: an evaluation split goes on with what is
    there and keeps ``expected``; training on less than everything would be another experiment.

    Raises:
        Refused: if any is absent from train or val, or all are from another split.
    """
    missing = absent(split.sources)
    if not missing:
        return split, None
    lost = f"{len(missing):,} of the {len(split):,} pictures of {name} are not on disk"
    if name in TRAINING or len(missing) == len(split):
        details = [f"{split.pictures[i]}: not there" for i in missing]
        raise Refused(f"{lost}; bring them, or set dataset.root to a whole copy", details)
    kept = np.setdiff1d(np.arange(len(split)), missing)
    warning = f"{lost}: its results are of {len(kept):,}, not to be set beside the whole split"
    return replace(split.take(kept), expected=split.expected), warning


def absent(sources: Sequence[Source]) -> list[int]:
    """The positions of those whose file is not on disk."""
    # One listing a folder: asking for each of a million files takes minutes on a network disk.
    files = [source if isinstance(source, Path) else source.path for source in sources]
    folders = {path.parent for path in files}
    listed = {folder: set(folder.iterdir()) for folder in folders if os.access(folder, os.R_OK)}
    return [i for i, path in enumerate(files) if path not in listed.get(path.parent, ())]


def readable(
    name: str, split: Split, value_range: tuple[float, float] | None
) -> tuple[Split, str | None]:
    """The pictures of a split that can be read, and the warning that some cannot.

    Raises:
        Refused: if none can.
    """
    bad = faults(split.sources, value_range)
    if not bad:
        return split, None
    kept = [i for i, source in enumerate(split.sources) if source not in bad]
    details = [f"{source}: {reason}" for source, reason in bad.items()]
    if not kept:
        raise Refused(f"no picture of {name} can be read; replace them", details)
    warning = f"{len(bad):,} of the {len(split):,} pictures of {name} cannot be read and were left"
    left = replace(split.take(np.array(kept)), expected=split.expected)
    return left, f"{warning} out, first {details[0]}"


def check_pictures(
    splits: Mapping[str, Split], value_range: tuple[float, float] | None = None
) -> None:
    """Look at the header, the size and the end of every file of every split.

    Raises:
        Refused: if any cannot be read, with ``path: reason`` for each of them.
    """
    sources = list(dict.fromkeys(source for split in splits.values() for source in split.sources))
    bad = faults(sources, value_range)
    if bad:
        raise Refused(
            f"{len(bad):,} of {len(sources):,} pictures cannot be read; replace or remove them, or "
            "leave them out with dataset.bad_images=skip",
            [f"{source}: {reason}" for source, reason in bad.items()],
        )


def check_names(
    classes: Sequence[str], templates: Sequence[str], homonyms: Collection[str] = ()
) -> None:
    """Refuse class names and templates that make no, or the same, prompts.

    Args:
        classes: their names.
        templates: with one place for the name.
        homonyms: names that may stand twice, since they do so in the dataset's own list.

    Raises:
        Refused: if a name is empty or stands twice, or a template has not exactly one place for it.
    """
    if len(classes) < 2:
        raise Refused(f"{len(classes)} class is nothing to tell apart; two at least are needed")
    counts = Counter(classes)
    if twice := [c for c in counts if (counts[c] > 1 and c not in homonyms) or not c.strip()]:
        raise Refused(f"class names stand twice or are empty: {twice}; give each its own name")
    if not templates or (wrong := [t for t in templates if t.count("{}") + t.count("{a}") != 1]):
        what = f"{wrong} do not have" if templates else "there are none; one must have"
        raise Refused(f"templates: {what} exactly one {{}} (or {{a}}) for the class name")


def check_splits(splits: Mapping[str, Split]) -> None:
    """Refuse splits that are empty, or that share pictures.

    Raises:
        Refused: if a split is empty, or a picture of train or val is also in another.
    """
    for name, split in splits.items():
        if len(split) == 0:
            raise Refused(f"the split {name} is empty; give it pictures")
    for name in TRAINING:
        for other in splits.keys() - {name}:
            if name in splits and (both := set(splits[name].ids) & set(splits[other].ids)):
                raise Refused(f"{name} and {other} share {len(both)} pictures", sorted(both))


def check_labels(splits: Mapping[str, Split], classes: Sequence[str]) -> list[str]:
    """Refuse labels that have no class.

    Returns:
        Warnings: the classes that are evaluated and never trained.

    Raises:
        Refused: with ``id: label`` for each of them.
    """
    for name, split in splits.items():
        wrong = np.flatnonzero((split.labels < 0) | (split.labels >= len(classes)))
        if len(wrong):
            raise Refused(
                f"{len(wrong)} labels of {name} are outside 0..{len(classes) - 1}; mend the labels",
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
    return [f"{what} evaluated but {has} no training picture: {names}{more}"]
