"""WiSE-FT, Fisher merging and PAINT: averages of a run's start and end, evaluated."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clipbench.core.config.option_files import Config
from clipbench.core.errors import UserError
from clipbench.metrics import intervals
from clipbench.models import weight_averaging
from clipbench.models.weight_averaging import State
from clipbench.strategies.base import logits
from clipbench.training.evaluator import Evaluator, copied

KINDS = ("wise_ft", "fisher", "paint")
STATISTICS = ("average", "reestimate")
FISHER_IMAGES = 256  # of train; one backward pass each
STATISTICS_IMAGES = 2048


@dataclass(frozen=True)
class Merge:
    """Which averages of start and end to evaluate.

    Attributes:
        alphas: of the end; 0 is the start.
        kind: ``wise_ft``; ``fisher``, by Fisher information; ``paint``, with a fixed head.
        statistics: of BatchNorm: ``average`` or ``reestimate``.
    """

    alphas: Sequence[float]
    kind: str = "wise_ft"
    statistics: str = "average"


def requested(config: Config) -> Merge | None:
    """Return what ``alphas`` (a list, or the number of steps from 0 to 1) and ``merge`` request.

    Raises:
        UserError: for unknown values.
    """
    alphas, kind, statistics = (config[k] for k in ("alphas", "merge", "merge_bn"))
    if kind not in KINDS:
        raise UserError(f"merge={kind}: is not one of {', '.join(KINDS)}. Use one.")
    if statistics not in STATISTICS:
        raise UserError(f"merge_bn={statistics}: is not one of {', '.join(STATISTICS)}. Use one.")
    if alphas is None:
        return None
    if isinstance(alphas, int) and not isinstance(alphas, bool) and alphas > 0:
        alphas = [round(k / alphas, 6) for k in range(alphas + 1)]
    numbers = alphas if isinstance(alphas, list) else []
    if not numbers or not all(isinstance(a, int | float) and 0 <= a <= 1 for a in numbers):
        fault = f"alphas={alphas}: these are not numbers from 0 to 1"
        raise UserError(f"{fault}. Use alphas=10 or alphas=[0.5].")
    return Merge(sorted({float(alpha) for alpha in alphas}), kind, statistics)


@dataclass
class Curve:
    """The metrics along the line from start to end.

    Attributes:
        rows: ``{"alpha", "<split>/<metric>", ...}``, val and the retention task included.
        alpha: the best on val; of equals the nearest to the start, which has forgotten least.
        weights: of the classifier there.
        outputs: of the module there, by split.
    """

    rows: list[dict[str, float]]
    alpha: float
    weights: State
    outputs: Mapping[str, Mapping[str, Tensor]]

    def final(self) -> dict[str, float]:
        """Return the same numbers flat, ``<split>/<metric>@alpha=0.5``."""
        return {
            f"{name}@alpha={row['alpha']:g}": value
            for row in self.rows
            for name, value in row.items()
            if name != "alpha"
        }


def alpha_curve(
    evaluate: Evaluator, merge: Merge, ends: tuple[State, State], metric: str, seed: int
) -> Curve:
    """Evaluate averages of start and end; the classifier is left with the last.

    The ends are the weights before training and of the chosen epoch; the seed is of what is drawn
    from train.
    """
    classifier = evaluate.module.classifier
    names = ["val", *evaluate.data.evaluation_splits]
    fishers = [_fisher(evaluate, end, seed) for end in ends] if merge.kind == "fisher" else []
    rows: list[dict[str, float]] = []
    best: tuple[float, float, State, dict[str, dict[str, Tensor]]] | None = None
    for alpha in merge.alphas:
        if fishers:
            state = weight_averaging.fisher_merge(*ends, alpha, (fishers[0], fishers[1]))
        else:
            constant = ("head.",) if merge.kind == "paint" else ()
            state = weight_averaging.interpolate(*ends, alpha, constant)
        classifier.load_state_dict(dict(state))
        if merge.statistics == "reestimate" and 0 < alpha < 1:
            reestimate(evaluate, seed)
        rows.append({"alpha": alpha, **evaluate(names)})
        score = intervals.goodness(metric, rows[-1][metric])
        if best is None or score > best[0]:
            best = (score, alpha, copied(classifier), dict(evaluate.outputs))
    assert best is not None
    return Curve(rows, *best[1:])


def _fisher(evaluate: Evaluator, weights: State, seed: int) -> State:
    """Return the Fisher information of the trainable parameters, at the given weights."""
    module = evaluate.module
    module.classifier.load_state_dict(dict(weights))
    module.to(evaluate.trainer.strategy.root_device).eval()
    module.strategy.refresh(module.classifier)
    trained = {n: p for n, p in module.classifier.named_parameters() if p.requires_grad}
    kind = "features" if module.strategy.reads_features else "image"
    return weight_averaging.fisher(
        lambda row: logits(module.classifier, {kind: row}),
        trained,
        (batch[kind] for batch in evaluate.train_rows(FISHER_IMAGES, seed, 1)),
        torch.Generator().manual_seed(seed),
    )


def reestimate(evaluate: Evaluator, seed: int) -> None:
    """Re-estimate the image tower's BatchNorm statistics, on images of train."""
    module = evaluate.module
    if module.strategy.reads_features:
        return  # the image tower is the same at both ends
    size = min(evaluate.data.batch_size, len(evaluate.data.splits["train"]))
    batches = evaluate.train_rows(STATISTICS_IMAGES, seed, size)
    tower = module.to(evaluate.trainer.strategy.root_device).classifier.tower.trained()
    # The last batch may be a single image, whose statistics mean nothing.
    weight_averaging.reestimate(tower, (b["image"] for b in batches if len(b["label"]) == size))
