"""After training: every held-out split at the chosen epoch, calibration, WiSE-FT's line."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from clipbench.datamodules.base_captions import CaptionDataModule
from clipbench.datamodules.base_classification import ClassificationDataModule
from clipbench.metrics import calibration, classification
from clipbench.models.weight_averaging import State
from clipbench.results.record import RunRecord
from clipbench.training.build import Components
from clipbench.training.evaluator import Evaluator, Outputs, copied
from clipbench.training.fit import Fitted
from clipbench.training.robustness.wise_ft import Curve, alpha_curve


@dataclass(frozen=True)
class Evaluation:
    """What there is to write after a run.

    Attributes:
        weights: of the classifier that is saved; None for those at hand.
        outputs: of it, by split.
        line: averages of start and end, if they were asked for.
        before: outputs of val before training, where there are captions.
    """

    weights: State | None
    outputs: Outputs
    line: Curve | None = None
    before: Mapping[str, Tensor] | None = None


def evaluate(parts: Components, record: RunRecord, fitted: Fitted) -> Evaluation:
    """Evaluate every split at the chosen epoch, and averages of start and end if asked for."""
    evaluator, merge, start = parts.evaluator, parts.spec.merge, fitted.start
    if merge is None or start is None:
        return replace(evaluate_chosen(evaluator, record), before=fitted.before)
    tuned = copied(parts.module.classifier)
    evaluation = evaluate_chosen(evaluator, record)
    weights = copied(parts.module.classifier)
    # Where the start was chosen, the line leads to the last epoch: it would be a point.
    end = tuned if record.selection.epoch or fitted.last is None else fitted.last
    metric = record.selection.metric
    line = alpha_curve(evaluator, merge, (start, end), metric, record.seed)
    record.final |= line.final()
    record.alpha_curve = line.rows
    record.selection.alpha = line.alpha
    return replace(evaluation, weights=weights, line=line, before=fitted.before)


def evaluate_chosen(evaluator: Evaluator, record: RunRecord) -> Evaluation:
    """Evaluate every split with the weights at hand, and put the metrics into the record.

    Args:
        evaluator: with the outputs of val at the chosen epoch, if they are known.
        record: of the run; its curve and its chosen epoch are read.
    """
    if "val" in evaluator.outputs:
        epoch = record.selection.epoch
        chosen = next(row for row in record.curve if row["epoch"] == epoch)
    else:
        chosen = evaluator(["val"])
    final = {k: v for k, v in chosen.items() if k.startswith("val/")}
    record.final = final | evaluate_held_out(evaluator)
    if not isinstance(evaluator.data, CaptionDataModule):
        record.temperature, scaled = calibrate(evaluator.data, evaluator.outputs)
        record.final |= scaled
    return Evaluation(None, dict(evaluator.outputs))


def evaluate_held_out(evaluator: Evaluator) -> dict[str, float]:
    """Return the metrics of the splits that are read once, at each evaluation point."""
    names = evaluator.data.evaluation_splits
    final: dict[str, float] = {}
    classifier = evaluator.module.classifier
    for suffix, weights in evaluator.module.strategy.evaluation_points(classifier):
        outputs = dict(evaluator.outputs)
        # Without such splits there is still the retention of the other task.
        values = evaluator(names or (["val"] if evaluator.retention else []), weights)
        final |= {f"{name}{suffix}": v for name, v in values.items() if not name.startswith("val/")}
        if suffix:
            evaluator.outputs = outputs
    return final


def calibrate(data: ClassificationDataModule, outputs: Outputs) -> tuple[float, dict[str, float]]:
    """Return the temperature that fits val best, and the error of calibration with it.

    Returns:
        The temperature, and ``<split>/ece_scaled`` of every split.
    """
    splits, val = data.splits, outputs["val"]
    t = calibration.temperature(
        classification.among(val["logits"], splits["val"].among), val["label"]
    )
    scaled = {}
    for name, output in outputs.items():
        scores = classification.among(output["logits"] / t, splits[name].among)
        scaled[f"{name}/ece_scaled"] = classification.ece(scores, output["label"])
    return t, scaled
