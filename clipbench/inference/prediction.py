"""The predictions of a fine-tuned classifier, also for images that cannot be read."""

import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from clipbench.core import files, spreadsheet
from clipbench.core.config import compose
from clipbench.core.config.instantiate import build
from clipbench.core.config.option_files import Config
from clipbench.core.errors import UserError
from clipbench.loading.class_names import class_of
from clipbench.loading.dataset import ImageDataset, collate
from clipbench.loading.images.contents import faults
from clipbench.loading.loaders import refuse_small_shared_memory
from clipbench.loading.readers.image_files import loose
from clipbench.loading.samplers import Key
from clipbench.loading.split import Split
from clipbench.metrics import classification
from clipbench.models.base import Classifier
from clipbench.results.record import RunRecord
from clipbench.transforms.preprocess import Preprocess, View


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image.

    Attributes:
        index: its position in the split.
        classes: the most probable, best first; empty if the image cannot be read.
        probabilities: of these classes.
        error: why the image cannot be read.
    """

    index: int
    classes: tuple[int, ...] = ()
    probabilities: tuple[float, ...] = ()
    error: str | None = None


class _Readable(ImageDataset):
    """Rows of images; of an unreadable one the reason."""

    def __init__(self, split: Split, *args: Any, **reading: Any) -> None:
        super().__init__(split, *args, **reading)
        by_source = faults(split.sources, reading.get("value_range"))
        self.faults = {i: by_source[s] for i, s in enumerate(split.sources) if s in by_source}

    def __getitem__(self, key: int | Key) -> dict[str, Any]:
        assert isinstance(key, int)
        if key in self.faults:
            return {"index": key, "error": self.faults[key]}
        try:
            return super().__getitem__(key)
        except UserError as bad:
            return {"index": key, "error": str(bad)}


def _apart(rows: list[dict[str, Any]]) -> tuple[dict[str, Any] | None, list[Prediction]]:
    """Return a batch of the rows that can be read, and a prediction with an error of the others."""
    bad = [Prediction(row["index"], error=row["error"]) for row in rows if "error" in row]
    good = [row for row in rows if "error" not in row]
    return (collate(good) if good else None), bad


def batches(
    split: Split, preprocess: Preprocess, *, batch_size: int = 64, workers: int = 0, **reading: Any
) -> Iterable[tuple[dict[str, Any] | None, list[Prediction]]]:
    """Return batches of a split, each with the images that were left out of it and why.

    ``workers`` processes decode; ``reading`` is ``decoder`` and ``value_range``, see
    :class:`ImageDataset`.
    """
    refuse_small_shared_memory(workers, batch_size, preprocess.size)
    images = _Readable(split, View(preprocess), **reading)
    return DataLoader(images, batch_size, num_workers=workers, collate_fn=_apart)


@torch.inference_mode()
def predictions(
    classifier: Classifier,
    split: Split,
    *,
    top: int = 1,
    temperature: float = 1.0,
    **reading: Any,
) -> Iterator[Prediction]:
    """Yield the most probable classes of each image, in the order of the split within a batch.

    Only classes of the split's ``among`` are predicted, and its labels are not used. The
    temperature does not change the order; ``reading`` is as for :func:`batches`.
    """
    device = next(classifier.parameters()).device
    for batch, rows in batches(split, classifier.tower.preprocess, **reading):
        if batch is not None:
            scores = classifier(batch["image"].to(device)).float().cpu()
            scores = classification.among(scores, split.among)
            rows += _best(scores, batch["index"], top, temperature)
        yield from sorted(rows, key=lambda row: row.index)


def device(name: str | None) -> torch.device:
    """Return the device of a name; by default a GPU if there is one.

    Raises:
        UserError: if there is no such device.
    """
    try:
        chosen = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise UserError(f"device={name} is not available. Use cpu, or leave it out.") from None
    return chosen


def _best(scores: Tensor, index: Tensor, top: int, temperature: float) -> Iterator[Prediction]:
    probabilities = (scores / temperature).softmax(1)
    # By score, the lowest class first on ties, as everywhere: topk() does not define an order.
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :top]
    values = probabilities.gather(1, order).tolist()
    for i, classes, shares in zip(index.tolist(), order.tolist(), values, strict=True):
        yield Prediction(i, tuple(classes), tuple(shares))


@dataclass(frozen=True)
class Images:
    """The images to predict.

    Attributes:
        name: of the folder or split.
        labels: of each image the name of its class, None if that is not a class of the run.
        data: config of the dataset, which determines how images are read.
        sought: where labels were looked for, for a message.
    """

    name: str
    split: Split
    labels: Sequence[str | None]
    data: Config
    sought: str


def of_path(where: Path, record: RunRecord, classes: Sequence[str]) -> Images:
    """Return the images of a path; a folder with the name of a class is their label."""
    split = loose(where)
    home = where.resolve().name
    labels_of = classes if where.is_dir() else ()
    folders = [Path(i).parent.name or home for i in split.ids]
    by_folder = {folder: class_of(folder, labels_of) for folder in set(folders)}
    labels = [by_folder[folder] for folder in folders]
    sought = "the folder that an image lies in is called"
    return Images(home, split, labels, record.config["dataset"], sought)


def of_split(name: str, record: RunRecord, overrides: list[str], classes: Sequence[str]) -> Images:
    """Return a split of the run's dataset as the overrides change it, or of the one they name."""
    if any(word.startswith("dataset=") for word in overrides):
        node = compose.compose(*overrides)["dataset"]
    else:
        node = compose.changed(record.config["dataset"], "dataset", overrides)
    data = build(node)
    data.prepare(record.seed)
    if name not in data.splits:
        raise UserError(f"split={name} does not exist; there are {', '.join(data.splits)}")
    split, names = data.splits[name], list(getattr(data, "classes", []))
    if names != list(classes):  # its numbers are not the run's
        split = replace(split, among=None)
    name_of = {label: text for label, text in enumerate(names) if text in set(classes)}
    folder = Path(str(node.get("root") or "")).name or record.dataset
    labels = [name_of.get(label) for label in split.labels.tolist()]
    return Images(f"{folder}-{name}", split, labels, node, f"a class of {name} is called")


def write(place: Path, images: Images, rows: Sequence[Prediction], classes: Sequence[str]) -> None:
    """Write the CSV: file, prediction, probability, the next ones, label, error."""
    top = max((len(row.classes) for row in rows), default=1)
    more = [f"{what}_{k}" for k in range(2, top + 1) for what in ("prediction", "probability")]
    labelled, bad = any(images.labels), any(row.error for row in rows)
    columns = ["file", "prediction", "probability", *more]
    columns += ["label"] * labelled + ["error"] * bad

    def cells(row: Prediction) -> list[Any]:
        best: list[Any] = [None] * (2 * top)
        best[: 2 * len(row.classes) : 2] = [classes[label] for label in row.classes]
        best[1 : 2 * len(row.classes) : 2] = [f"{p:.6f}" for p in row.probabilities]
        label = [images.labels[row.index]] * labelled
        return [images.split.ids[row.index], *best, *label, *[row.error] * bad]

    text = sys.stdout if str(place) == "-" else io.StringIO(newline="")
    spreadsheet.write(text, columns, map(cells, rows))
    if isinstance(text, io.StringIO):
        place.parent.mkdir(parents=True, exist_ok=True)
        files.write_bytes(place, text.getvalue().encode("utf-8", "surrogateescape"))
