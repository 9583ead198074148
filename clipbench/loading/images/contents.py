"""The look at each image before a run: a digest of its file, and whether it can be read."""

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
from clipbench.loading.images import integrity
from clipbench.loading.images.decoding import FORMATS, Range, Source, opened, unfit
from clipbench.loading.images.integrity import Stamp
from clipbench.loading.images.truncation import missing_end

LAYOUT = 1  # a new number where a digest is of other bytes
SIZE = 16  # bytes of a digest
UNKNOWN = bytes(SIZE)  # of a file that cannot be read
BLOCK = 8192  # bytes at either end of a file; up to twice as many are the whole of it

# A pixel changed amid one of these leaves its size and both ends as they were. In the others it
# moves all that is coded after it, or a checksum at the end.
_UNCOMPRESSED = (b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", *(b"P%d" % n for n in range(1, 7)))
_UNCOMPRESSED += (b"Pf", b"PF", b"Py")
_HEADER_FIRST = (b"\xff\xd8\xff", b"\x89PNG")

Known = dict[str, tuple[Stamp, bytes]]  # by path, of files that could be read


class Look(NamedTuple):
    """The digest of a file, and the reason why it cannot be read; None where it can.

    The digest is of its size and its first and last :data:`BLOCK` bytes; of all its bytes where the
    format is uncompressed (BMP, TIFF, PPM).
    """

    digest: bytes
    reason: str | None = None


def looks(
    sources: Sequence[Source], value_range: Range | None = None, cache: Path | None = None
) -> dict[Source, Look]:
    """Look at the size, the header and the ends of each file, in the order given.

    Nothing is decoded: holes and flipped bits within a compressed file are left to
    :func:`clipbench.loading.images.integrity.survey`. What could be read by the looks of the cache
    file, see :func:`kept_in`, and has had no other size or time of change since, is not opened
    again. Jobs that write it at the same time lose each other's rows, and look again.
    """
    known = _read(cache)
    fresh: Known = {}
    looked: dict[Source, Look] = {}

    def look(part: Sequence[Source]) -> list[tuple[Source, Stamp | None, Look]]:
        return [(source, *_look(source, value_range, known)) for source in part]

    with integrity.unwarned(), integrity.pool() as workers:
        for block in integrity.blocks(sources):
            rows = (row for part in workers.map(look, integrity.parts(block)) for row in part)
            for source, stamp, result in rows:
                looked[source] = result
                if stamp is not None and result.reason is None:
                    fresh[str(source)] = (stamp, result.digest)
    if cache is not None and fresh:
        _write(cache, known | fresh)
    return looked


def faults(sources: Sequence[Source], value_range: Range | None = None) -> dict[Source, str]:
    """Return the reason for each file that cannot be read, in the order given."""
    looked = looks(sources, value_range)
    return {source: look.reason for source, look in looked.items() if look.reason is not None}


def _look(source: Source, value_range: Range | None, known: Known) -> tuple[Stamp | None, Look]:
    """Return the look at a file, and its stamp if the file had to be opened for it."""
    stamp, digest = None, UNKNOWN

    def look() -> str | None:
        nonlocal stamp, digest
        now = integrity.status(source)
        if (before := known.get(str(source))) is not None and before[0] == now:
            digest = before[1]
            return None
        stamp = now
        if wrong := integrity.wrong_size(now.size):
            return wrong
        with opened(source, buffering=0) as file:
            head = file.read(BLOCK)
            file.seek(max(BLOCK, now.size - BLOCK))
            tail = file.read(BLOCK)
            whole = len(head) + len(tail) >= now.size
            if whole or not head.startswith(_UNCOMPRESSED):
                digest = _digest(now.size, (head, tail))
            else:
                file.seek(0)
                digest = _digest(now.size, iter(lambda: file.read(1 << 20), b""))
            content = BytesIO(head + tail) if whole else file
            with _header(head, content) as image:
                return unfit(image, value_range) or missing_end(image, content, now.size)

    why = integrity.reason(look)
    return stamp, Look(digest, why)


def _digest(size: int, pieces: Iterable[bytes]) -> bytes:
    digest = hashlib.sha256(b"%d\n" % size)
    for piece in pieces:
        digest.update(piece)
    return digest.digest()[:SIZE]


def _header(head: bytes, file: IO[bytes]) -> ImageFile:
    """Open an image from its first bytes where its header is within them, or else from its file."""
    if head.startswith(_HEADER_FIRST):
        with suppress(Exception):  # cut off here, or damaged, which the file itself tells
            return Image.open(BytesIO(head), formats=FORMATS)
    file.seek(0)
    return Image.open(file, formats=FORMATS)


def kept_in(folder: Path, root: str, value_range: Range | None) -> Path:
    """Return the file below the folder of caches that keeps the looks at a dataset's files."""
    rules = json.dumps([LAYOUT, PIL.__version__, value_range, root])
    return folder / "contents" / f"{hashlib.sha256(rules.encode()).hexdigest()[:16]}.json"


def _read(cache: Path | None) -> Known:
    """Return the rows of earlier looks; none if there is no cache, or it is damaged."""
    if cache is None:
        return {}
    with suppress(OSError, ValueError, TypeError, AttributeError):
        rows = json.loads(cache.read_bytes())
        return {path: (Stamp(*row[:3]), bytes.fromhex(row[3])) for path, row in rows.items()}
    return {}


def _write(cache: Path, rows: Known) -> None:
    text = json.dumps({path: [*stamp, digest.hex()] for path, (stamp, digest) in rows.items()})
    with suppress(UserError):  # a disk that takes no files costs time, not the run
        files.write_text(cache, text)
