"""Whether a file is a picture that decodes whole, found out before training, not amid it."""

import os
import re
import stat
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from clipbench.progress import track

# Pillow opens many more, some through outside programs (EPS by Ghostscript): these are enough.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
EXTENSIONS = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm"))
MAX_BYTES = 2**30
MAX_PIXELS = 89_478_485  # Pillow's own limit, which it only warns of; 0.3 GB once decoded
MAX_ASPECT = 100  # resizing the short side of a 1 x 5000 strip to 224 would make 250 million pixels
LONG_WORK = 500  # files; above this a progress bar is shown


@dataclass(frozen=True)
class Member:
    """A picture inside an uncompressed tar."""

    path: Path
    offset: int
    size: int
    name: str

    def __str__(self) -> str:
        return f"{self.path}#{self.name}"


Source = Path | Member

_known: dict[tuple[Path, int, int], str | None] = {}


def read(path: Source, value_range: tuple[float, float] | None = None) -> Image.Image:
    """The picture in a file (of an animation the first frame), decoded, the file closed."""
    with Image.open(path, formats=FORMATS) as image:
        image.load()
    return image


def fault(path: Path) -> str | None:
    """Why a file is not a picture that can be trained on, or None if it is one.

    The file is decoded in full, once in a process as long as its size and time stay the same.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return "not a regular file"
        if status.st_size == 0:
            return "empty, 0 bytes"
        if status.st_size > MAX_BYTES:
            return f"larger than {MAX_BYTES >> 20} MiB"
        key = (path, status.st_size, status.st_mtime_ns)
        if key not in _known:
            _known[key] = _fault_within(path.read_bytes())
        return _known[key]
    except OSError as error:
        return error.strerror or str(error)


def faults(
    paths: Sequence[Source], value_range: tuple[float, float] | None = None
) -> dict[Source, str]:
    """The reason for each file that :func:`fault` finds one for, in the order given."""
    files: Iterable[tuple[Path, str | None]] = _each(paths)
    if len(paths) > LONG_WORK:
        files = track(files, f"checking {len(paths):,} pictures", total=len(paths))
    with warnings.catch_warnings():
        # Without a path a warning helps nobody. This one alone means that pixels are missing.
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message="Truncated File Read")
        return {path: reason for path, reason in files if reason is not None}


def _each(paths: Sequence[Path]) -> Iterator[tuple[Path, str | None]]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    remaining = iter(dict.fromkeys(paths))
    with ThreadPoolExecutor(min(cores or 1, 16)) as pool:  # Pillow decodes without the GIL
        while block := list(islice(remaining, 4096)):  # a future each, so not a million at once
            yield from zip(block, pool.map(fault, block), strict=True)


def _fault_within(content: bytes) -> str | None:
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            if reason := _unfit(image) or _unfinished(image.format, content):
                return reason
            image.load()
            if image.mode != "RGB":
                image.convert("RGB")
    except UnidentifiedImageError:
        return "not a picture (JPEG, PNG, WebP, BMP, TIFF, GIF or PPM), or its header is damaged"
    except Exception as error:  # decoders have raised SyntaxError, struct.error, ...
        return str(error) or type(error).__name__
    return None


def _unfit(image: Image.Image) -> str | None:
    """What the header alone tells, before any memory is taken for the pixels."""
    short, long = sorted(image.size)
    if short * long > MAX_PIXELS:
        return f"{image.width} x {image.height} is over {MAX_PIXELS:,} pixels; make it smaller"
    if long > MAX_ASPECT * short:
        return f"{image.width} x {image.height} is too narrow a strip; crop it"
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return f"more than 8 bits a pixel (mode {image.mode}) would turn white or black; save as 8"
    return None


# In JPEG's coded data 0xff stands before 0x00, a restart marker or a fill byte; else a marker.
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])", re.DOTALL)


def _unfinished(kind: str | None, content: bytes) -> str | None:
    """Whether the end of the file is missing, which decoders may pass over in silence."""
    if kind in ("JPEG", "MPO") and not _jpeg_ends(content):
        return "cut off: the JPEG end marker is missing"
    if kind == "PNG" and not _png_ends(content):
        return "cut off: the PNG end chunk is missing"
    if kind == "WEBP" and int.from_bytes(content[4:8], "little") + 8 > len(content):
        return "cut off: shorter than its WebP header says"
    return None


def _jpeg_ends(content: bytes) -> bool:
    at = 2
    while match := _MARKER.search(content, at):
        at = match.end()
        if match[1] == b"\xd9":
            return True
        if match[1] not in (b"\xd8", b"\x01"):  # all others are followed by their length
            at += int.from_bytes(content[at : at + 2], "big")
    return False


def _png_ends(content: bytes) -> bool:
    at = 8
    while at + 12 <= len(content):  # length, type, data, checksum
        if content[at + 4 : at + 8] == b"IEND":
            return content[at : at + 12] == b"\0\0\0\0IEND\xaeB`\x82"
        at += 12 + int.from_bytes(content[at : at + 4], "big")
    return False
