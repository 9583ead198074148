"""What a tuned model says of pictures, as CSV: a row for each, the most probable classes first.

Run: python -m clipbench.predict run=DIR images=PATH [out=FILE.csv]
     python -m clipbench.predict run=DIR split=test_ood [dataset=NAME] [dataset.key=value ...]

images       a picture, a folder (with those below it), a tar, or shards{000..010}.tar
split        one of the run's own dataset, or of another; dataset.key=value changes that one value
out          default: predictions/ under the outputs root; out=- prints
top          how many classes a row has, default 5
weights      model (default), or merged: the best average of start and end of a run with alphas
temperature  of the probabilities: that of the run, fitted on val (1 for merged)
batch_size   default 64; workers (0) decode beside, device= takes cpu, cuda or mps

Where folders bear names of classes, or the split has labels, there is a column `label`, and the
accuracy is printed; where nothing bears such a name, that is printed. A picture that cannot be read
has a row that says why, and the exit code is 1. A name that a spreadsheet would take for a formula
(=, +, -, @ first) has an apostrophe before it.
"""

import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipbench.core import cli, paths, spreadsheet
from clipbench.core.config import compose
from clipbench.core.console import track
from clipbench.core.errors import Refused
from clipbench.metrics.intervals import wilson
from clipbench.results import store
from clipbench.sweeps import summary

if TYPE_CHECKING:
    from clipbench.inference.prediction import Said
    from clipbench.loading.split import Split

KEYS = (
    *("run", "images", "out", "dataset", "split", "top", "weights", "temperature"),
    *("batch_size", "workers", "device"),
)


@dataclass(frozen=True)
class Asked:
    """What is to be predicted.

    Attributes:
        name: what it was called.
        split: the images.
        labels: of each the name of its class, where it has one of the run's.
        data: config of the dataset, which says how images are read.
        sought: where a label would be.
    """

    name: str
    split: "Split"
    labels: Sequence[str | None]
    data: Mapping[str, Any]
    sought: str


def main() -> None:
    """Predict, write, and say how it went."""
    cli.opened(__doc__ or "", predict)


def predict(words: list[str]) -> int:
    """Do what the command line asks; 1 if a picture could not be read."""
    data = [word for word in words if word.startswith("dataset")]
    asked = cli.given([w for w in words if not w.startswith("dataset.")], KEYS)
    run, record = cli.completed(asked)
    if ("images" in asked) == ("split" in asked):
        raise Refused("give either images=PATH, or split=NAME of a dataset, such as split=test")
    stem = cli.choice(asked, "weights", ("model", "merged"))
    options: dict[str, Any] = {
        "top": cli.number(asked, "top", 5),
        "batch_size": cli.number(asked, "batch_size", 64),
        "workers": cli.number(asked, "workers", 0, least=0),
        "temperature": _temperature(asked, record, stem),
    }
    place = _place(asked)

    from clipbench.inference import prediction, saved_model  # torch

    if not (classes := saved_model.classes(run, stem)):
        raise Refused(f"{run} was tuned on captions and has no classes; use clipbench.search")
    if "images" in asked:
        pictures = _images(paths.expanded(asked["images"]), record, classes)
    else:
        pictures = _split(asked["split"], record, data, classes)
    classifier = saved_model.classifier(run, stem).to(prediction.device(asked.get("device")))
    reading = {k: pictures.data[k] for k in ("decoder", "value_range") if k in pictures.data}
    found = prediction.said(classifier, pictures.split, **options, **reading)
    many = len(pictures.split)
    rows = list(track(found, f"predicting {many:,} pictures", many))
    place = place or paths.outputs() / "predictions" / f"{run.resolve().name}-{pictures.name}.csv"
    _write(place, pictures, rows, classes)
    return _tell(place, pictures, rows, classes)


def _place(asked: cli.Given) -> Path | None:
    """Where to write; None for the usual place.

    Raises:
        Refused: for a file that would be no CSV, or in no folder.
    """
    if "out" not in asked:
        return None
    place = Path(asked["out"])
    if asked["out"] != "-" and place.suffix.lower() != ".csv":
        raise Refused(f"out={place} is no .csv; name one, or out=- to print")
    if not place.parent.is_dir():
        raise Refused(f"out={place}: there is no folder {place.parent}; make it first")
    return place


def _temperature(asked: cli.Given, record: dict[str, Any], stem: str) -> float:
    own = record.get("temperature") if stem == "model" else None
    try:
        value = float(asked.get("temperature", own or 1))
    except ValueError:
        value = 0
    if not 0 < value < float("inf"):
        raise Refused(
            f"temperature={asked['temperature']} is no number above 0; 1 leaves logits be"
        )
    return value


