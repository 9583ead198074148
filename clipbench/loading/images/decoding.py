"""From the bytes of a file to what a person sees: RGB, upright, on a white ground."""

import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms, TiffImagePlugin, features
from PIL.ContainerIO import ContainerIO
from PIL.ImageFile import ImageFile
from torchvision.transforms.v2.functional import pil_to_tensor

from clipbench.loading.images.truncation import tiff_parts

# Pillow opens many more, some through outside programs (EPS by Ghostscript): these are enough.
AVIF = bool(features.check("avif"))  # a Pillow that a distribution built may lack it
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", *(("AVIF",) if AVIF else ()))
EXTENSIONS = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jif", ".jfif", ".pjpeg", ".pjp", ".png", ".webp", ".bmp"),
        *(".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm", ".pnm", *((".avif",) if AVIF else ())),
    )
)
MAX_PIXELS = 50_000_000  # 0.2 GB once decoded; Pillow only warns, and of nearly twice as many
MAX_ASPECT = 100  # resizing the short side of a 1 x 5000 strip to 224 would make 250 million pixels

Range = tuple[float, float]

# TIFF's numbers for what its tags tell
ORIENTATION = 274
BITS = 258
PHOTOMETRIC = 262
COMPRESSION = 259
JPEG_TABLES = 347

SIXTEEN_BIT_COLOUR = re.compile(r"RGBA?;16[BLN]|LA;16B")  # as Pillow names it

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Member:
    """An image inside an uncompressed tar file.

    Attributes:
        path: the tar file.
        offset: where the image's bytes begin in it.
        size: how many bytes they are.
        name: the image's name in it.
    """

    path: Path
    offset: int
    size: int
    name: str

    def __str__(self) -> str:
        return f"{self.path}#{self.name}"


Source = Path | Member


@contextmanager
def opened(source: Source, buffering: int = -1) -> Iterator[IO[bytes]]:
    """Open the bytes of an image as a file to read and seek in."""
    if isinstance(source, Path):
        with open(source, "rb", buffering) as file:  # noqa: PTH123, three times as quick
            yield file
    else:
        with source.path.open("rb", buffering) as file:
            yield ContainerIO(file, source.offset, source.size)


def content(source: Source) -> bytes:
    """Return the bytes of an image.

    Raises:
        OSError: if the file cannot be read, or the tar file ends within the image.
    """
    if isinstance(source, Path):
        return source.read_bytes()
    with source.path.open("rb") as file:
        file.seek(source.offset)
        found = file.read(source.size)
    if len(found) < source.size:
        raise OSError(f"cut off: {source.path.name} ends within it; bring the tar file again")
    return found


def read(source: Source, value_range: Range | None = None) -> Image.Image:
    """Read an image as a person sees it, RGB.

    Turned as its EXIF says; transparent pixels on white; CMYK, YCCK, LAB and palettes translated by
    Pillow; 16 bits scaled to 8; of an animation the first frame. Colour profiles are not applied,
    as open_clip, timm and torchvision apply none: a plain photo is what their own loaders read.

    Args:
        source: the file.
        value_range: the values shown black and white, where pixels are floats or 32-bit integers.

    Raises:
        ValueError: if the header shows what is refused before it is decoded, see :func:`unfit`.
        Exception: what the decoder raises on a damaged file: OSError, SyntaxError, struct.error.
    """
    with opened(source) as file:
        return decode(file, value_range)


def pixels(source: Source, value_range: Range | None = None) -> torch.Tensor:
    """Return the pixels of :func:`read`, uint8 (3, H, W), by the fastest decoder that is equal.

    For a plain JPEG that is torchvision's: equal to Pillow in each of 12,000 mutants, and it passed
    nothing that Pillow refuses. PNG is Pillow's: torchvision 0.29's decode_png ends the whole
    process (a segmentation fault) on a PNG with one flipped bit.
    """
    found = content(source)
    if found.startswith(b"\xff\xd8"):
        with Image.open(io.BytesIO(found), formats=("JPEG",)) as image:
            plain = image.mode in ("RGB", "L") and orientation(image) == 1
            if plain and not unfit(image, value_range):
                with suppress(RuntimeError):  # read() has the last word
                    return jpeg_pixels(found)
    tensor: torch.Tensor = pil_to_tensor(decode(io.BytesIO(found), value_range))
    return tensor


