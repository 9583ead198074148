"""Which files are images that can be trained on, found out before training, not amid it.

An image is bad if a decoder refuses it, libjpeg warns of it, or its end is missing. What no
decoder can tell, such as bits flipped within the pixels of a BMP or in a JPEG's coded data that
still decode, is not found by the look of :mod:`clipbench.loading.images.contents` nor by
the one below: only a stored hash tells, see :func:`survey`.
"""

import hashlib
import logging
import os
import stat
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import PIL
from PIL import Image, UnidentifiedImageError

from clipbench.core import files
from clipbench.core.console import track
from clipbench.loading.images.decoder_warnings import captured_warnings
from clipbench.loading.images.decoding import (
    EXTENSIONS,
    FORMATS,
    MAX_PIXELS,
    Member,
    Range,
    Source,
    content,
    decode,
    jpeg_pixels,
    jpegs_within,
    orientation,
    pixels,
    read,
    unfit,
)
from clipbench.loading.images.truncation import missing_end

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "EXTENSIONS",
    "MAX_PIXELS",
    "Member",
    "Source",
    "content",
    "pixels",
    "read",
    "status",
    "survey",
]

MAX_BYTES = 2**30
CUT_HEADER = "Truncated File Read"  # what Pillow says of one, as a warning or an error
COMPLAINT = "corrupt, its decoder says: "  # of an image that it decodes all the same
LONG_WORK = 500  # files; above this a progress bar is shown

BLOCK = 256  # files looked at before the next are taken up
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
    """What tells that a file is as it was: an archive sets the time of its content, not of change.

    Attributes:
        size: in bytes.
        mtime_ns: when its content was last changed, as the file system says.
        ctime_ns: when anything of it was.
    """

    size: int
    mtime_ns: int
    ctime_ns: int


def status(source: Source) -> Stamp:
    """Return the size and the times of an image's file.

    Raises:
        OSError: if it is not a regular file, or a tar that ends within it.
    """
    found = (source if isinstance(source, Path) else source.path).stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError("not a regular file; replace it")
    size = found.st_size
    if not isinstance(source, Path):
        if source.offset + source.size > size:
            raise OSError(f"cut off: {source.path.name} ends within it; bring the tar file again")
        size = source.size
    return Stamp(size, found.st_mtime_ns, found.st_ctime_ns)


def wrong_size(size: int) -> str | None:
    """Return why a file of a size is no image."""
    if size == 0:
        return "empty, 0 bytes; bring the file again"
    return f"larger than {MAX_BYTES >> 20} MiB; make it smaller" if size > MAX_BYTES else None


@contextmanager
def unwarned() -> Iterator[None]:
    """Keep decoders quiet but for the one warning that is an error."""
    with warnings.catch_warnings():
        # Without a path a warning helps nobody. This one alone means that pixels are missing.
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=CUT_HEADER)
        logger = logging.getLogger("PIL")
        level = logger.level
        logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            logger.setLevel(level)


