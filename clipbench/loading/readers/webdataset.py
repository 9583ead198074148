"""Splits of images in webdataset's tar shards, which are read at random like files.

So shuffling by (seed, epoch), fingerprints and the look at every image are as for files; an
iterable that streams shards would have none of them.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipbench.core.console import track
from clipbench.core.errors import UserError
from clipbench.loading.images.decoding import Member
from clipbench.loading.images.folder_walk import set_aside
from clipbench.loading.readers.tar_index import Sample, index
from clipbench.loading.readers.text_files import lines, split_name
from clipbench.loading.split import Split

_TAR = re.compile(r"\.(tar(\.\w+)?|tgz|tbz2?|txz)$", re.IGNORECASE)

Samples = dict[str, tuple[Member, Sample]]  # by id


def meant(where: Path) -> bool:
    """Whether a path is of shards: a tar, a pattern of tars, or a folder of nothing but them.

    A folder may have split folders, too; one with folders for classes is none.
    """
    if not where.is_dir():
        return bool(_TAR.search(where.name))
    homes = _homes(where)
    inside = [path for home in homes for path in _own(home)]
    return any(_TAR.search(path.name) for path in inside) and not any(
        path.is_dir() and path not in homes for path in inside
    )


def _homes(where: Path) -> list[Path]:
    splits = (path for path in _own(where) if split_name(path.name) and path.is_dir())
    return [where, *sorted(splits)]


def _own(folder: Path) -> list[Path]:
    """Return what is in a folder, less what a system put there."""
    return [path for path in folder.iterdir() if not set_aside(path.name)]


def files(where: Path) -> dict[str, list[Path]]:
    """Return the shards of each split, by their folder or the start of their names.

    Where neither says, all are train's, under the name "".

    Raises:
        UserError: if one that a pattern names is not there, or only some belong to a split.
    """
    if where.is_dir():
        inside = [path for home in _homes(where) for path in _own(home)]
        found = sorted(path for path in inside if _TAR.search(path.name))
    else:
        every = (path for pattern in _of_pattern(where) for path in _globbed(pattern))
        found = list(dict.fromkeys(every))
        if absent := [path for path in found if not path.is_file()]:
            raise UserError(
                f"{len(absent):,} of {len(found):,} shards are not there, first {absent[0]}. Bring "
                "them, or name those that there are",
                [f"{path}: not there" for path in absent],
            )
    homes = {path.parent for path in found} - {where}
    if not where.is_dir() and len(homes) == 1:
        homes = set()  # a pattern's one folder may have any name, test_project among them
    by_split: dict[str, list[Path]] = {}
    for path in found:
        name = split_name(re.split("[-.]", path.name)[0])
        name = name or (split_name(path.parent.name) if path.parent in homes else "")
        by_split.setdefault(name, []).append(path)
    if len(by_split) > 1 and "" in by_split:
        raise UserError(
            f"{by_split[''][0]} is of no split, while other shards are. Name it train-, val- or "
            "test-something",
            [f"{path}: of no split" for path in by_split[""]],
        )
    return by_split


def _of_pattern(where: Path) -> list[Path]:
    """Return the paths of a pattern; a folder that is there is meant as it is called."""
    if where.exists():
        return [where]
    home = next(folder for folder in where.parents if folder.is_dir())
    return [home / one for one in _expanded(str(where.relative_to(home)))]


def _expanded(pattern: str) -> Iterator[str]:
    """Yield ``a-{00..02}.tar`` as three names, ``{train,val}.tar`` as two."""
    if not (braces := re.search(r"\{([^{}]*)\}", pattern)):
        yield pattern
        return
    if numbers := re.fullmatch(r"(\d+)\.\.(\d+)", braces[1]):
        first, last = numbers.groups()
        width = len(first) if first.startswith("0") or len(first) == len(last) else 0
        inner: Iterable[str] = (f"{k:0{width}d}" for k in range(int(first), int(last) + 1))
    else:
        inner = braces[1].split(",")
    for one in inner:
        yield from _expanded(pattern[: braces.start()] + one + pattern[braces.end() :])


def _globbed(path: Path) -> list[Path]:
    return (sorted(path.parent.glob(path.name)) if "*" in path.name else []) or [path]


def read(where: Path) -> tuple[dict[str, Samples], list[str]]:
    """Return the samples of each split by id, in the shards' order.

    An id is the sample's key, after its split's name where the shards have one.

    Returns:
        The samples, and warnings of members that belong to none.

    Raises:
        UserError: if a shard is damaged, a key occurs twice, or a sample has not one image.
    """
    splits: dict[str, Samples] = {}
    wrong, strange = [], 0
    by_split = files(where)
    for split, shards in by_split.items():
        samples = splits.setdefault(split or "train", {})
        for shard in track(shards, f"listing {len(shards):,} shards"):
            found, others = index(shard)
            strange += others
            for sample in found:
                name = f"{split}/{sample.key}" if split else sample.key
                if name in samples:
                    wrong.append(f"{shard}#{sample.key}: also in {samples[name][0].path.name}")
                elif len(sample.images) != 1:
                    wrong.append(f"{shard}#{sample.key}: {len(sample.images)} images, not one")
                else:
                    at, offset, size = sample.images[0]
                    samples[name] = (Member(shard, offset, size, at), sample)
    _refuse(wrong)
    if not any(splits.values()):
        raise UserError(f"{where} holds no samples. Name shards with images in them")
    warning = f"{where}: {strange:,} members are no part of a sample (folders, links, hidden files)"
    return splits, [warning] if strange else []


def _refuse(wrong: Sequence[str]) -> None:
    if wrong:
        raise UserError(
            f"{len(wrong):,} samples are faulty, first {wrong[0]}. Write the shards anew", wrong
        )


def labelled(where: Path) -> tuple[list[str], dict[str, Split], list[str]]:
    """Read shards of images with classes.

    Numbers are label ids, named by a ``classnames.txt`` beside the shards if there is one; other
    labels are classes in train's sorted order.

    Returns:
        The classes, the splits, and warnings.

    Raises:
        UserError: as :func:`read` does, if a sample has no label, or one that train has not.
    """
    splits, warnings = read(where)
    if "train" not in splits:
        raise UserError(f"{where} has shards of {', '.join(splits)}, none of train. Name them, too")
    every = [pair for own in splits.values() for pair in own.values()]
    _refuse([f"{member}: no label" for member, sample in every if not sample.label])
    labels = [sample.label or "" for _, sample in every]
    if all(label.isdecimal() for label in labels):
        classes = _named(where) or [str(k) for k in range(max(map(int, labels)) + 1)]
        ids = {label: int(label) for label in labels}
    else:
        classes = sorted({sample.label or "" for _, sample in splits["train"].values()})
        ids = {name: k for k, name in enumerate(classes)}
    unknown = [f"{member}: train has no {s.label}" for member, s in every if s.label not in ids]
    _refuse(unknown)
    found = {}
    for name, own in splits.items():
        numbers = [ids[sample.label or ""] for _, sample in own.values()]
        found[name] = _split(own, np.array(numbers, dtype=np.int64))
    return classes, found, warnings


def captioned(where: Path) -> tuple[dict[str, Split], list[str]]:
    """Read shards of images with captions.

    Returns:
        The splits, and warnings.

    Raises:
        UserError: as :func:`read` does, or if a sample has no caption or an empty one.
    """
    splits, warnings = read(where)
    every = [pair for own in splits.values() for pair in own.values()]
    blank = [m for m, s in every if not s.captions or not all(map(str.strip, s.captions))]
    _refuse([f"{member}: no caption" for member in blank])
    found = {}
    for name, own in splits.items():
        texts = [sample.captions for _, sample in own.values()]
        found[name] = _split(own, np.full(len(own), -1, dtype=np.int64), texts)
    return found, warnings


def _split(
    own: Samples, labels: NDArray[np.int64], captions: Sequence[Sequence[str]] | None = None
) -> Split:
    images = [member for member, _ in own.values()]
    return Split(list(own), labels, images, expected=len(own), captions=captions)


def _named(where: Path) -> list[str]:
    """Return the lines of ``classnames.txt``, which CLIP_benchmark has at its shards' root."""
    home = where if where.is_dir() else where.parent
    found = [f / "classnames.txt" for f in (home, home.parent) if (f / "classnames.txt").is_file()]
    return [line.strip() for _, line in lines(found[0])] if found else []