def _images(where: Path, record: dict[str, Any], classes: Sequence[str]) -> Asked:
    """Pictures of a place; a folder that bears a class's name is their label."""
    from clipbench.loading.class_names import class_of
    from clipbench.loading.readers.image_files import loose

    split = loose(where)
    home = where.resolve().name
    known = classes if where.is_dir() else ()
    folders = [Path(i).parent.name or home for i in split.ids]
    by_folder = {folder: class_of(folder, known) for folder in set(folders)}
    labels = [by_folder[folder] for folder in folders]
    sought = "the folder that an image lies in is called"
    return Asked(home, split, labels, record["config"]["dataset"], sought)


def _split(
    name: str, record: dict[str, Any], overrides: list[str], classes: Sequence[str]
) -> Asked:
    """A split of the run's own dataset, changed by the overrides, or of the one they name."""
    from dataclasses import replace

    from clipbench.core.config.instantiate import build

    if any(word.startswith("dataset=") for word in overrides):
        node = compose.compose(*overrides)["dataset"]
    else:
        node = compose.changed(record["config"]["dataset"], "dataset", overrides)
    data = build(node)
    data.prepare(record["seed"])
    if name not in data.splits:
        raise Refused(f"there is no split={name} here; there are {', '.join(data.splits)}")
    split, own = data.splits[name], list(getattr(data, "classes", []))
    if own != list(classes):  # its numbers are not the run's
        split = replace(split, among=None)
    known = {label: text for label, text in enumerate(own) if text in set(classes)}
    folder = Path(str(node.get("root") or "")).name or record["dataset"]
    labels = [known.get(label) for label in split.labels.tolist()]
    return Asked(f"{folder}-{name}", split, labels, node, f"a class of {name} is called")


def _write(place: Path, pictures: Asked, rows: Sequence["Said"], classes: Sequence[str]) -> None:
    """The CSV: file, prediction, probability, the next ones, label, error."""
    top = max((len(row.classes) for row in rows), default=1)
    more = [f"{what}_{k}" for k in range(2, top + 1) for what in ("prediction", "probability")]
    labelled, bad = any(pictures.labels), any(row.error for row in rows)
    columns = ["file", "prediction", "probability", *more]
    columns += ["label"] * labelled + ["error"] * bad

    def cells(row: "Said") -> list[Any]:
        best = zip(row.classes, row.probabilities, strict=True)
        said: list[Any] = [cell for label, p in best for cell in (classes[label], f"{p:.6f}")]
        said += [None] * (2 * top - len(said))
        label = [pictures.labels[row.index]] * labelled
        return [pictures.split.ids[row.index], *said, *label, *[row.error] * bad]

    if str(place) == "-":
        spreadsheet.write(sys.stdout, columns, map(cells, rows))
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO(newline="")
    spreadsheet.write(text, columns, map(cells, rows))
    store.write_bytes(place, text.getvalue().encode("utf-8", "surrogateescape"))


def _tell(place: Path, pictures: Asked, rows: Sequence["Said"], classes: Sequence[str]) -> int:
    """Say where it is, how often it was right, and what could not be read."""
    good = [row for row in rows if row.error is None]
    told = [(pictures.labels[row.index], classes[row.classes[0]]) for row in good]
    lines = [f"{len(good):,} pictures" + (f" in {place}" if str(place) != "-" else "")]
    if labelled := [label == said for label, said in told if label is not None]:
        found = wilson(sum(labelled) / len(labelled), len(labelled))
        lines.append(
            f"accuracy {found.estimate:.4f} ({found.low:.4f} to {found.high:.4f}, Wilson 95 %) "
            f"of {found.n:,} whose class is known"
        )
    if unknown := len(told) - len(labelled):
        few = ", ".join(classes[:3]) + (", ..." if len(classes) > 3 else "")
        lines.append(
            f"{'no accuracy' if not labelled else f'{unknown:,} images are not in it'}: "
            f"{pictures.sought} otherwise than each of the run's {len(classes)} classes ({few})"
        )
    for line in lines:
        print(line, file=sys.stderr)
    bad = [f"{pictures.split.ids[row.index]}: {row.error}" for row in rows if row.error]
    if bad:
        summary.refusal(f"{len(bad)} pictures could not be read:", bad, paths.outputs())
    return 1 if bad else 0


if __name__ == "__main__":
    main()
