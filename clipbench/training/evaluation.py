"""After training: every held-out split at the chosen epoch, calibration, WiSE-FT's line."""

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
    """The weights to save, None for the current ones, their outputs, and requested averages."""

    weights: State | None
    outputs: Outputs
    line: Curve | None = None


def evaluate(parts: Components, record: RunRecord, fitted: Fitted) -> Evaluation:
    """Evaluate every split at the chosen epoch, and averages of start and end if requested."""
    evaluator, merge, start = parts.evaluator, parts.spec.merge, fitted.start
    if merge is None or start is None:
        return evaluate_chosen(evaluator, record)
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
    return replace(evaluation, weights=weights, line=line)


def evaluate_chosen(evaluator: Evaluator, record: RunRecord) -> Evaluation:
    """Evaluate every split with the current weights, and put the metrics into the record."""
    if "val" in evaluator.outputs:  # at the chosen epoch
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
    module = evaluator.module
    for suffix, weights in module.strategy.evaluation_points(module.classifier):
        outputs = dict(evaluator.outputs)
        # Without such splits there is still the retention of the other task.
        values = evaluator(names or (["val"] if evaluator.retention else []), weights)
        final |= {f"{name}{suffix}": v for name, v in values.items() if not name.startswith("val/")}
        if suffix:
            evaluator.outputs = outputs
    return final


def calibrate(data: ClassificationDataModule, outputs: Outputs) -> tuple[float, dict[str, float]]:
    """Return the temperature that fits val best, and with it ``<split>/ece_scaled``."""

    def scores(name: str, t: float = 1.0) -> Tensor:
        return classification.among(outputs[name]["logits"] / t, data.splits[name].among)

    t = calibration.temperature(scores("val"), outputs["val"]["label"])
    return t, {
        f"{name}/ece_scaled": classification.ece(scores(name, t), output["label"])
        for name, output in outputs.items()
    }
