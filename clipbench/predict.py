"""Predictions of a fine-tuned model as CSV: a row per image, the most probable classes first.

Run: python -m clipbench.predict run=DIR images=PATH [out=FILE.csv]
     python -m clipbench.predict run=DIR split=test_ood [dataset=NAME] [dataset.key=value ...]

images       an image, a folder (with those below it), a tar, or shards{000..010}.tar
split        one of the run's own dataset, or of another; dataset.key=value changes that one value
out          default: predictions/ under the outputs root; out=- prints it
top          how many classes a row has, default 5
weights      model (default), or merged: the best average of start and end of a run with alphas
temperature  of the probabilities: that of the run, fitted on val (1 for merged)
batch_size   default 64; workers (0) decode beside, device= takes cpu, cuda or mps

If folders have the names of classes, or the split has labels, there is a column `label`, and the
accuracy is printed; if no name matches, that is printed. An image that cannot be read has a row
with the error, and the exit code is 1. A name that a spreadsheet would take for a formula (=, +, -,
@ first) gets an apostrophe before it.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipbench.core import cli, paths
from clipbench.core.console import track
from clipbench.core.errors import UserError
from clipbench.metrics.intervals import wilson
from clipbench.results import store
from clipbench.results.record import RunRecord

if TYPE_CHECKING:
    from clipbench.inference.prediction import Images, Prediction

KEYS = (
    *("run", "images", "out", "dataset", "split", "top", "weights", "temperature"),
    *("batch_size", "workers", "device"),
)


def main() -> None:
    """Predict, write the CSV, and print the accuracy."""
    cli.opened(__doc__ or "", predict)


def predict(words: list[str]) -> int:
    """Run the command; return 1 if an image could not be read."""
    data = [word for word in words if word.startswith("dataset")]
    arguments = cli.given([w for w in words if not w.startswith("dataset.")], KEYS)
    run, record = store.completed(arguments)
    if ("images" in arguments) == ("split" in arguments):
        raise UserError("Give either images=PATH, or split=NAME of a dataset, such as split=test.")
    stem = cli.choice(arguments, "weights", ("model", "merged"))
    options: dict[str, Any] = {
        "top": cli.number(arguments, "top", 5),
        "batch_size": cli.number(arguments, "batch_size", 64),
        "workers": cli.number(arguments, "workers", 0, least=0),
        "temperature": _temperature(arguments, record, stem),
    }
    place = _place(arguments)

    from clipbench.inference import prediction, saved_model  # torch

    if not (classes := saved_model.classes(run, stem)):
        raise UserError(f"{run} was trained on captions and has no classes. Use clipbench.search.")
    if "images" in arguments:
        images = prediction.of_path(paths.expanded(arguments["images"]), record, classes)
    else:
        images = prediction.of_split(arguments["split"], record, data, classes)
    classifier = saved_model.classifier(run, stem).to(prediction.device(arguments.get("device")))
    reading = {k: images.data[k] for k in ("decoder", "value_range") if k in images.data}
    predictions = prediction.predictions(classifier, images.split, **options, **reading)
    many = len(images.split)
    rows = list(track(predictions, f"predicting {many:,} images", many))
    place = place or paths.outputs() / "predictions" / f"{run.resolve().name}-{images.name}.csv"
    prediction.write(place, images, rows, classes)
    return _report(place, images, rows, classes)


def _place(arguments: cli.Given) -> Path | None:
    """Return where to write; None for the default.

    Raises:
        UserError: if the file is not a CSV, or its folder does not exist.
    """
    if "out" not in arguments:
        return None
    place = Path(arguments["out"])
    if arguments["out"] != "-" and place.suffix.lower() != ".csv":
        raise UserError(f"out={place} is not a .csv file. Name one, or use out=- to print.")
    if not place.parent.is_dir():
        raise UserError(f"out={place}: the folder {place.parent} does not exist. Make it first.")
    return place


def _temperature(arguments: cli.Given, record: RunRecord, stem: str) -> float:
    fitted = record.temperature if stem == "model" else None
    try:
        value = float(arguments.get("temperature", fitted or 1))
    except ValueError:
        value = 0
    if not 0 < value < float("inf"):
        raise UserError(
            f"temperature={arguments['temperature']} is not a number above 0. The default is 1."
        )
    return value


def _report(
    place: Path, images: "Images", rows: Sequence["Prediction"], classes: Sequence[str]
) -> int:
    """Print where the CSV is, the accuracy, and which images could not be read."""
    good = [row for row in rows if row.error is None]
    pairs = [(images.labels[row.index], classes[row.classes[0]]) for row in good]
    lines = [f"{len(good):,} images" + (f" in {place}" if str(place) != "-" else "")]
    if labelled := [label == predicted for label, predicted in pairs if label is not None]:
        ci = wilson(sum(labelled) / len(labelled), len(labelled))
        lines.append(
            f"accuracy {ci.estimate:.4f} ({ci.low:.4f} to {ci.high:.4f}, Wilson 95 %) "
            f"of {ci.n:,} whose class is known"
        )
    if unknown := len(pairs) - len(labelled):
        few = ", ".join(classes[:3]) + (", ..." if len(classes) > 3 else "")
        lines.append(
            f"{'no accuracy' if not labelled else f'{unknown:,} images are not in it'}: "
            f"{images.sought} otherwise than each of the run's {len(classes)} classes ({few})"
        )
    for line in lines:
        print(line, file=sys.stderr)
    bad = [f"{images.split.ids[row.index]}: {row.error}" for row in rows if row.error]
    if bad:
        cli.refusal(f"{len(bad)} images could not be read:", bad, paths.outputs())
    return 1 if bad else 0


if __name__ == "__main__":
    main()
