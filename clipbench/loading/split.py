"""A named split, its fingerprints, and the fixed rules by which one is made from another."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from clipbench.core.errors import Damaged, UserError
from clipbench.loading.images.contents import SIZE
from clipbench.loading.images.decoding import Source, pixels, read
from clipbench.results.record import SplitRecord


@dataclass(frozen=True)
class Split:
    """The images of one named split.

    Attributes:
        ids: a stable name for each image, such as its path below the dataset's root.
        labels: class index of each image, int64 (n,); -1 throughout where there are no classes.
        images: file of each image, or the pixels themselves, uint8 (n, H, W, 3).
        expected: how many images the split should have; more than n where some are not on disk.
        captions: the captions of each image, for datasets that have them.
        rule: how the split was made, if its source does not define it.
        groups: by kind, the group of each image, int64 (n,), -1 for one that does not count.
        among: the labels that a prediction chooses from, for a shift set of fewer classes; or for
            each such label the classes, itself included, that count as it.
        border: pixels cut off every side of an image, which belong to its frame.
        unreadable: how many images were left out because they cannot be read.
        digests: of the content of each image, uint8 (n, SIZE), see
            :mod:`clipbench.loading.images.contents`; None before they were looked at.
        prompted: whether the captions are prompts of the run, not the dataset's own.
    """

    ids: Sequence[str]
    labels: NDArray[np.int64]
    images: Sequence[Source] | NDArray[np.uint8]
    expected: int
    captions: Sequence[Sequence[str]] | None = None
    rule: str | None = None
    groups: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    among: tuple[int, ...] | Mapping[int, tuple[int, ...]] | None = None
    border: int = 0
    unreadable: int = 0
    digests: NDArray[np.uint8] | None = None
    prompted: bool = False

    @classmethod
    def unlabelled(
        cls,
        images: Mapping[str, Source],
        captions: Sequence[Sequence[str]] | None = None,
        rule: str | None = None,
    ) -> "Split":
        """Return a split of images by id, without classes."""
        labels = np.full(len(images), -1, dtype=np.int64)
        return cls(list(images), labels, list(images.values()), len(images), captions, rule)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def sources(self) -> Sequence[Source]:
        """The files of the split; none if it holds the pixels themselves."""
        return () if isinstance(self.images, np.ndarray) else self.images

    def image(self, index: int, value_range: tuple[float, float] | None = None) -> Image.Image:
        """Return the image at a position, decoded by Pillow, its file closed.

        Raises:
            Damaged: if the file is gone, or has a fault that the look before a run does not find.
        """
        source = self.images[index]
        if isinstance(source, np.ndarray):
            return Image.fromarray(source)
        with _named(source):
            image = read(source, value_range)
        return ImageOps.crop(image, self.border) if self.border else image

    def pixels(self, index: int, value_range: tuple[float, float] | None = None) -> Tensor:
        """Return :meth:`image` as uint8 (3, H, W), from the fastest decoder."""
        source = self.images[index]
        if isinstance(source, np.ndarray):
            return torch.from_numpy(source).permute(2, 0, 1)
        with _named(source):
            whole = pixels(source, value_range)
        inside = slice(self.border, -self.border or None)
        return whole[:, inside, inside]

    def take(self, index: NDArray[np.int64]) -> "Split":
        """Return the images at some positions, as a split that expects just those."""
        images = self.images
        return replace(
            self,
            ids=[self.ids[i] for i in index],
            labels=self.labels[index],
            images=images[index] if isinstance(images, np.ndarray) else [images[i] for i in index],
            captions=self.captions and [self.captions[i] for i in index],
            groups={kind: of[index] for kind, of in self.groups.items()},
            expected=len(index),
            digests=None if self.digests is None else self.digests[index],
        )

    def of_classes(self, labels: Sequence[int]) -> "Split":
        """Return the images of some classes, labelled by their place in that list."""
        place = {label: i for i, label in enumerate(labels)}
        split = self.take(np.flatnonzero(np.isin(self.labels, labels)))
        rule = f"classes {','.join(map(str, labels))} of the dataset's"
        return replace(
            split,
            labels=np.array([place[label] for label in split.labels.tolist()], dtype=np.int64),
            among=_placed(self.among, place),
            rule=_chain(rule, self.rule),
        )

    def fingerprint(self) -> str:
        """Return the sha256 over the sorted rows; only results of an equal one can be compared.

        A row is (id, label), or (id, caption) for each caption if there are no classes.
        """
        values: Sequence[Sequence[object]] = [[label] for label in self.labels.tolist()]
        if self.captions is not None and (self.labels < 0).all():
            values = self.captions
        pairs = zip(self.ids, values, strict=True)
        rows = sorted(f"{name}\t{value}\n" for name, own in pairs for value in own)
        return hashlib.sha256("".join(rows).encode(errors="surrogateescape")).hexdigest()

    def drawn(self) -> NDArray[np.uint8]:
        """Return the digest of each image in memory, uint8 (n, SIZE)."""
        digests = b"".join(
            hashlib.sha256(f"{image.shape}\n".encode() + image.tobytes()).digest()[:SIZE]
            for image in self.images
            if isinstance(image, np.ndarray)
        )
        return np.frombuffer(digests, np.uint8).reshape(-1, SIZE)

    def content(self) -> str:
        """Return the sha256 over the sorted rows of all that is read of each image.

        A row is (id, label, digest of the image), with the dataset's own captions and the groups
        if it has any. It does not depend on where the images are.

        Raises:
            ValueError: before :func:`clipbench.loading.validation.seen` has looked at them.
        """
        if self.digests is None:
            raise ValueError("the images of this split have not been looked at")
        size, text = 2 * SIZE, self.digests.tobytes().hex()
        rows = [
            f"{name}\t{label}\t{text[i * size : (i + 1) * size]}"
            for i, (name, label) in enumerate(zip(self.ids, self.labels.tolist(), strict=True))
        ]
        if self.captions is not None and not self.prompted:
            pairs = zip(rows, self.captions, strict=True)
            rows = [f"{row}\t{json.dumps(list(captions))}" for row, captions in pairs]
        for kind in sorted(self.groups):
            groups = zip(rows, self.groups[kind].tolist(), strict=True)
            rows = [f"{row}\t{kind}={group}" for row, group in groups]
        return hashlib.sha256("\n".join(sorted(rows)).encode(errors="surrogateescape")).hexdigest()

    def record(self) -> SplitRecord:
        """Return what a run's record says of it, see :meth:`content`."""
        return SplitRecord(
            n=len(self),
            expected=self.expected,
            sha256=self.fingerprint(),
            content=self.content(),
            rule=self.rule,
            unreadable=self.unreadable or None,
        )


