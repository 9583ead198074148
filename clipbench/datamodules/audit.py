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
from clipbench.loading.images.integrity import survey
from clipbench.loading.leaks import pairs
from clipbench.loading.split import Split
from clipbench.loading.validation import (
    TRAINING,
    absent,
    check_labels,
    check_names,
    check_splits,
    seen,
)

UNEVEN = 10  # times as many images of the largest class as of the smallest: worth a word


@dataclass
class Audit:
    """What was found.

    Attributes:
        rows: per split its ``n`` on disk, ``expected`` by the lists, ``published``, ``sha256``,
            ``content``, ...
        sums: splits joined by ``+`` with the sum that is published.
        classes: how many there are, and how many are published; None where none are.
        labels: of each class its label, what the dataset calls it, and what prompts call it.
        faults: what stops a run, each with its lines of detail.
        warnings: what does not.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    sums: dict[str, int] = field(default_factory=dict)
    classes: tuple[int | None, int | None] = (None, None)
    labels: list[tuple[int, str, str]] = field(default_factory=list)
    faults: dict[str, list[str]] = field(default_factory=dict)
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


def _compare(lists: Mapping[str, Split], known: pd.DataFrame) -> list[str]:
    """Where the lists at hand are not what was published."""
    wrong = []
    for name, n in zip(known["split"], known["n"].astype(int), strict=True):
        parts = [lists[part] for part in name.split("+") if part in lists]
        listed = sum(map(len, parts))
        if len(parts) == name.count("+") + 1 and listed != n:
            wrong.append(f"{name} lists {listed:,} images, {n:,} are published: another split")
    return wrong


def audit(data: DataModule, name: str, cache: Path) -> Audit:
    """Look at everything: lists against the published counts, every file decoded, duplicates.

    Args:
        data: a datamodule that need not be prepared.
        name: the option typed.
        cache: the manifest of an earlier look, so that only what changed is decoded again.

    Raises:
        UserError: if the dataset is not there at all.
    """
    found = Audit()
    lists = data.lists(seed=0)
    there = {}
    for split_name, split in lists.items():
        missing = absent(split.sources)
        there[split_name] = split.take(np.setdiff1d(np.arange(len(split)), missing))
        if missing:
            lost = f"{len(missing):,} of the {len(split):,} images of {split_name} not on disk"
            if split_name in TRAINING or len(missing) == len(split):
                lines = [f"{split.images[i]}: not there" for i in missing]
                found.faults[lost] = lines
            else:
                found.warnings.append(f"{lost}: a result on the rest is not on {split_name}")
    there, _ = seen(there, data.root, data.value_range)
    known = published(name, getattr(data, "scheme", None))
    found.rows = _rows(lists, there, known)
    sums = known[known["split"].str.contains("+", regex=False)]
    found.sums = dict(zip(sums["split"], sums["n"].astype(int), strict=True))
    if isinstance(data, ClassificationDataModule):
        counts = known["classes"][known["classes"] != ""]
        found.classes = (len(data.classes), int(counts.iloc[0]) if len(counts) else None)
        keys = data.keys or data.classes
        found.labels = [(k, *own) for k, own in enumerate(zip(keys, data.classes, strict=True))]
    found.warnings += [*data.warnings, *_compare(lists, known)]
    if "train" not in lists:
        found.warnings.append("no train split: for evaluation only")
    _lists(data, there, found)
    _files(there, cache, data.value_range, found)
    return found


def _rows(
    lists: Mapping[str, Split], there: Mapping[str, Split], known: pd.DataFrame
) -> list[dict[str, Any]]:
    counts = {split: int(n) for split, n in zip(known["split"], known["n"], strict=True)}
    return [
        {
            "split": name,
            "n": len(there[name]),
            "expected": len(split),
            "published": counts.get(name),
            "captions": split.captions and sum(map(len, split.captions)),
            "sha256": there[name].fingerprint(),
            "content": there[name].content(),
            "rule": split.rule,
        }
        for name, split in lists.items()
    ]


@contextmanager
def _noting(found: Audit) -> Iterator[None]:
    try:
        yield
    except UserError as fault:
        found.faults[str(fault)] = fault.details


def _lists(data: DataModule, there: dict[str, Split], found: Audit) -> None:
    """Names, labels, shared ids, and how unequal the classes are."""
    with _noting(found):
        check_splits(there)
    if not isinstance(data, ClassificationDataModule):
        return
    with _noting(found):
        check_names(data.classes, data.templates, data.homonyms)
    with _noting(found):
        found.warnings += check_labels(there, data.classes)
    if "train" in there:
        counts = np.bincount(there["train"].labels.clip(0), minlength=len(data.classes))
        seen = counts[counts > 0]
        if len(seen) and seen.max() > UNEVEN * seen.min():
            largest, smallest = (data.classes[i] for i in (counts.argmax(), _least(counts)))
            found.warnings.append(
                f"classes are unequal: {seen.max():,} of {largest}, {seen.min():,} of {smallest} in"
                " train; see dataset.balance"
            )


def _least(counts: Any) -> int:
    return int(np.where(counts > 0, counts, counts.max() + 1).argmin())


def _files(
    there: Mapping[str, Split], cache: Path, value_range: tuple[float, float] | None, found: Audit
) -> None:
    """Decode every file, and find images that are in two splits, byte for byte."""
    sources = list(dict.fromkeys(s for split in there.values() for s in split.sources))
    manifest = survey(sources, cache, value_range)
    bad = manifest[manifest["reason"].notna()]
    if len(bad):
        lines = [f"{p}: {why}" for p, why in zip(bad["path"], bad["reason"], strict=True)]
        found.faults[f"{len(bad):,} of {len(sources):,} images cannot be read"] = lines
    if (changed := manifest[manifest["changed"].fillna(False).astype(bool)])["path"].size:
        first = changed["path"].iloc[0]
        found.warnings.append(f"{len(changed):,} files changed since the last check, first {first}")
    digests = dict(zip(manifest["path"], manifest["sha256"], strict=True))
    hashed = {name: _hashes(split, digests) for name, split in there.items()}
    for name, other in pairs(hashed):
        if both := hashed[name].keys() & hashed[other].keys():
            count = f"{len(both):,} images are" if len(both) > 1 else "1 image is"
            found.faults[f"{count} byte for byte in {name} and in {other}"] = sorted(
                f"{name}: {hashed[name][digest]} = {other}: {hashed[other][digest]}"
                for digest in both
            )


def _hashes(split: Split, of: Mapping[str, str]) -> dict[str, str]:
    """Return the id of each image by the sha256 of all its bytes, or of what is drawn."""
    if isinstance(split.images, np.ndarray):
        drawn = (digest.tobytes().hex() for digest in split.drawn())
        return dict(zip(drawn, split.ids, strict=True))
    return {of[str(s)]: i for s, i in zip(split.images, split.ids, strict=True) if of.get(str(s))}