def jpeg_pixels(found: bytes) -> torch.Tensor:
    """Decode a JPEG by torchvision to uint8 (3, H, W), not turned.

    libjpeg writes its warnings to file descriptor 2.

    Raises:
        RuntimeError: if it is refused, or torchvision has no decoder any more: 0.29 says that it
            will go.
    """
    try:
        from torchvision.io import ImageReadMode, decode_jpeg
    except ImportError as gone:
        raise RuntimeError("torchvision decodes no JPEG") from gone
    buffer = torch.frombuffer(bytearray(found), dtype=torch.uint8)
    tensor: torch.Tensor = decode_jpeg(buffer, mode=ImageReadMode.RGB)
    return tensor


def jpegs_within(image: Image.Image, found: bytes) -> Iterator[bytes]:
    """Yield the strips or tiles of a JPEG-compressed TIFF, each as a JPEG file."""
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(COMPRESSION) == 7:
        tables = image.tag_v2.get(JPEG_TABLES, b"\xff\xd8\xff\xd9")
        for start, length in tiff_parts(image):
            yield tables[:-2] + found[start + 2 : start + length]


def unfit(image: Image.Image, value_range: Range | None = None) -> str | None:
    """Return why an image is refused by its header, before its pixels take any memory."""
    short, long = sorted(image.size)
    if short * long > MAX_PIXELS:
        return f"{image.width} x {image.height} is over {MAX_PIXELS:,} pixels; make it smaller"
    if long > MAX_ASPECT * short:
        return f"{image.width} x {image.height} is too narrow a strip; crop it"
    if _unscaled(image) and value_range is None:
        kind = "float" if image.mode == "F" else "signed or 32-bit integer"
        return f"{kind} pixels have no set black and white; set dataset.value_range, or save 8 bits"
    return None


def decode(file: IO[bytes], value_range: Range | None = None) -> Image.Image:
    """Decode an open file as :func:`read` does."""
    with Image.open(file, formats=FORMATS) as image:
        return as_read(image, value_range)


