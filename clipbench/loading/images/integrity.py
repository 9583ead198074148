"""Find out before training which files are images that can be trained on.

An image is bad if a decoder refuses it, libjpeg warns of it, or its end is missing.
"""

import hashlib
import logging
import os
import stat
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import PIL
from PIL import Image, UnidentifiedImageError

from clipbench.core import files
from clipbench.core.console import track
from clipbench.core.environment import cores
from clipbench.loading.images.decoding import (
    FORMATS,
    MAX_PIXELS,
    Range,
    Source,
    content,
    decode,
    file_of,
    jpeg_pixels,
    jpegs_within,
    orientation,
    unfit,
)
from clipbench.loading.images.truncation import missing_end

if TYPE_CHECKING:
    import pandas as pd

MAX_BYTES = 2**30
CUT_HEADER = "Truncated File Read"  # what Pillow says of one, as a warning or an error
COMPLAINT = "corrupt, its decoder says: "  # of an image that it decodes all the same
LONG_WORK = 500  # files; above this a progress bar is shown

BLOCK = 256  # files looked at before the next ones
AT_ONCE = 16  # files for a thread: handing over each by itself takes as long as looking at it
LARGE = 8_000_000  # pixels; the survey decodes larger ones one at a time, to bound its memory

_one_large = threading.Lock()


def reason(look: Callable[[], str | None]) -> str | None:
    """Return what a look finds, or the error that it ends with, as a reason."""
    try:
        return look()
    except UnidentifiedImageError:
        return (
            f"not an image ({', '.join(FORMATS)}), or its header is damaged; save it as one of "
            "these, or replace it"
        )
    except Image.DecompressionBombError:
        return f"over {MAX_PIXELS:,} pixels; make it smaller"
    except Exception as error:  # decoders have raised SyntaxError, struct.error, ...
        message = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if CUT_HEADER in message:
            return "cut off: a part of the header is missing; bring the file again"
        return message if ";" in message else f"{message}; replace it"


class Stamp(NamedTuple):
    """The size in bytes and the times of a file, equal while it is unchanged.

    An archive sets the time of its files' content (mtime), but not that of their change (ctime).
    """

    size: int
    mtime_ns: int
    ctime_ns: int


def status(source: Source) -> Stamp:
    """Return the size and the times of an image's file.

    Raises:
        OSError: if it is not a regular file, or a tar that ends within it.
    """
    of_file = file_of(source).stat()
    if not stat.S_ISREG(of_file.st_mode):
        raise OSError("not a regular file; replace it")
    size = of_file.st_size
    if not isinstance(source, Path):
        if source.offset + source.size > size:
            raise OSError(f"cut off: {source.path.name} ends within it; bring the tar file again")
        size = source.size
    return Stamp(size, of_file.st_mtime_ns, of_file.st_ctime_ns)


def wrong_size(size: int) -> str | None:
    """Return why a file of this size is not an image that is read; None if it may be."""
    if size == 0:
        return "empty, 0 bytes; bring the file again"
    return f"larger than {MAX_BYTES >> 20} MiB; make it smaller" if size > MAX_BYTES else None


@contextmanager
def unwarned() -> Iterator[None]:
    """Silence decoders, whose warnings name no path, but for the one that means missing pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=CUT_HEADER)
        logger = logging.getLogger("PIL")
        level = logger.level
        logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            logger.setLevel(level)


@contextmanager
def captured_warnings() -> Iterator[Callable[[], list[str]]]:
    """Yield a function that returns what C libraries printed to stderr since its last call."""
    with tempfile.TemporaryFile(buffering=0) as file:

        def lines() -> list[str]:
            file.seek(0)
            printed = file.read(1 << 16).decode(errors="replace").splitlines()
            file.seek(0)
            file.truncate()
            # libtiff warns of each tag that it does not know, which does no harm.
            return [line for line in printed if line.strip() and "Warning, " not in line]

        stderr = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def pool() -> ThreadPoolExecutor:
    """Return threads to decode files with, which works without the GIL."""
    return ThreadPoolExecutor(min(cores(), 16))


def blocks(sources: Sequence[Source]) -> Iterator[list[Source]]:
    """Yield each source once, in blocks: a million futures at once would be too many."""
    files: Iterable[Source] = dict.fromkeys(sources)
    if len(sources) > LONG_WORK:
        files = track(files, f"checking {len(sources):,} images", total=len(sources))
    remaining = iter(files)
    while block := list(islice(remaining, BLOCK)):
        yield block


def parts(block: Sequence[Source]) -> list[Sequence[Source]]:
    """Return the sources of a block by :data:`AT_ONCE`."""
    return [block[i : i + AT_ONCE] for i in range(0, len(block), AT_ONCE)]


class Row(NamedTuple):
    """What the survey knows of a file; of one that cannot be opened, the path and the reason."""

    path: str
    rules: str
    size: int | None = None
    mtime_ns: int | None = None
    ctime_ns: int | None = None
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    mode: str | None = None
    reason: str | None = None
    changed: bool = False


def survey(
    sources: Sequence[Source],
    cache: Path | None = None,
    value_range: Range | None = None,
    seconds: float | None = None,
) -> "pd.DataFrame":
    """Decode every file once, to its last pixel, and collect the warnings of its decoder.

    libjpeg (and libtiff) go on over corrupt data with no more than a line on stderr, which Pillow
    hides and torchvision lets through. On 1,500 mutants this agrees with simplejpeg's strict mode
    to the file. Flipped bits that decode without a complaint count as good: only the sha256 of an
    earlier survey shows them.

    Args:
        sources: the files.
        cache: the manifest, a parquet file. A file whose path, size and times it lists is not read
            again. It is rewritten at the end, also of an interrupted survey.
        value_range: as in :func:`clipbench.loading.images.decoding.read`.
        seconds: after which no further file is read. The remaining ones have neither sha256 nor
            reason, and only a survey without a limit reads them.

    Returns:
        A row per file, in the order given: path, size, mtime_ns, sha256 of the bytes, width and
        height after turning, Pillow's mode, reason (None if the image is good), and whether it has
        changed: the manifest had other bytes under this path.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    rules = f"1, Pillow {PIL.__version__}, values {value_range}"
    survey = _Survey(_manifest(cache), rules, value_range, deadline)
    rows: dict[str, Row] = {}
    try:
        with unwarned(), pool() as threads:
            for block in blocks(sources):
                rows |= {row.path: row for row in survey.rows(block, threads)}
    finally:
        if cache is not None and any(survey.known.get(path) != row for path, row in rows.items()):
            _write_manifest(cache, {**survey.known, **rows}.values())
    return _frame(rows.values()).drop(columns=["rules", "ctime_ns"])


