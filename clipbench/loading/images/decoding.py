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

# Tags of TIFF, and of EXIF
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
    """An image inside an uncompressed tar file: where its bytes begin, and how many there are."""

    path: Path
    offset: int
    size: int
    name: str

    def __str__(self) -> str:
        return f"{self.path}#{self.name}"


Source = Path | Member


def file_of(source: Source) -> Path:
    """Return the file that an image is in."""
    return source if isinstance(source, Path) else source.path


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
    with opened(source) as file:
        data = file.read()
    if isinstance(source, Member) and len(data) < source.size:
        raise OSError(f"cut off: {source.path.name} ends within it; bring the tar file again")
    return data


def read(source: Source, value_range: Range | None = None) -> Image.Image:
    """Read an image as a person sees it, RGB.

    Turned as its EXIF says; transparent pixels on white; CMYK, YCCK, LAB and palettes translated by
    Pillow; 16 bits scaled to 8; of an animation the first frame. Of floats or 32-bit integers
    ``value_range`` gives the values of black and white. Colour profiles are not applied, as
    open_clip, timm and torchvision apply none: a plain photo is what their own loaders read.

    Raises:
        ValueError: if the header alone is a reason to refuse the image, see :func:`unfit`.
        Exception: what the decoder raises on a damaged file: OSError, SyntaxError, struct.error.
    """
    with opened(source) as file:
        return decode(file, value_range)


def pixels(source: Source, value_range: Range | None = None) -> torch.Tensor:
    """Return the pixels of :func:`read`, uint8 (3, H, W), from the fastest equal decoder.

    A plain JPEG goes to torchvision: equal to Pillow on each of 12,000 mutants, it accepted nothing
    that Pillow refuses. A PNG goes to Pillow: torchvision 0.29's decode_png ends the whole process
    (a segmentation fault) on a PNG with one flipped bit.
    """
    data = content(source)
    if data.startswith(b"\xff\xd8"):
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            plain = image.mode in ("RGB", "L") and orientation(image) == 1
            if plain and not unfit(image, value_range):
                with suppress(RuntimeError):  # read() has the last word
                    return jpeg_pixels(data)
    tensor: torch.Tensor = pil_to_tensor(decode(io.BytesIO(data), value_range))
    return tensor


def jpeg_pixels(data: bytes) -> torch.Tensor:
    """Decode a JPEG with torchvision to uint8 (3, H, W), not turned; libjpeg warns on stderr.

    Raises:
        RuntimeError: if it is refused, or a later torchvision has dropped its decoder (0.29 plans
            to).
    """
    try:
        from torchvision.io import ImageReadMode, decode_jpeg
    except ImportError as gone:
        raise RuntimeError("torchvision decodes no JPEG") from gone
    buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    tensor: torch.Tensor = decode_jpeg(buffer, mode=ImageReadMode.RGB)
    return tensor


def jpegs_within(image: Image.Image, data: bytes) -> Iterator[bytes]:
    """Yield the strips or tiles of a JPEG-compressed TIFF, each as a JPEG file."""
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(COMPRESSION) == 7:
        tables = image.tag_v2.get(JPEG_TABLES, b"\xff\xd8\xff\xd9")
        for start, length in tiff_parts(image):
            yield tables[:-2] + data[start + 2 : start + length]


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
    """Load an image that Pillow has opened, or that was made, and return it as :func:`read` does.

    If 16-bit colour is loaded already, Pillow has kept its high byte only.
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
        rgb = _from_sixteen(image, both)
    elif _unscaled(image) and value_range is not None:
        rgb = _ranged(image, value_range)
    elif image.mode == "I" or image.mode.startswith("I;16"):
        rgb = _from_sixteen_grey(image)
    elif image.has_transparency_data:
        rgb = _on_white(image)
    elif image.mode == "LAB":
        rgb = _from_lab(image)
    else:
        rgb = image.convert("RGB")
    turn = _TURNS.get(orientation(image))
    upright = rgb if turn is None else rgb.transpose(turn)
    upright.info = {}  # else a turn or a transparency could be applied once more
    return upright


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where it is absent or invalid."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # a damaged EXIF block says nothing about the pixels; viewers ignore it
        return 1
    return value if value in _TURNS else 1


def _unscaled(image: Image.Image) -> bool:
    """Return whether nothing in the file says which values are black and white.

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
    scaled = np.nan_to_num((np.asarray(image, np.float64) - low) * (255 / (high - low)))
    return Image.fromarray(np.rint(scaled.clip(0, 255)).astype(np.uint8)).convert("RGB")


def _from_sixteen_grey(image: Image.Image) -> Image.Image:
    """Scale grey of 16 (or, in TIFF, 12) bits, each value to the nearest of 8 bits."""
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    bits = tags.get(BITS, (16,))[0]
    values = np.asarray(image).clip(0, 65535)
    table = np.rint(np.arange(65536) * (255 / (2**bits - 1))).clip(0, 255).astype(np.uint8)
    if tags.get(PHOTOMETRIC) == 0:  # 0 is white
        table = 255 - table
    grey = table[values]
    if "transparency" in image.info:  # PNG: one value is transparent
        grey[values == image.info["transparency"]] = 255
    return Image.fromarray(grey).convert("RGB")


def _layout(image: Image.Image) -> str:
    """Return Pillow's name for the pixels in a PNG or TIFF; "" for others or once loaded.

    It is also "" for any but the first of a file's images.
    """
    if not isinstance(image, ImageFile) or image.format not in ("PNG", "TIFF"):
        return ""
    if image.tell() or not image.tile:
        return ""
    args = image.tile[0].args
    layout = args[0] if isinstance(args, tuple) else args
    return layout if isinstance(layout, str) else ""


def _both_bytes(file: IO[bytes], layout: str) -> NDArray[np.uint16]:
    """Decode 16-bit colour twice, for its high and its low bytes, to (H, W, 2 to 4).

    Pillow keeps the high byte only. That is within 1/255, but no longer once an alpha that has lost
    its low byte too is blended with white.
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
    colour = values[..., : (3 if values.shape[-1] > 2 else 1)] / np.float32(257)
    if values.shape[-1] != 3:
        colour = 255 + values[..., -1:] / np.float32(65535) * (colour - 255)
    elif "transparency" in image.info:  # PNG: one colour is transparent
        colour[(values == np.array(image.info["transparency"])).all(-1)] = 255
    grey_or_rgb = np.rint(colour).astype(np.uint8)
    return Image.fromarray(np.broadcast_to(grey_or_rgb, (*grey_or_rgb.shape[:2], 3)).copy())
