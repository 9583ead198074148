"""CLIP or ResNet on your own images: zero-shot, linear probe, fine-tuning and a report.

Run: python -m clipbench.compare data=FOLDER [models=auto] [budget=MINUTES] [key=value ...]

data     a folder of images in class folders, with or without train/, val/ and test/ above them;
         or the name of a dataset, such as flowers102
models   auto: clip_vitb32 and resnet50 if their weights are on this machine or can be downloaded,
         else stand-ins, which the report says first; or names of models, separated by commas
budget   minutes in total, default 30, without the time of downloads

Cheap jobs run first. Then the pace of each model is measured, and its fine-tuning gets as many of
the epochs of recipe=auto as fit; the report names what did not fit. Other overrides apply to every
run: dataset.class_names=FILE, trainer=cpu. The same command continues an interrupted comparison.
"""

from clipbench.core import cli
from clipbench.core.errors import UserError
from clipbench.sweeps import comparison

KEYS = ("data", "models", "budget")


def main() -> None:
    """Compare the models, and write the report."""
    cli.opened(__doc__ or "", compare)


def compare(words: list[str]) -> int:
    """Run the command; return 1 if a job failed."""
    own_words = [word for word in words if word.partition("=")[0] in KEYS]
    arguments = cli.given(own_words, KEYS)
    if "data" not in arguments:
        raise UserError("data=FOLDER is missing. Name your folder of images in class folders.")
    overrides = [word for word in words if word not in own_words]
    models, minutes = arguments.get("models", "auto"), _minutes(arguments.get("budget", "30"))
    return comparison.Comparison(arguments["data"], models, minutes, overrides)()


def _minutes(budget: str) -> float:
    try:
        minutes = float(budget)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < float("inf"):
        raise UserError(f"budget={budget} is not a number of minutes above 0. The default is 30.")
    return minutes


if __name__ == "__main__":
    main()
