"""What there is of a dataset, and what is wrong with it, found without training on it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clipbench.core import paths
from clipbench.core.errors import UserError
from clipbench.datamodules.base import DataModule
from clipbench.datamodules.base_classification import ClassificationDataModule
from clipbench.loading import validation
from clipbench.loading.images.integrity import survey
from clipbench.loading.leaks import pairs
from clipbench.loading.split import Split

UNEVEN = 10  # times as many images of the largest class as of the smallest: worth a word


@dataclass
class Audit:
    """The state of a dataset."""

    # Of each split its ``n`` on disk, ``expected`` by the lists, ``published``, ``sha256``, ...
    rows: list[dict[str, Any]] = field(default_factory=list)
    # The published sum of splits joined by ``+``.
    sums: dict[str, int] = field(default_factory=dict)
    # How many classes there are, and how many are published; None where none are.
    classes: tuple[int | None, int | None] = (None, None)
    # Of each class its label, what the dataset calls it, and what prompts call it.
    labels: list[tuple[int, str, str]] = field(default_factory=list)
    # What stops a run, each with its lines of detail.
    faults: dict[str, list[str]] = field(default_factory=dict)
    # What does not.
    warnings: list[str] = field(default_factory=list)


def published(dataset: str, scheme: str | None = None) -> pd.DataFrame:
    """Return the published counts: columns split, n, captions, classes, source, verified.

    A split is one of ours, or several joined by ``+`` where only their sum is published.

    Args:
        dataset: the option typed.
        scheme: which of its split schemes, for datasets that have several.
    """
    table = pd.read_csv(paths.EXPERIMENTS / "datasets.csv", dtype=str, keep_default_na=False)
    return table[(table["dataset"] == dataset) & table["scheme"].isin(["", scheme or ""])]


def _compare(lists: Mapping[str, Split], counts: pd.DataFrame) -> list[str]:
    """Return where the lists at hand differ from the published counts."""
    warnings = []
    for name, n in zip(counts["split"], counts["n"].astype(int), strict=True):
        parts = [lists[part] for part in name.split("+") if part in lists]
        listed = sum(map(len, parts))
        if len(parts) == name.count("+") + 1 and listed != n:
            warnings.append(f"{name} lists {listed:,} images, {n:,} are published: another split")
    return warnings


def audit(data: DataModule, name: str, cache: Path) -> Audit:
    """Look at everything: lists against the published counts, every file decoded, duplicates.

    Args:
        data: a datamodule that need not be prepared.
        name: the option typed.
        cache: the manifest of an earlier look, so that only what changed is decoded again.

    Raises:
        UserError: if the dataset is not there at all.
    """
    result = Audit()
    lists = data.lists(seed=0)
    on_disk = {name: _on_disk(name, split, result) for name, split in lists.items()}
    on_disk, _ = validation.seen(on_disk, data.root, data.value_range)
    counts = published(name, getattr(data, "scheme", None))
    result.rows = _rows(lists, on_disk, counts)
    sums = counts[counts["split"].str.contains("+", regex=False)]
    result.sums = dict(zip(sums["split"], sums["n"].astype(int), strict=True))
    if isinstance(data, ClassificationDataModule):
        classes = counts["classes"][counts["classes"] != ""]
        result.classes = (len(data.classes), int(classes.iloc[0]) if len(classes) else None)
        keys = data.keys or data.classes
        result.labels = list(zip(range(len(keys)), keys, data.classes, strict=True))
    result.warnings += [*data.warnings, *_compare(lists, counts)]
    if "train" not in lists:
        result.warnings.append("no train split: for evaluation only")
    _check_lists(data, on_disk, result)
    _check_files(on_disk, cache, data.value_range, result)
    return result


def _on_disk(name: str, split: Split, result: Audit) -> Split:
    """Return the images of a split that are on disk, and note the others."""
    missing = validation.absent(split.sources)
    if missing:
        lost = f"{len(missing):,} of the {len(split):,} images of {name} not on disk"
        if name in validation.TRAINING or len(missing) == len(split):
            result.faults[lost] = [f"{split.images[i]}: not there" for i in missing]
        else:
            result.warnings.append(f"{lost}: a result on the rest is not on {name}")
    return split.take(np.setdiff1d(np.arange(len(split)), missing))


def _rows(
    lists: Mapping[str, Split], on_disk: Mapping[str, Split], counts: pd.DataFrame
) -> list[dict[str, Any]]:
    known = {split: int(n) for split, n in zip(counts["split"], counts["n"], strict=True)}
    return [
        {
            "split": name,
            "n": len(on_disk[name]),
            "expected": len(split),
            "published": known.get(name),
            "captions": split.captions and sum(map(len, split.captions)),
            "sha256": on_disk[name].fingerprint(),
            "content": on_disk[name].content(),
            "rule": split.rule,
        }
        for name, split in lists.items()
    ]


@contextmanager
def _noting(result: Audit) -> Iterator[None]:
    try:
        yield
    except UserError as fault:
        result.faults[str(fault)] = fault.details


def _check_lists(data: DataModule, on_disk: dict[str, Split], result: Audit) -> None:
    """Check names, labels, shared ids, and how unequal the classes are."""
    with _noting(result):
        validation.check_splits(on_disk)
    if not isinstance(data, ClassificationDataModule):
        return
    with _noting(result):
        validation.check_names(data.classes, data.templates, data.homonyms)
    with _noting(result):
        result.warnings += validation.check_labels(on_disk, data.classes)
    if "train" in on_disk:
        labels, counts = np.unique(on_disk["train"].labels.clip(0), return_counts=True)
        if len(counts) and counts.max() > UNEVEN * counts.min():
            largest, smallest = (
                data.classes[labels[i]] for i in (counts.argmax(), counts.argmin())
            )
            result.warnings.append(
                f"classes are unequal: {counts.max():,} of {largest}, {counts.min():,} of "
                f"{smallest} in train; see dataset.balance"
            )


def _check_files(
    on_disk: Mapping[str, Split],
    cache: Path,
    value_range: tuple[float, float] | None,
    result: Audit,
) -> None:
    """Decode every file, and find images that are in two splits, byte for byte."""
    sources = list(dict.fromkeys(s for split in on_disk.values() for s in split.sources))
    manifest = survey(sources, cache, value_range)
    bad = manifest[manifest["reason"].notna()]
    if len(bad):
        lines = [f"{p}: {why}" for p, why in zip(bad["path"], bad["reason"], strict=True)]
        result.faults[f"{len(bad):,} of {len(sources):,} images cannot be read"] = lines
    if (changed := manifest[manifest["changed"].fillna(False).astype(bool)])["path"].size:
        path = changed["path"].iloc[0]
        result.warnings.append(f"{len(changed):,} files changed since the last check, first {path}")
    digests = dict(zip(manifest["path"], manifest["sha256"], strict=True))
    hashed = {name: _hashes(split, digests) for name, split in on_disk.items()}
    for first, second in pairs(hashed):
        if both := hashed[first].keys() & hashed[second].keys():
            count = f"{len(both):,} images are" if len(both) > 1 else "1 image is"
            result.faults[f"{count} byte for byte in {first} and in {second}"] = sorted(
                f"{first}: {hashed[first][digest]} = {second}: {hashed[second][digest]}"
                for digest in both
            )


def _hashes(split: Split, of: Mapping[str, str]) -> dict[str, str]:
    """Return the id of each image by the sha256 of all its bytes, or of what is drawn."""
    if isinstance(split.images, np.ndarray):
        digests = (digest.tobytes().hex() for digest in split.drawn())
        return dict(zip(digests, split.ids, strict=True))
    return {of[str(s)]: i for s, i in zip(split.images, split.ids, strict=True) if of.get(str(s))}