def as_read(image: Image.Image, value_range: Range | None = None) -> Image.Image:
    """Return what :func:`read` returns, of an image that Pillow has opened, or that was made.

    Of colour of 16 bits whose pixels are loaded already Pillow has kept the high byte alone.

    Args:
        image: in any mode; it is left as it is, but loaded.
        value_range: see :func:`read`.

    Raises:
        ValueError: as :func:`read` does.
        Exception: likewise.
    """
    if reason := unfit(image, value_range):
        raise ValueError(reason)
    layout = _layout(image)
    both = None
    file = image.fp if isinstance(image, ImageFile) else None
    if file is not None and SIXTEEN_BIT_COLOUR.fullmatch(layout):
        both = _both_bytes(file, layout)  # before load(), which may close the file
    image.load()
    if layout in ("L;2", "L;4") and "transparency" in image.info:
        # Pillow spreads such a PNG's values over 0 to 255, but not the one that is transparent.
        image.info["transparency"] *= 85 if layout == "L;2" else 17
    if both is not None:
        seen = _from_sixteen(image, both)
    elif _unscaled(image) and value_range is not None:
        seen = _ranged(image, value_range)
    elif image.mode == "I" or image.mode.startswith("I;16"):
        seen = _from_sixteen_grey(image)
    elif image.has_transparency_data:
        seen = _on_white(image)
    elif image.mode == "LAB":
        seen = _from_lab(image)
    else:
        seen = image.convert("RGB")
    turn = _TURNS.get(orientation(image))
    upright = seen if turn is None else seen.transpose(turn)
    upright.info = {}  # no word of a turn or of transparency is left, to be followed once more
    return upright


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where it is absent or invalid."""
    try:
        held = image.getexif().get(ORIENTATION, 1)
    except Exception:  # a damaged EXIF block says nothing of the pixels, and viewers pass it over
        return 1
    return held if held in _TURNS else 1


def _unscaled(image: Image.Image) -> bool:
    """Whether nothing in the file says which values are black and white.

    Pillow's mode I is also that of 16-bit PGM (and, in older versions, PNG): there 0 and 65535.
    """
    return image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM"))


def _on_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    if image.format == "BMP" and rgba.getchannel("A").getextrema() == (0, 0):
        return rgba.convert("RGB")  # as browsers do: many programs leave a BMP's alpha empty
    ground = Image.new("RGB", rgba.size, "white")
    ground.paste(rgba, mask=rgba)
    return ground


def _from_lab(image: Image.Image) -> Image.Image:
    # convert("RGB") is LittleCMS too, but by a coarse table: off by up to 6 of 255.
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    exact = ImageCms.Flags.NOOPTIMIZE
    transform = ImageCms.buildTransform(lab, srgb, "LAB", "RGB", flags=exact)
    return transform.apply(image)


def _ranged(image: Image.Image, value_range: Range) -> Image.Image:
    low, high = value_range
    scaled = (np.asarray(image, np.float64) - low) * (255 / (high - low))
    return Image.fromarray(np.rint(np.nan_to_num(scaled).clip(0, 255)).astype(np.uint8)).convert(
        "RGB"
    )


def _from_sixteen_grey(image: Image.Image) -> Image.Image:
    """Grey of 16 (or, in TIFF, 12) bits, each value to the nearest of 8 bits."""
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    bits = tags.get(BITS, (16,))[0]
    values = np.asarray(image).clip(0, 65535)
    shown = np.rint(np.arange(65536) * (255 / (2**bits - 1))).clip(0, 255).astype(np.uint8)
    if tags.get(PHOTOMETRIC) == 0:  # 0 is white
        shown = 255 - shown
    grey = shown[values]
    if "transparency" in image.info:  # PNG: one value is transparent
        grey[values == image.info["transparency"]] = 255
    return Image.fromarray(grey).convert("RGB")


def _layout(image: Image.Image) -> str:
    """Pillow's name for how the pixels of a PNG or TIFF lie in the file; empty for all others.

    Also of one whose pixels are loaded, and of any but the first of a file's images.
    """
    lies = image.tile if isinstance(image, ImageFile) and not image.tell() else ()
    for tile in lies if image.format in ("PNG", "TIFF") else ():
        layout = tile.args[0] if isinstance(tile.args, tuple) else tile.args
        return layout if isinstance(layout, str) else ""
    return ""


def _both_bytes(file: IO[bytes], layout: str) -> NDArray[np.uint16]:
    """16-bit colour in full, (H, W, 2 to 4): the file is decoded for its high and its low bytes.

    Pillow keeps the high byte only. On its own that is within 1/255, but no longer once an alpha
    of which the low byte is lost too is laid on white.
    """
    if layout == "LA;16B":  # two 16-bit values are as long as RGBA, and are filtered alike
        high_l, low_l, high_a, low_a = np.moveaxis(_decoded_as(file, "RGBA"), -1, 0)
        return np.stack([_joined(high_l, low_l), _joined(high_a, low_a)], -1)
    little = layout[-1] == "L" or (layout[-1] == "N" and sys.byteorder == "little")
    first, second = (_decoded_as(file, layout[:-1] + order) for order in "LB")
    # Read as little-endian, the byte Pillow keeps is the second of each two.
    return _joined(first, second) if little else _joined(second, first)


def _joined(high: NDArray[np.uint8], low: NDArray[np.uint8]) -> NDArray[np.uint16]:
    return high.astype(np.uint16) * np.uint16(256) + low


def _decoded_as(file: IO[bytes], layout: str) -> NDArray[np.uint8]:
    file.seek(0)
    with Image.open(file, formats=FORMATS) as image:
        image.tile = [
            tile._replace(args=(layout, *tile.args[1:]) if isinstance(tile.args, tuple) else layout)
            for tile in image.tile
        ]
        return np.asarray(image)


def _from_sixteen(image: Image.Image, values: NDArray[np.uint16]) -> Image.Image:
    shown = values[..., : (3 if values.shape[-1] > 2 else 1)] / np.float32(257)
    if values.shape[-1] != 3:
        shown = 255 + values[..., -1:] / np.float32(65535) * (shown - 255)
    elif "transparency" in image.info:  # PNG: one colour is transparent
        shown[(values == np.array(image.info["transparency"])).all(-1)] = 255
    grey_or_rgb = np.rint(shown).astype(np.uint8)
    return Image.fromarray(np.broadcast_to(grey_or_rgb, (*grey_or_rgb.shape[:2], 3)).copy())
