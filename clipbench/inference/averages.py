"""Averages of a run's start and end weights, computed again from the files of the run."""

from pathlib import Path

from torch import nn

from clipbench.core.config import instantiate
from clipbench.core.config.option_files import Config
from clipbench.core.errors import UserError
from clipbench.inference import saved_model
from clipbench.loading.prompts import Prompts
from clipbench.models import weight_files
from clipbench.models.base import Classifier
from clipbench.models.weight_averaging import interpolate
from clipbench.results.record import RunRecord
from clipbench.strategies.base import Strategy, Task


def between(run: str | Path, alpha: float) -> Classifier:
    """Return the average of a run's start (alpha 0) and end (alpha 1), in eval mode.

    The chosen alpha of a run with ``alphas`` is read from its file. Any other average is made
    again: the start from the pretrained weights and the dataset's prompts, the end from the chosen
    epoch, or from the last one where the start was chosen, as
    :mod:`clipbench.training.robustness.wise_ft` takes them.

    Raises:
        UserError: if the run is not complete, the start or the end cannot be made again, or the
            average is not of these two alone.
    """
    folder, record = Path(run), saved_model.completed(run)
    if alpha == record.selection.alpha and (folder / "merged.safetensors").is_file():
        return saved_model.classifier(folder, "merged")
    config = record.config
    strategy: Strategy = instantiate.build(config["strategy"])
    tuned = saved_model.classifier(folder)
    if 0 < alpha < 1:
        _check_reproducible(record, strategy, tuned)
    _load_end(tuned, folder, record, strategy)
    start = _start(folder, config, strategy)
    tuned.load_state_dict(dict(interpolate(start.state_dict(), tuned.state_dict(), alpha)))
    strategy.refresh(tuned)  # a head that follows the text tower is that of the averaged one
    return tuned.eval()


def _check_reproducible(record: RunRecord, strategy: Strategy, tuned: Classifier) -> None:
    """Refuse averages that were made with what only the training images give."""
    config, chosen = record.config, record.selection.alpha
    if chosen is None:  # the run made no average
        return
    parts = () if strategy.reads_features else tuned.tower.trained().modules()
    normalizes = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in parts)
    for key, value, applies in (("merge", "fisher", True), ("merge_bn", "reestimate", normalizes)):
        if config[key] == value and applies:
            raise UserError(
                f"{key}={value}: such an average also depends on images of train, and only that of "
                f"the chosen alpha was kept. Use weights=merged, which is alpha={chosen:g}, or run "
                "it again with the alphas=[...] that you want."
            )


def _load_end(tuned: Classifier, folder: Path, record: RunRecord, strategy: Strategy) -> None:
    """Load the weights at alpha 1, which are not always those of ``model.safetensors``.

    Raises:
        UserError: if the run kept no such weights.
    """
    chosen, fitted = record.selection.epoch, strategy.fits_head == "run"
    if chosen and not fitted:
        return
    if not chosen and fitted:
        raise UserError(
            f"{folder} chose its start, and its fitted head was not kept. Run it with alphas=[0.5]."
        )
    # Where the start was chosen, averages lead to the last epoch. A fitted head may have been
    # fitted once more, on val too, after the line was drawn.
    name = "best.ckpt" if fitted else "last.ckpt"
    twin = folder.parent / (record.weights_from or {"folder": folder.name})["folder"]
    files = [place / "checkpoints" / name for place in (folder, twin)]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise UserError(f"{files[0]}, the end, does not exist. Restore it, or run it again.")
    load_checkpoint(tuned, file)


def load_checkpoint(classifier: Classifier, file: Path) -> None:
    """Load the classifier's weights out of a checkpoint of training."""
    prefix = "classifier."
    state = weight_files.read(file).items()
    weights = {k.removeprefix(prefix): v for k, v in state if k.startswith(prefix)}
    classifier.load_state_dict(weights)


def _start(folder: Path, config: Config, strategy: Strategy) -> Classifier:
    if config["model"]["pretrained"] is None:
        raise UserError("its weights started at random and are not kept; run it with alphas=[0.5]")
    if strategy.fits_head == "start":
        raise UserError("its start was a fitted head, which is not kept; run it with alphas=[0.5]")
    data = instantiate.build(config["dataset"])
    data.prepare(config["seed"])
    if list(data.classes) != (classes := saved_model.classes(folder)):
        raise UserError(
            f"dataset.root={config['dataset'].get('root')} has {len(data.classes)} classes that "
            f"are not the {len(classes)} of the run. Restore its images, or use weights=model."
        )
    prompts: Prompts = instantiate.build(config["prompts"])
    task = Task(data.classes, prompts.of(data.classes, data.templates, data.keys))
    start = strategy.prepare(instantiate.build(config["model"]), task)
    if not start.meaningful:
        raise UserError(
            "its head started at random, so an average with it means little; leave alpha= out"
        )
    return start
