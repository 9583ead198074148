"""Whether the end of an image's file is there, which decoders may pass over in silence."""

import re
from collections.abc import Callable
from typing import IO, Any

from PIL.ImageFile import ImageFile

# In JPEG's coded data 0xff comes before 0x00, a restart marker or a fill byte; else a marker.
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])", re.DOTALL)
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


def missing_end(image: ImageFile, file: IO[bytes], size: int) -> str | None:
    """Return what is missing at the end of a file of ``size`` bytes, or None if nothing is.

    The image is opened from the file, but not decoded. Only the last bytes are read, unless they
    are not the end marker: some cameras write more after it, and then it is searched for.
    """
    checks: dict[str | None, Callable[[Any, IO[bytes], int], str | None]]
    checks = {"JPEG": _jpeg, "MPO": _jpeg, "PNG": _png, "WEBP": _webp, "GIF": _gif, "BMP": _bmp}
    checks |= {"TIFF": _tiff, "PPM": _ppm, "AVIF": _avif}
    fault = checks[image.format](image, file, size)
    return f"cut off: {fault}; bring the file again" if fault else None


def _at(file: IO[bytes], start: int, length: int = -1) -> bytes:
    file.seek(max(start, 0))
    return file.read(length)


def _jpeg(_: ImageFile, file: IO[bytes], size: int) -> str | None:
    # That the header could be read says that the marker is not the end of a thumbnail within it.
    if _at(file, size - 2) == b"\xff\xd9":
        return None
    content, at = _at(file, 0), 2
    while match := _MARKER.search(content, at):
        at = match.end()
        if match[1] == b"\xd9":
            return None
        if match[1] not in (b"\xd8", b"\x01"):  # all others are followed by their length
            at += int.from_bytes(content[at : at + 2], "big")
    return "the JPEG end marker is missing"


def _png(_: ImageFile, file: IO[bytes], size: int) -> str | None:
    if _at(file, size - 12) == _PNG_END:
        return None
    at = 8
    while len(head := _at(file, at, 12)) == 12:  # length, type, data, checksum
        if head[4:8] == b"IEND":
            return None if head == _PNG_END else "the PNG end chunk is damaged"
        at += 12 + int.from_bytes(head[:4], "big")
    return "the PNG end chunk is missing"


def _webp(_: ImageFile, file: IO[bytes], size: int) -> str | None:
    promised = int.from_bytes(_at(file, 4, 4), "little") + 8
    return "shorter than its WebP header says" if promised > size else None


def _gif(_: ImageFile, file: IO[bytes], size: int) -> str | None:
    header = _at(file, 0, 13)
    file.seek(_colours(header[10]), 1)
    while kind := file.read(1):
        if kind == b";":
            return None
        if kind == b"!":
            file.seek(1, 1)
        elif kind == b"," and len(head := file.read(9)) == 9:
            file.seek(_colours(head[8]) + 1, 1)
        elif kind == b"\0":  # stray bytes between blocks, which decoders pass over
            continue
        else:
            break
        while length := file.read(1)[:1].strip(b"\0"):
            file.seek(length[0], 1)
    return "the GIF trailer is missing"


def _colours(flags: int) -> int:
    """Return the size in bytes of the colour table that GIF's flags announce."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _bmp(image: ImageFile, file: IO[bytes], size: int) -> str | None:
    tile = image.tile[0]
    if tile.codec_name == "raw" and isinstance(tile.args, tuple):
        promised = tile.offset + int(tile.args[1]) * image.height
    else:  # run lengths: only the header knows, and not always
        promised = int.from_bytes(_at(file, 2, 4), "little")
    return "shorter than its BMP header says" if promised > size else None


def _tiff(image: Any, _: IO[bytes], size: int) -> str | None:
    end = max((start + length for start, length in tiff_parts(image)), default=0)
    return "a part of the TIFF lies behind its end" if end > size else None


def tiff_parts(image: Any) -> list[tuple[int, int]]:
    """Return the offset and the length in bytes of each strip or tile of a TIFF."""
    tags = image.tag_v2
    starts, lengths = (324, 325) if 324 in tags else (273, 279)  # of tiles, of strips
    return list(zip(tags.get(starts, ()), tags.get(lengths, ()), strict=False))


def _ppm(image: ImageFile, _: IO[bytes], size: int) -> str | None:
    tile = image.tile[0]
    if tile.codec_name == "ppm_plain":  # numbers in letters: only decoding tells
        return None
    bits = {"1": 1, "F": 32, "I": 16}.get(image.mode, 8 * len(image.getbands()))
    if tile.codec_name == "ppm" and isinstance(tile.args, tuple):
        bits = len(image.getbands()) * (16 if int(tile.args[1]) > 255 else 8)
    promised = tile.offset + (image.width * bits + 7) // 8 * image.height
    return "shorter than its PPM header says" if promised > size else None


def _avif(_: ImageFile, file: IO[bytes], size: int) -> str | None:
    at = 0
    while len(head := _at(file, at, 16)) >= 8:  # boxes: length, type, and for 1 a long length
        length = int.from_bytes(head[:4], "big")
        if length == 0:  # up to the end, wherever that is
            return None
        at += int.from_bytes(head[8:16], "big") if length == 1 else max(length, 8)
    return "shorter than its AVIF boxes say" if at > size else None
