"""A named split, its fingerprint, and the fixed rules by which one is made from another."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipbench.errors import Refused
from clipbench.pictures import read


@dataclass(frozen=True)
class Split:
    """The pictures of one named split.

    Attributes:
        ids: a stable name for each picture, such as its path below the dataset's root.
        labels: class index of each picture, int64 (n,).
        pictures: path of each picture, or the pixels themselves, uint8 (n, H, W, 3).
        expected: how many pictures the split should have; more than n where some are not on disk.
        captions: the captions of each picture, for datasets that have them.
        rule: how the split was made, where its source does not define it.
    """

    ids: Sequence[str]
    labels: NDArray[np.int64]
    pictures: Sequence[Path] | NDArray[np.uint8]
    expected: int
    captions: Sequence[Sequence[str]] | None = None
    rule: str | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def paths(self) -> Sequence[Path]:
        """The files of the split; none where it holds the pixels themselves."""
        return () if isinstance(self.pictures, np.ndarray) else self.pictures

    def picture(self, index: int) -> Image.Image:
        """The picture at a position, decoded, its file closed.

        Raises:
            Refused: if the file went away or was damaged after it was checked.
        """
        source = self.pictures[index]
        if not isinstance(source, Path):
            return Image.fromarray(source)
        try:
            return read(source)
        except Exception as error:  # decoders raise anything: OSError, SyntaxError, struct.error
            reason = getattr(error, "strerror", None) or error  # an OSError's text has the path too
            raise Refused(f"{source} can no longer be read ({reason}); bring it back") from error

    def take(self, index: NDArray[np.int64]) -> "Split":
        """The pictures at some positions, as a split that expects just those."""
        pictures = self.pictures
        return replace(
            self,
            ids=[self.ids[i] for i in index],
            labels=self.labels[index],
            pictures=pictures[index]
            if isinstance(pictures, np.ndarray)
            else [pictures[i] for i in index],
            captions=self.captions and [self.captions[i] for i in index],
            expected=len(index),
        )

    def fingerprint(self) -> str:
        """Sha256 over the sorted (id, label) rows: two results compare only if these are equal."""
        rows = sorted(f"{i}\t{label}\n" for i, label in zip(self.ids, self.labels, strict=True))
        return hashlib.sha256("".join(rows).encode()).hexdigest()


def _chain(rule: str, earlier: str | None) -> str:
    """A rule, after the one that made the split it is applied to."""
    return f"{earlier}; then {rule}" if earlier else rule


def few_shot(split: Split, shots: int, seed: int) -> Split:
    """The first ``shots`` pictures of each class in a seeded order: more shots add to fewer.

    Raises:
        Refused: if ``shots`` is less than one.
    """
    if shots < 1:
        raise Refused(f"dataset.shots={shots} leaves nothing to train on; give 1 or more, or null")
    order = np.random.default_rng([seed, 0x5407]).permutation(len(split))
    kept = [order[split.labels[order] == label][:shots] for label in np.unique(split.labels)]
    few = split.take(np.sort(np.concatenate(kept)))
    return replace(few, rule=_chain(f"{shots} a class, seed {seed}", split.rule))


def carve(split: Split, fraction: float, of: str = "class") -> tuple[Split, Split]:
    """Divide a split in two, class by class, by the hash of each id.

    The rule depends on nothing but the ids: not on the order of a listing, nor on a seed. Of each
    class the ``round(fraction * n)`` pictures (one at least) whose sha256 is lowest are taken.

    Args:
        split: its labels are the groups of which each gives its share.
        fraction: the share.
        of: what a group is, for the recorded rule.

    Returns:
        The rest, and the part taken.
    """
    digest = np.array([hashlib.sha256(i.encode()).hexdigest() for i in split.ids])
    taken = []
    for label in np.unique(split.labels):
        members = np.flatnonzero(split.labels == label)
        count = max(1, round(fraction * len(members)))
        taken.append(members[np.argsort(digest[members], kind="stable")[:count]])
    chosen = np.sort(np.concatenate(taken))
    rest = np.setdiff1d(np.arange(len(split)), chosen)
    rule = f"{fraction:g} of each {of} by lowest sha256 of the id"
    return (
        replace(split.take(rest), rule=_chain(f"all but {rule}", split.rule)),
        replace(split.take(chosen), rule=_chain(rule, split.rule)),
    )