@contextmanager
def _named(source: Source) -> Iterator[None]:
    """Name the file in whatever a decoder raises: OSError, SyntaxError, struct.error."""
    try:
        yield
    except Exception as error:
        reason = getattr(error, "strerror", None) or error  # an OSError's text has the path too
        raise Damaged(
            f"{source} cannot be read ({reason}). Replace it, or leave it out with "
            "dataset.bad_images=skip"
        ) from error


def _placed(
    among: tuple[int, ...] | Mapping[int, tuple[int, ...]] | None, place: Mapping[int, int]
) -> tuple[int, ...] | Mapping[int, tuple[int, ...]] | None:
    """Return :attr:`Split.among` by the labels' place in a subset of classes."""
    if isinstance(among, Mapping):
        return {
            place[label]: tuple(place[k] for k in same if k in place)
            for label, same in among.items()
            if label in place
        }
    return among and tuple(place[label] for label in among if label in place)


def _chain(rule: str, earlier: str | None) -> str:
    """Return a rule, after the rule that made the split it is applied to."""
    return f"{earlier}; then {rule}" if earlier else rule


def _by_label(labels: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the positions of each label in order, the lowest label first, by a single sort."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


def few_shot(split: Split, shots: int, seed: int) -> Split:
    """Return the first ``shots`` images of each class in a seeded order: more shots only add.

    Raises:
        UserError: if ``shots`` is less than one.
    """
    if shots < 1:
        raise UserError(f"dataset.shots={shots}: nothing to train on. Use 1 or more, or null")
    order = np.random.default_rng([seed, 0x5407]).permutation(len(split))
    chosen = [order[members][:shots] for members in _by_label(split.labels[order])]
    few = split.take(np.sort(np.concatenate(chosen)))
    return replace(few, rule=_chain(f"{shots} a class, seed {seed}", split.rule))


def carve(split: Split, fraction: float, of: str = "class") -> tuple[Split, Split]:
    """Divide a split in two, class by class, by the hash of each id: the rest, and a fraction.

    Of each class the ``round(fraction * n)`` images (one at least) whose sha256 is lowest are
    taken, whatever the order of a listing; no seed is drawn. The recorded rule says what a class is
    (``of``).
    """
    if not len(split):
        return split, split
    digest = np.array([hashlib.sha256(i.encode()).hexdigest() for i in split.ids])
    lowest = []
    for members in _by_label(split.labels):
        count = max(1, round(fraction * len(members)))
        lowest.append(members[np.argsort(digest[members], kind="stable")[:count]])
    chosen = np.sort(np.concatenate(lowest))
    others = np.setdiff1d(np.arange(len(split)), chosen)
    rule = f"{fraction:g} of each {of} by lowest sha256 of the id"
    return (
        replace(split.take(others), rule=_chain(f"all but {rule}", split.rule)),
        replace(split.take(chosen), rule=_chain(rule, split.rule)),
    )
