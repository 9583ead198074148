"""Contact sheets: square thumbnails of one size, each with a line of text."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from clipbench.reporting.tables import figures

COLUMNS = 5
SIDE = 192  # pixels of an image on a sheet
LINE = 26  # letters of a file's name that fit below an image


def square(image: Image.Image, side: int) -> Image.Image:
    """Return the centre of an image, ``side`` pixels wide and high, in RGB."""
    edge = min(image.size)
    x, y = (image.width - edge) // 2, (image.height - edge) // 2
    centre = image.convert("RGB").crop((x, y, x + edge, y + edge))
    return centre.resize((side, side), Image.Resampling.LANCZOS)


def contact_sheet(
    path: Path, title: str, images: Sequence[Image.Image], lines: Sequence[tuple[str, str]]
) -> None:
    """Write a PNG of images in rows of five.

    Args:
        path: of the PNG.
        title: above all images, shown to the letter.
        images: best first.
        lines: the text above and below each image.
    """
    plt = figures.pyplot()
    rows = -(-len(images) // COLUMNS)
    size = (1.9 * COLUMNS, 2.25 * rows + 0.5)
    figure, grid = plt.subplots(rows, COLUMNS, figsize=size, layout="constrained", squeeze=False)
    figure.suptitle(title, parse_math=False, wrap=True)
    for axes in grid.flat:
        axes.axis("off")
    for axes, image, (above, below) in zip(grid.flat, images, lines, strict=False):
        axes.imshow(square(image, SIDE))
        axes.set_title(above, fontsize=9, parse_math=False)
        short = below if len(below) <= LINE else "..." + below[3 - LINE :]
        style = {"transform": axes.transAxes, "ha": "center", "va": "top", "fontsize": 7}
        axes.text(0.5, -0.03, short, parse_math=False, **style)
    figures.save(figure, path)