@dataclass(frozen=True)
class _Survey:
    """How the files of one survey are read, and the rows of earlier ones by path."""

    known: dict[str, Row]
    rules: str
    value_range: Range | None
    deadline: float | None

    def rows(self, block: Sequence[Source], threads: ThreadPoolExecutor) -> list[Row]:
        """Decode a block of files; where a decoder warned, decode it again to see of which."""
        with captured_warnings() as lines:
            rows = [row for part in threads.map(self._looks, parts(block)) for row in part]
            for i, source in enumerate(block if lines() else ()):
                if rows[i].reason is None and rows[i].sha256 is not None:
                    replace(self, known={}, deadline=None).look(source)
                    if complaint := lines():
                        why = f"{COMPLAINT}{complaint[0]}; replace it"
                        rows[i] = rows[i]._replace(reason=why)
        return rows

    def _looks(self, part: Sequence[Source]) -> list[Row]:
        return [self.look(source) for source in part]

    def look(self, source: Source) -> Row:
        """Decode one file, unless the manifest has it as it now is."""
        before = self.known.get(str(source))
        row = Row(str(source), self.rules)

        def look() -> str | None:
            nonlocal row
            size, *_ = stamp = status(source)
            same = before and (before.rules, *before[2:5]) == (self.rules, *stamp)
            if before and same and (before.sha256 or before.reason or self.deadline is not None):
                row = before._replace(changed=False)
                return before.reason
            row = row._replace(**stamp._asdict())
            if self.deadline is not None and time.monotonic() > self.deadline:
                return None
            if wrong := wrong_size(size):
                return wrong
            data = content(source)
            digest = hashlib.sha256(data).hexdigest()
            changed = bool(before and before.sha256 not in (None, digest))
            row = row._replace(sha256=digest, changed=changed)
            with Image.open(BytesIO(data), formats=FORMATS) as image:
                row = row._replace(width=image.width, height=image.height, mode=image.mode)
                if wrong := unfit(image, self.value_range) or missing_end(
                    image, BytesIO(data), size
                ):
                    return wrong
                with _one_large if image.width * image.height > LARGE else nullcontext():
                    width, height = _decoded_size(image, data, self.value_range)
            row = row._replace(width=width, height=height)
            return None

        return row._replace(reason=why) if (why := reason(look)) else row


def _decoded_size(image: Image.Image, data: bytes, value_range: Range | None) -> tuple[int, int]:
    """Decode an image in full, by the decoder that training uses and that complains aloud."""
    if image.format in ("JPEG", "MPO"):
        with suppress(RuntimeError):  # Pillow has the last word
            height, width = jpeg_pixels(data).shape[1:]
            return (height, width) if orientation(image) > 4 else (width, height)
    size = decode(BytesIO(data), value_range).size
    for part in jpegs_within(image, data):
        with suppress(Exception), Image.open(BytesIO(part), formats=("JPEG",)) as inner:
            if inner.width * inner.height <= MAX_PIXELS:  # it may differ from what the TIFF says
                jpeg_pixels(part)
    return size


def _manifest(cache: Path | None) -> dict[str, Row]:
    """Return the rows of an earlier survey by path; none if the manifest is absent or damaged."""
    import pyarrow.parquet as pq

    if cache is None:
        return {}
    with suppress(Exception):  # of many kinds
        return {row["path"]: Row(**row) for row in pq.read_table(cache).to_pylist()}
    return {}


def _frame(rows: Iterable[Row]) -> "pd.DataFrame":
    import pandas as pd

    whole = dict.fromkeys(("size", "mtime_ns", "ctime_ns", "width", "height"), "Int64")
    frame = pd.DataFrame(list(rows), columns=Row._fields, dtype=object)  # None stays None
    return frame.astype({**whole, "changed": bool})


def _write_manifest(cache: Path, rows: Iterable[Row]) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    buffer = BytesIO()
    # Parquet cannot hold a path that is not UTF-8: such a file is read again each time.
    storable = (row for row in rows if row.path.encode(errors="ignore").decode() == row.path)
    _frame(storable).to_parquet(buffer, index=False)
    files.write_bytes(cache, buffer.getvalue())
