"""Pictures small: squares of one size, and sheets of them with a line below each."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from clipbench.reporting.tables.figures import save

COLUMNS = 5
SIDE = 192  # of a picture on a sheet, in pixels
LINE = 26  # letters of a file's name that fit below it


def square(picture: Image.Image, side: int) -> Image.Image:
    """The middle of a picture, ``side`` pixels wide and high, in RGB."""
    edge = min(picture.size)
    left, top = (picture.width - edge) // 2, (picture.height - edge) // 2
    middle = picture.convert("RGB").crop((left, top, left + edge, top + edge))
    return middle.resize((side, side), Image.Resampling.LANCZOS)


def contact_sheet(
    path: Path, title: str, pictures: Sequence[Image.Image], lines: Sequence[tuple[str, str]]
) -> None:
    """Write a PNG of pictures in rows of five.

    Args:
        path: of the PNG.
        title: above all of them, shown to the letter.
        pictures: best first.
        lines: what stands above and below each.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows = -(-len(pictures) // COLUMNS)
    size = (1.9 * COLUMNS, 2.25 * rows + 0.5)
    figure, grid = plt.subplots(rows, COLUMNS, figsize=size, layout="constrained", squeeze=False)
    figure.suptitle(title, parse_math=False, wrap=True)
    for axes in grid.flat:
        axes.axis("off")
    for axes, picture, (above, below) in zip(grid.flat, pictures, lines, strict=False):
        axes.imshow(square(picture, SIDE))
        axes.set_title(above, fontsize=9, parse_math=False)
        short = below if len(below) <= LINE else "..." + below[3 - LINE :]
        axes.text(
            *(0.5, -0.03, short),
            **{"transform": axes.transAxes, "ha": "center", "va": "top"},
            fontsize=7,
            parse_math=False,
        )
    save(figure, path)
