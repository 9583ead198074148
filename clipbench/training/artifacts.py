"""The files of a run: its weights, its predictions, figures and pages."""

import time
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from clipbench.core import distributed, environment
from clipbench.datamodules.base_captions import CaptionDataModule
from clipbench.inference import saved_model
from clipbench.models.weight_averaging import State
from clipbench.reporting.page import retrieval_examples
from clipbench.reporting.tables import alpha_figures
from clipbench.results.record import Cost, RunRecord
from clipbench.training import predictions, tensorboard_summary
from clipbench.training.build import Components
from clipbench.training.evaluation import Evaluation
from clipbench.training.evaluator import Evaluator
from clipbench.training.fit import Fitted
from clipbench.training.robustness.wise_ft import Curve


def write_artifacts(
    parts: Components, record: RunRecord, fitted: Fitted, evaluation: Evaluation
) -> None:
    """Write the files of a run, in the first rank, and what the run has cost into its record."""
    if distributed.here.first:
        folder, data = parts.folder.path, parts.evaluator.data
        write_model(folder, record, parts.evaluator, evaluation)
        if isinstance(data, CaptionDataModule) and fitted.before is not None:
            _write_examples(folder, record, data, fitted.before, evaluation.outputs["val"])
        if evaluation.line is not None:
            _write_line(folder, record, parts.evaluator, evaluation.line)
        if missing := tensorboard_summary.add(folder, record, data):
            parts.folder.warn(missing)
    record.cost = _cost(parts, record.cost)


def write_model(
    folder: Path, record: RunRecord, evaluator: Evaluator, evaluation: Evaluation
) -> None:
    """Write the weights of the chosen epoch, and what they predict for each image."""
    if isinstance(evaluator.data, CaptionDataModule):
        predictions.write_ranks(folder, evaluator.data, evaluation.outputs)
    else:
        predictions.write(folder, evaluator.data, evaluation.outputs)
    _save(folder, record, evaluator, evaluation.weights, "model")


def _save(
    folder: Path, record: RunRecord, evaluator: Evaluator, weights: State | None, stem: str
) -> None:
    classifier = evaluator.module.classifier
    if weights is not None:
        classifier.load_state_dict(dict(weights))
    about = {"clipbench": record.key}
    saved_model.save(folder, classifier, list(evaluator.data.classes), about, stem)


def _write_examples(
    folder: Path,
    record: RunRecord,
    data: CaptionDataModule,
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
) -> None:
    """Write a page of queries of val, before training and after, if anything was trained."""
    if not record.selection.epoch:
        return
    features = [(outputs["image"], outputs["text"]) for outputs in (before, after)]
    title = f"{record.model} on {record.dataset}, {record.strategy}: val"
    place, split = folder / "examples.html", data.splits["val"]
    retrieval_examples.write(place, split, *features, seed=record.seed, title=title)


def _write_line(folder: Path, record: RunRecord, evaluator: Evaluator, line: Curve) -> None:
    """Write the best average of start and end, and the figure of all."""
    _save(folder, record, evaluator, line.weights, "merged")
    if not isinstance(evaluator.data, CaptionDataModule):
        predictions.write_merged(folder, evaluator.data, line.outputs, line.alpha)
    alpha_figures.alpha_curve(record, folder / "alpha_curve.png")


def _cost(parts: Components, before: Cost) -> Cost:
    """Return what a run has cost, with what its weights have cost an earlier run."""
    seconds = time.perf_counter() - parts.folder.started
    pace = parts.recorder.throughput.images_per_second
    return Cost(
        seconds=seconds + before.seconds,
        images_per_second=before.images_per_second if before.device else pace,
        **environment.device(parts.trainer.strategy.root_device),
    )
