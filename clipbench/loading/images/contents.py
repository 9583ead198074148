"""What each image's file holds, by a digest, and whether it can be read: the look before a run."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import IO, NamedTuple

import PIL
from PIL import Image
from PIL.ImageFile import ImageFile

from clipbench.core import files
from clipbench.core.errors import UserError
from clipbench.loading.images.decoding import FORMATS, Range, Source, opened, unfit
from clipbench.loading.images.integrity import (
    Stamp,
    blocks,
    pool,
    reason,
    status,
    unwarned,
    wrong_size,
)
from clipbench.loading.images.truncation import missing_end

LAYOUT = 1  # a new number where a digest is of other bytes
SIZE = 16  # bytes of a digest
UNKNOWN = bytes(SIZE)  # of a file that cannot be read
BLOCK = 8192  # bytes at either end of a file; up to twice as many are the whole of it
_AT_ONCE = 16  # files for a thread: handing over each by itself takes as long as looking at it

# A pixel changed amid one of these leaves its size and both ends as they were. In the others it
# moves all that is coded after it, or a checksum at the end.
_UNCOMPRESSED = (b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", *(b"P%d" % n for n in range(1, 7)))
_UNCOMPRESSED += (b"Pf", b"PF", b"Py")
_HEADER_FIRST = (b"\xff\xd8\xff", b"\x89PNG")


class Look(NamedTuple):
    """What is known of an image's file.

    Attributes:
        digest: of its size and its first and last :data:`BLOCK` bytes; of all its bytes where the
            format is uncompressed (BMP, TIFF, PPM).
        reason: why it cannot be read; None where it can.
    """

    digest: bytes
    reason: str | None = None


def looks(
    sources: Sequence[Source], value_range: Range | None = None, cache: Path | None = None
) -> dict[Source, Look]:
    """Look at the size, the header and the ends of each file, in the order given.

    Nothing is decoded: holes and flipped bits amid a compressed file are left to
    :func:`clipbench.loading.images.integrity.survey`.

    Args:
        sources: the files; one that occurs twice is looked at once.
        value_range: as for :func:`clipbench.loading.images.decoding.read`.
        cache: a file of earlier looks, see :func:`kept_in`: what could be read, and has had no
            other size or time of change since, is not opened again. Jobs that write it at one time
            lose one another's rows, and look again.
    """
    known = _read(cache)
    fresh: dict[str, tuple[Stamp, bytes]] = {}
    found: dict[Source, Look] = {}

    def look(part: Sequence[Source]) -> list[tuple[Source, Stamp | None, Look]]:
        return [(source, *_look(source, value_range, known)) for source in part]

    with unwarned(), pool() as workers:
        for block in blocks(sources):
            parts = [block[i : i + _AT_ONCE] for i in range(0, len(block), _AT_ONCE)]
            for source, stamp, seen in (row for rows in workers.map(look, parts) for row in rows):
                found[source] = seen
                if stamp is not None and seen.reason is None:
                    fresh[str(source)] = (stamp, seen.digest)
    if cache is not None and fresh:
        _write(cache, known | fresh)
    return found


def faults(sources: Sequence[Source], value_range: Range | None = None) -> dict[Source, str]:
    """Return the reason for each file that cannot be read, in the order given.

    Args:
        sources: as for :func:`looks`.
        value_range: likewise.
    """
    found = looks(sources, value_range)
    return {source: seen.reason for source, seen in found.items() if seen.reason is not None}


def _look(
    source: Source, value_range: Range | None, known: dict[str, tuple[Stamp, bytes]]
) -> tuple[Stamp | None, Look]:
    """Return what is known of a file, and its stamp where it has been opened to find that out."""
    stamp, digest = None, UNKNOWN

    def look() -> str | None:
        nonlocal stamp, digest
        now = status(source)
        if (before := known.get(str(source))) is not None and before[0] == now:
            digest = before[1]
            return None
        stamp = now
        if wrong := wrong_size(now.size):
            return wrong
        with opened(source, buffering=0) as file:
            head = file.read(BLOCK)
            tail = _end(file, now.size) if now.size > BLOCK else b""
            whole = len(head) + len(tail) >= now.size
            if whole or not head.startswith(_UNCOMPRESSED):
                digest = _digest(now.size, (head, tail))
            else:
                file.seek(0)
                digest = _digest(now.size, iter(lambda: file.read(1 << 20), b""))
            held = BytesIO(head + tail) if whole else file
            with _header(head, held) as image:
                return unfit(image, value_range) or missing_end(image, held, now.size)

    found = reason(look)
    return stamp, Look(digest, found)


def _end(file: IO[bytes], size: int) -> bytes:
    file.seek(max(BLOCK, size - BLOCK))
    return file.read(BLOCK)


def _digest(size: int, parts: Iterable[bytes]) -> bytes:
    found = hashlib.sha256(b"%d\n" % size)
    for part in parts:
        found.update(part)
    return found.digest()[:SIZE]


def _header(head: bytes, file: IO[bytes]) -> ImageFile:
    """Open an image from its first bytes where its header is within them, or else from its file."""
    if head.startswith(_HEADER_FIRST):
        with suppress(Exception):  # cut off here, or damaged, which the file itself tells
            return Image.open(BytesIO(head), formats=FORMATS)
    file.seek(0)
    return Image.open(file, formats=FORMATS)


def kept_in(folder: Path, root: str, value_range: Range | None) -> Path:
    """Return the file that keeps the looks at a dataset's files.

    Args:
        folder: of all caches, such as ``outputs/cache``.
        root: the dataset's.
        value_range: as for :func:`looks`.
    """
    rules = json.dumps([LAYOUT, PIL.__version__, value_range, root])
    return folder / "contents" / f"{hashlib.sha256(rules.encode()).hexdigest()[:16]}.json"


def _read(cache: Path | None) -> dict[str, tuple[Stamp, bytes]]:
    """Return the rows of earlier looks by path; none where there are none, or they are damaged."""
    if cache is None:
        return {}
    with suppress(OSError, ValueError, TypeError, AttributeError):
        rows = json.loads(cache.read_bytes())
        return {path: (Stamp(*row[:3]), bytes.fromhex(row[3])) for path, row in rows.items()}
    return {}


def _write(cache: Path, rows: dict[str, tuple[Stamp, bytes]]) -> None:
    text = json.dumps({path: [*stamp, digest.hex()] for path, (stamp, digest) in rows.items()})
    with suppress(OSError, UserError):  # a disk that takes no files costs time, not the run
        cache.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(cache, text)
