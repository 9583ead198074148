"""What a run adds to its TensorBoard events at its end, from its files."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from clipbench.core import spreadsheet
from clipbench.core.errors import UserError
from clipbench.datamodules.base import DataModule
from clipbench.loading.split import Split
from clipbench.metrics import confusion
from clipbench.metrics.confusion import Counts
from clipbench.reporting.tensorboard import boards, hparams, mosaics
from clipbench.results.record import RunRecord

WORST, MISTAKES = 20, 18  # how many classes and images are shown
MOST = 360  # classes of which the whole matrix is drawn, two pixels each


def add(folder: Path, record: RunRecord, data: DataModule) -> str | None:
    """Add hyperparameters, metrics and images to the events of a run, if it has any.

    Returns:
        The error, if there is one: a figure in a dashboard is not worth losing a run.
    """
    events = sorted(folder.glob("events.out.tfevents.*"))
    if not events:
        return None
    try:
        step = record.selection.epoch or 0
        boards.append(events[-1], _summaries(folder, record, data.splits), step)
    except Exception as error:
        return f"TensorBoard lacks the end of this run: {type(error).__name__}: {error}"
    return None


def _summaries(folder: Path, record: RunRecord, splits: Mapping[str, Split]) -> list[Any]:
    summaries = list(hparams.session(record))
    if (folder / "predictions.parquet").is_file():
        summaries += _classes(folder, "test" if "test" in splits else "val", splits)
    if (folder / "alpha_curve.png").is_file():
        summaries.append(boards.png("alpha curve", (folder / "alpha_curve.png").read_bytes()))
    return summaries


def _classes(folder: Path, name: str, splits: Mapping[str, Split]) -> Iterator[Any]:
    """Yield the confusion matrix, the worst classes, and the most confident mistakes."""
    table = spreadsheet.read(folder / "per_class.csv", ["class", "confused_with"])
    table = table[table["split"] == name]
    matrix = confusion.read(folder / "confusion.npz")[name]
    yield _confusion(matrix, table["class"].tolist(), name)
    table = table[table["n"] > 0].astype({"recall": float})
    worst = table.sort_values("recall", kind="stable").head(WORST)
    rows = [
        (row["class"], f"{row['recall']:.3f}", row["n"], row["confused_with"])
        for row in worst.to_dict("records")
    ]
    header = ("class", "recall", "images", "most taken for")
    yield boards.table(f"worst classes, {name}", header, rows)
    classes = dict(zip(table["label"], table["class"], strict=True))
    yield from _mistakes(folder, name, splits[name], classes)


def _confusion(matrix: Counts, classes: Sequence[str], name: str) -> Any:
    """Return the confusion matrix; beyond :data:`MOST` classes, that of the most errors."""
    if len(classes) <= MOST:
        return boards.image(f"confusion, {name}", mosaics.confusion(matrix.toarray(), classes))
    worst = confusion.most_confused(matrix, mosaics.NAMED)
    counts = matrix[worst][:, worst].toarray()
    title = f"confusion, {name}, {len(worst)} of {len(classes):,} classes with the most errors"
    names = [classes[label] for label in worst]
    return boards.image(title, mosaics.confusion(counts, names, matrix.sum(1)[worst]))


def _mistakes(folder: Path, name: str, split: Split, classes: Mapping[int, str]) -> Iterator[Any]:
    rows = pd.read_parquet(folder / "predictions.parquet", filters=[("split", "==", name)])
    wrong = rows[rows["prediction"] != rows["label"]]
    wrong = wrong.sort_values("probability", ascending=False, kind="stable")
    place = {id_: i for i, id_ in enumerate(split.ids)}
    images, lines = [], []
    for row in wrong.head(MISTAKES).to_dict("records"):
        try:
            images.append(split.image(place[row["id"]]))
        except UserError:  # gone since it was read
            continue
        predicted = classes.get(row["prediction"], str(row["prediction"]))
        lines.append((classes[row["label"]], f"as {predicted}", f"{row['probability']:.0%} sure"))
    if images:
        yield boards.image(f"surest mistakes, {name}", mosaics.grid(images, lines))
