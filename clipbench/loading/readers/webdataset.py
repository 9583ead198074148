"""Splits of images in webdataset's tar shards, which are read in any order, like files.

So shuffling by (seed, epoch), fingerprints and the look at every image work as for files; an
iterable that streams shards would have none of them.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from clipbench.core.console import track
from clipbench.core.errors import UserError
from clipbench.loading.images.decoding import Source
from clipbench.loading.images.folder_walk import set_aside
from clipbench.loading.readers.tar_index import Sample, index
from clipbench.loading.readers.text_files import lines, split_name
from clipbench.loading.split import Split

_TAR = re.compile(r"\.(tar(\.\w+)?|tgz|tbz2?|txz)$", re.IGNORECASE)

Samples = dict[str, Sample]  # by id, each with one image


def matches(where: Path) -> bool:
    """Return whether a path is of shards: a tar, a pattern of tars, or a folder of nothing else.

    The folder may have split folders, too, but no folders for classes.
    """
    if not where.is_dir():
        return bool(_TAR.search(where.name))
    homes, inside = _inside(where)
    return any(_TAR.search(path.name) for path in inside) and not any(
        path.is_dir() and path not in homes for path in inside
    )


def _inside(where: Path) -> tuple[list[Path], list[Path]]:
    """Return a folder with its split folders, and what is in all of them but a system's files."""
    splits = [p for p in where.iterdir() if split_name(p.name) and p.is_dir()]
    homes = [where, *sorted(p for p in splits if not set_aside(p.name))]
    return homes, [p for home in homes for p in home.iterdir() if not set_aside(p.name)]


def files(where: Path) -> dict[str, list[Path]]:
    """Return the shards of each split, by their folder or the start of their names.

    Where neither says, all are train's, under the name "".

    Raises:
        UserError: if one that a pattern names does not exist, or only some belong to a split.
    """
    if where.is_dir():
        shards = sorted(path for path in _inside(where)[1] if _TAR.search(path.name))
    else:
        every = (path for pattern in _of_pattern(where) for path in _globbed(pattern))
        shards = list(dict.fromkeys(every))
        if absent := [path for path in shards if not path.is_file()]:
            raise UserError(
                f"{len(absent):,} of {len(shards):,} shards are not there, first {absent[0]}. "
                "Bring them, or name those that exist",
                [f"{path}: not there" for path in absent],
            )
    homes = {path.parent for path in shards} - {where}
    if not where.is_dir() and len(homes) == 1:
        homes = set()  # a pattern's one folder may have any name, test_project among them
    by_split: dict[str, list[Path]] = {}
    for path in shards:
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
    """Return the paths of a pattern; the folder that it begins with is taken literally."""
    if where.exists():
        return [where]
    home = next(folder for folder in where.parents if folder.is_dir())
    return [home / name for name in _expanded(str(where.relative_to(home)))]


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
    for part in inner:
        yield from _expanded(pattern[: braces.start()] + part + pattern[braces.end() :])


def _globbed(path: Path) -> list[Path]:
    return (sorted(path.parent.glob(path.name)) if "*" in path.name else []) or [path]


def read(where: Path) -> tuple[dict[str, Samples], list[str]]:
    """Return the samples of each split by id, in the shards' order, and warnings.

    An id is the sample's key, after its split's name where the shards have one. Members that
    belong to no sample are left out with a warning.

    Raises:
        UserError: if a shard is damaged, a key occurs twice, or a sample has not one image.
    """
    splits: dict[str, Samples] = {}
    wrong, strange = [], 0
    for split, shards in files(where).items():
        samples = splits.setdefault(split or "train", {})
        for shard in track(shards, f"listing {len(shards):,} shards"):
            listed, others = index(shard)
            strange += others
            for sample in listed:
                name = f"{split}/{sample.key}" if split else sample.key
                if name in samples:
                    other = samples[name].images[0].path.name
                    wrong.append(f"{shard}#{sample.key}: also in {other}")
                elif len(sample.images) != 1:
                    wrong.append(f"{shard}#{sample.key}: {len(sample.images)} images, not one")
                else:
                    samples[name] = sample
    _refuse(wrong)
    if not any(splits.values()):
        raise UserError(f"{where} holds no samples. Name shards with images in them")
    warning = f"{where}: {strange:,} members belong to no sample (folders, links, hidden files)"
    return splits, [warning] if strange else []


def _refuse(wrong: Sequence[str]) -> None:
    if wrong:
        raise UserError(
            f"{len(wrong):,} samples are faulty, first {wrong[0]}. Write the shards anew", wrong
        )


def labelled(where: Path) -> tuple[list[str], dict[str, Split], list[str]]:
    """Read shards of images with classes: the classes, the splits, and warnings.

    Numbers are label ids, named by a ``classnames.txt`` beside the shards if there is one; other
    labels are classes in train's sorted order.

    Raises:
        UserError: as :func:`read` does, if a sample has no label, or one that train does not have.
    """
    splits, warnings = read(where)
    if "train" not in splits:
        raise UserError(f"{where} has shards of {', '.join(splits)}, none of train. Name them, too")
    every = [sample for samples in splits.values() for sample in samples.values()]
    _refuse([f"{sample.images[0]}: no label" for sample in every if not sample.label])
    labels = {
        name: [sample.label or "" for sample in samples.values()]
        for name, samples in splits.items()
    }
    written = {label for part in labels.values() for label in part}
    if all(label.isdecimal() for label in written):
        ids = {label: int(label) for label in written}
        classes = _named(where) or [str(k) for k in range(max(ids.values()) + 1)]
    else:
        classes = sorted(set(labels["train"]))
        ids = {name: k for k, name in enumerate(classes)}
    _refuse([f"{s.images[0]}: train has no {s.label}" for s in every if s.label not in ids])
    labelled_splits = {}
    for name, samples in splits.items():
        numbers = np.array([ids[label] for label in labels[name]], dtype=np.int64)
        images = list(_images(samples).values())
        labelled_splits[name] = Split(list(samples), numbers, images, expected=len(samples))
    return classes, labelled_splits, warnings


def captioned(where: Path) -> tuple[dict[str, Split], list[str]]:
    """Read shards of images with captions: the splits, and warnings.

    Raises:
        UserError: as :func:`read` does, or if a sample has no caption or an empty one.
    """
    splits, warnings = read(where)
    every = [sample for samples in splits.values() for sample in samples.values()]
    blank = [s for s in every if not s.captions or not all(map(str.strip, s.captions))]
    _refuse([f"{sample.images[0]}: no caption" for sample in blank])
    return {
        name: Split.unlabelled(_images(samples), [sample.captions for sample in samples.values()])
        for name, samples in splits.items()
    }, warnings


def _images(samples: Samples) -> dict[str, Source]:
    return {name: sample.images[0] for name, sample in samples.items()}


def _named(where: Path) -> list[str]:
    """Return the lines of ``classnames.txt``, which CLIP_benchmark has at its shards' root."""
    home = where if where.is_dir() else where.parent
    lists = (folder / "classnames.txt" for folder in (home, home.parent))
    file = next((path for path in lists if path.is_file()), None)
    return [line.strip() for _, line in lines(file)] if file else []
