"""Published numbers, each with its source, and the published sizes of the splits."""

import csv
import functools
import re
from dataclasses import dataclass
from pathlib import Path

from clipbench.core import paths
from clipbench.core.errors import UserError
from clipbench.results.evidence import Where

_COLUMNS = ("file", "source", "model", "pretrained", "dataset", "split", "metric", "protocol")
MARK = "\N{DAGGER}"  # marks a number that is quoted by another work


@dataclass(frozen=True)
class Published:
    """A number as it was printed.

    Attributes:
        text: the number, such as ``85.7``, ``48.8 (2.5)`` or ``<5``.
        source: who published it.
        citation: where it was read.
        firsthand: whether it was read there, and not in a work that quotes it.
    """

    text: str
    source: str
    citation: str
    firsthand: bool

    @property
    def number(self) -> float | None:
        """The number in percent; None if the text is not exact, as with ``~30``."""
        found = re.fullmatch(r"(-?\d+(?:\.\d+)?)(?: \([\d.]+\))?", self.text)
        return float(found[1]) if found else None

    @property
    def shown(self) -> str:
        """The text, marked if it is not firsthand."""
        return self.text if self.firsthand else self.text + MARK


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@functools.cache
def _rows(folder: Path) -> list[dict[str, str]]:
    """Return the rows of ``published/*.csv`` with the file's name, without unverified ones."""
    files = sorted((folder / "published").glob("*.csv"))
    found = [{**row, "file": path.stem} for path in files for row in _read(path)]
    return [row for row in found if row["verified"] in ("yes", "secondhand")]


def find(where: Where) -> Published:
    """Return the only number of a selection.

    Args:
        where: the values of its row by column; ``file`` is the name of its CSV.

    Raises:
        UserError: if no row has these values, or several that differ.
    """
    selection = {name: str(value) for name, value in where.items()}
    if unknown := selection.keys() - {*_COLUMNS}:
        raise UserError(
            f"published rows have no {', '.join(unknown)}. They have {', '.join(_COLUMNS)}."
        )
    rows = [row for row in _rows(paths.EXPERIMENTS) if selection.items() <= row.items()]
    if len({row["value"] for row in rows}) != 1:
        few = f"{len(rows)} published rows that differ" if rows else "no published row"
        names = "file, model, dataset, metric, protocol, split"
        raise UserError(f"{few} for {selection}. Name {names}.")
    row = rows[0]
    return Published(row["value"], row["source"], row["citation"], row["verified"] == "yes")


@functools.cache
def _splits(folder: Path, dataset: str, scheme: str) -> dict[str, dict[str, str]]:
    rows = [row for row in _read(folder / "datasets.csv") if row["dataset"] == dataset]
    return {row["split"]: row for row in rows if row["scheme"] in ("", scheme)}


def images(dataset: str, split: str, scheme: str | None = None) -> int | None:
    """Return the published number of images of a split, or None.

    Args:
        dataset: the option typed.
        split: ``train``, ``test``, ...; several joined by ``+``.
        scheme: which of its split schemes, for datasets that have several.
    """
    rows = _splits(paths.EXPERIMENTS, dataset, scheme or "")
    parts = [split] if split in rows else split.split("+")
    known = [int(rows[part]["n"]) for part in parts if part in rows]
    return sum(known) if len(known) == len(parts) else None


CAPTIONS = 5  # per image in Flickr8k, Flickr30k and COCO, except for a few images of COCO


def captions(dataset: str, split: str, scheme: str | None = None) -> int | None:
    """Return the number of captions of a split: the published number, or five per image.

    Args:
        dataset: the option typed.
        split: ``train``, ``test``, ...
        scheme: which of its split schemes, for datasets that have several.
    """
    row = _splits(paths.EXPERIMENTS, dataset, scheme or "").get(split, {})
    if row.get("captions"):
        return int(row["captions"])
    n, known = images(dataset, split, scheme), dataset in ("flickr8k", "flickr30k", "coco")
    return n * CAPTIONS if n and known else None


def evaluated(dataset: str, epochs: float, averages: int = 0, scheme: str | None = None) -> int:
    """Return how many images all evaluations of a run read, where their number is published.

    Val is read before training, after each epoch and for each average; every split is read at the
    end and for each average.

    Args:
        dataset: the option typed.
        epochs: of the run.
        averages: points of WiSE-FT's line.
        scheme: which of its split schemes.
    """
    names = _splits(paths.EXPERIMENTS, dataset, scheme or "")
    splits = [name for name in names if "+" not in name and not name.startswith("train")]
    whole = sum(images(dataset, name, scheme) or 0 for name in splits)
    val = images(dataset, "val", scheme) or 0
    return int(val * (epochs + averages + 1) + whole * (averages + 1))


def classes(dataset: str) -> int | None:
    """Return the published number of classes of a dataset, or None."""
    rows = _splits(paths.EXPERIMENTS, dataset, "")
    found = {row["classes"] for row in rows.values()} - {""}
    return int(found.pop()) if len(found) == 1 else None