def pool() -> ThreadPoolExecutor:
    """Return threads to look at files with."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return ThreadPoolExecutor(min(cores or 1, 16))  # the decoders work without the GIL


def blocks(sources: Sequence[Source]) -> Iterator[list[Source]]:
    """Yield each source once, in blocks, since a future each for a million is too many."""
    files: Iterable[Source] = dict.fromkeys(sources)
    if len(sources) > LONG_WORK:
        files = track(files, f"checking {len(sources):,} images", total=len(sources))
    remaining = iter(files)
    while block := list(islice(remaining, BLOCK)):
        yield block


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
    """Decode every file to its last pixel, and collect the warnings of its decoder.

    libjpeg (and libtiff) go on over corrupt data with no more than a line on the error output.
    Pillow hides libjpeg's, torchvision lets it through: it is read there while the files are
    decoded. On 1,500 mutants this agrees with simplejpeg's strict mode to the file.

    Flipped bits that decode to other pixels with no complaint cannot be told from an image by any
    decoder: such a file counts as good here. Its sha256 is what tells, if the file was surveyed
    before it was damaged: ``changed`` then says so.

    Args:
        sources: the files; one that occurs twice is decoded once.
        cache: the manifest, a parquet file. A file whose path, size and times it lists is not read
            again. It is rewritten at the end, also of an interrupted survey.
        value_range: as in :func:`read`.
        seconds: after which no further file is read. What is then left has neither sha256 nor
            reason, and is read by a survey without such a limit alone. None reads every file.

    Returns:
        A row a source, in the order given: path, size, mtime_ns, sha256 of the bytes, width and
        height as seen, Pillow's mode, reason (None where the image is good), and changed: whether
        the manifest had other bytes under this path before.

    Raises:
        OSError: if the manifest cannot be written.
    """
    rules = f"1, Pillow {PIL.__version__}, values {value_range}"
    deadline = None if seconds is None else time.monotonic() + seconds
    known = _manifest(cache)
    rows: dict[str, Row] = {}
    try:
        with unwarned(), pool() as threads:
            for block in blocks(sources):
                done = _surveyed(block, known, rules, value_range, threads, deadline)
                rows |= {row.path: row for row in done}
    finally:
        if cache is not None and any(known.get(path) != row for path, row in rows.items()):
            _write_manifest(cache, {**known, **rows}.values())
    return _frame(rows.values()).drop(columns=["rules", "ctime_ns"])


def _surveyed(
    block: Sequence[Source],
    known: dict[str, Row],
    rules: str,
    value_range: Range | None,
    threads: ThreadPoolExecutor,
    deadline: float | None,
) -> list[Row]:
    def look(source: Source) -> Row:
        return _full_look(source, known.get(str(source)), rules, value_range, deadline)

    def looks(part: Sequence[Source]) -> list[Row]:
        return [look(source) for source in part]

    with captured_warnings() as lines:
        # A few at a time: handing over each by itself takes as long as a file that is known.
        parts = [block[i : i + 16] for i in range(0, len(block), 16)]
        rows = [row for part in threads.map(looks, parts) for row in part]
        if not lines():
            return rows
        # A decoder warned in this block. Decoding file by file shows at which.
        for i, source in enumerate(block):
            if rows[i].reason is None and rows[i].sha256 is not None:
                _full_look(source, None, rules, value_range, None)
                if complaint := lines():
                    why = f"{COMPLAINT}{complaint[0]}; replace it"
                    rows[i] = rows[i]._replace(reason=why)
    return rows


def _full_look(
    source: Source,
    known: Row | None,
    rules: str,
    value_range: Range | None,
    deadline: float | None,
) -> Row:
    row = Row(str(source), rules)

    def look() -> str | None:
        nonlocal row
        size, *_ = stamp = status(source)
        same = known and known.rules == rules and Stamp(*known[2:5]) == stamp  # type: ignore[arg-type]
        if known and same and (known.sha256 or known.reason or deadline is not None):
            row = known._replace(changed=False)
            return known.reason
        row = row._replace(**stamp._asdict())
        if deadline is not None and time.monotonic() > deadline:
            return None
        if wrong := wrong_size(size):
            return wrong
        found = content(source)
        digest = hashlib.sha256(found).hexdigest()
        row = row._replace(
            sha256=digest, changed=bool(known and known.sha256 not in (None, digest))
        )
        with Image.open(BytesIO(found), formats=FORMATS) as image:
            row = row._replace(width=image.width, height=image.height, mode=image.mode)
            if wrong := unfit(image, value_range) or missing_end(image, BytesIO(found), size):
                return wrong
            with _one_large if image.width * image.height > LARGE else nullcontext():
                width, height = _decoded_size(image, found, value_range)
        row = row._replace(width=width, height=height)
        return None

    return row._replace(reason=why) if (why := reason(look)) else row


def _decoded_size(image: Image.Image, found: bytes, value_range: Range | None) -> tuple[int, int]:
    """Decode an image in full, by the decoder that training uses and that complains aloud."""
    if image.format in ("JPEG", "MPO"):
        with suppress(RuntimeError):  # Pillow has the last word
            height, width = jpeg_pixels(found).shape[1:]
            return (height, width) if orientation(image) > 4 else (width, height)
    size = decode(BytesIO(found), value_range).size
    for part in jpegs_within(image, found):
        with suppress(Exception), Image.open(BytesIO(part), formats=("JPEG",)) as inner:
            if inner.width * inner.height <= MAX_PIXELS:  # it need not be as the TIFF says
                jpeg_pixels(part)
    return size


def _manifest(cache: Path | None) -> dict[str, Row]:
    """Return the rows of an earlier survey by path; none if the manifest is absent or damaged."""
    import pyarrow.parquet as pq

    if cache is None or not cache.exists():
        return {}
    with suppress(Exception):
        rows = (Row(**row) for row in pq.read_table(cache).to_pylist())
        return {row.path: row for row in rows}
    return {}


def _frame(rows: Iterable[Row]) -> "pd.DataFrame":
    import pandas as pd

    whole = dict.fromkeys(("size", "mtime_ns", "ctime_ns", "width", "height"), "Int64")
    frame = pd.DataFrame(list(rows), columns=Row._fields, dtype=object)  # None stays None
    return frame.astype({**whole, "changed": bool})


def _write_manifest(cache: Path, rows: Iterable[Row]) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    buffer = BytesIO()
    # A path that is no UTF-8 cannot be kept in parquet: such a file is read again each time.
    kept = (row for row in rows if row.path.encode(errors="ignore").decode() == row.path)
    _frame(kept).to_parquet(buffer, index=False)
    files.write_bytes(cache, buffer.getvalue())
