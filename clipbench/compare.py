"""Your own pictures: CLIP or ResNet? Zero-shot, linear probe and fine-tuning, then the report.

Run: python -m clipbench.compare data=FOLDER [models=auto] [budget=MINUTES] [key=value ...]

data     a folder of pictures in class folders, with or without train/, val/ and test/ above them;
         or the name of a dataset, such as flowers102
models   auto: clip_vitb32 and resnet50 if their weights are here or can be fetched, else stand-ins,
         and the report says so first; or names of models, with commas between
budget   minutes for all of it, default 30; weights that have to be fetched come on top

Cheap jobs come first. Then each model's pace is measured, and the fine-tunings get as many of the
epochs that recipe=auto would take as fit; what does not fit is named in the report. Further words
go to every run: dataset.class_names=FILE, trainer=cpu. The runs are ordinary ones. The same command
again goes on where it was and keeps what is done.
"""

from clipbench.core import cli
from clipbench.core.errors import UserError
from clipbench.sweeps import comparison

KEYS = ("data", "models", "budget")


def main() -> None:
    """Compare, and write the report."""
    cli.opened(__doc__ or "", compare)


def compare(words: list[str]) -> int:
    """Do what the command line asks; 1 if a job failed."""
    own = [word for word in words if word.partition("=")[0] in KEYS]
    asked = cli.given(own, KEYS)
    if "data" not in asked:
        raise UserError("data=FOLDER is missing; name your folder of pictures in class folders")
    rest = [word for word in words if word not in own]
    done = comparison.Comparison(
        asked["data"], asked.get("models", "auto"), _minutes(asked.get("budget", "30")), rest
    )
    return done()


def _minutes(given: str) -> float:
    try:
        minutes = float(given)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < float("inf"):
        raise UserError(f"budget={given} is no number of minutes above 0; the default is 30")
    return minutes


if __name__ == "__main__":
    main()
