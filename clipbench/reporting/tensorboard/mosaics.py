"""Confusion matrices and image grids of a run, drawn by Pillow alone, fast enough for every run."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from clipbench.reporting.contact_sheet import square

NAMED = 40  # classes whose names and counts are written beside the matrix
SIDE, COLUMNS = 112, 6  # pixels of an image in the grid; images in a row
_INK, _FAINT, _LINE = (26, 26, 26), (95, 95, 95), 14


def _cut(text: str, letters: int) -> str:
    return text if len(text) <= letters else f"{text[: letters - 1]}\N{HORIZONTAL ELLIPSIS}"


def confusion(
    counts: NDArray[np.int64], classes: Sequence[str], n: NDArray[np.int64] | None = None
) -> Image.Image:
    """Draw a confusion matrix; a darker cell is a larger share of its row.

    Args:
        counts: (C, C), the true class by row.
        classes: their names, written where there is room.
        n: images of each class, (C,); None if each row of ``counts`` is complete.
    """
    size = len(counts)
    cell = max(2, min(28, 720 // size))
    share = counts / np.maximum(counts.sum(1) if n is None else n, 1)[:, None]
    light, dark = np.array([247, 251, 255.0]), np.array([8, 48, 107.0])
    colours = light + (dark - light) * share[..., None]
    whole = Image.fromarray(colours.round().astype(np.uint8)).resize(
        (size * cell, size * cell), Image.Resampling.NEAREST
    )
    if size > NAMED:
        return whole
    left = 150
    sheet = Image.new("RGB", (left + whole.width + 8, whole.height + left), "white")
    sheet.paste(whole, (left, 0))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for i, name in enumerate(classes):
        middle = i * cell + cell // 2
        draw.text((left - 6, middle), _cut(name, 22), _INK, font, anchor="rm")
        upright = Image.new("RGB", (left, cell), "white")
        ImageDraw.Draw(upright).text((left - 6, cell // 2), _cut(name, 22), _INK, font, anchor="rm")
        turned = upright.rotate(90, expand=True)
        sheet.paste(turned, (left + i * cell, whole.height))
        for j in np.flatnonzero(counts[i]) if cell >= 18 else ():
            ink = "white" if share[i, j] > 0.5 else _INK
            place = (left + int(j) * cell + cell // 2, middle)
            draw.text(place, str(counts[i, j]), ink, font, anchor="mm")
    return sheet


def grid(images: Sequence[Image.Image], lines: Sequence[Sequence[str]]) -> Image.Image:
    """Draw images side by side, each with lines of text below it.

    Args:
        images: in order.
        lines: the text below each image, the same number of lines for all.
    """
    below = _LINE * max(map(len, lines), default=0) + 6
    rows = -(-len(images) // COLUMNS)
    width = min(len(images), COLUMNS) * (SIDE + 8)
    sheet = Image.new("RGB", (width, rows * (SIDE + below)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
    for n, (image, texts) in enumerate(zip(images, lines, strict=True)):
        x, y = n % COLUMNS * (SIDE + 8), n // COLUMNS * (SIDE + below)
        sheet.paste(square(image, SIDE), (x, y))
        for k, line in enumerate(texts):
            place = (x, y + SIDE + 2 + _LINE * k)
            draw.text(place, _cut(line, 23), _FAINT if k else _INK, font)
    return sheet
