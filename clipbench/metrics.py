"""What a set of predictions is worth; every definition is tested against its reference."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import multiclass_stat_scores


def _scores(logits: Tensor, labels: Tensor) -> Tensor:
    """Per class: true positives, false positives, true negatives, false negatives, support."""
    return multiclass_stat_scores(
        logits.argmax(1), labels, num_classes=logits.shape[1], average=None
    ).double()


def loss(logits: Tensor, labels: Tensor) -> float:
    """Mean cross-entropy in nats."""
    return float(F.cross_entropy(logits.double(), labels))


def acc(logits: Tensor, labels: Tensor) -> float:
    """Top-1 accuracy: an exact count over n."""
    return int((logits.argmax(1) == labels).sum()) / len(labels)


def mean_per_class(logits: Tensor, labels: Tensor) -> float:
    """Mean recall over the classes present in the labels (sklearn's balanced accuracy)."""
    tp, _, _, _, support = _scores(logits, labels).unbind(1)
    present = support > 0
    return float((tp[present] / support[present]).mean())


def macro_f1(logits: Tensor, labels: Tensor) -> float:
    """Mean F1 over the classes present in the labels, as WILDS defines it.

    torchmetrics averages over classes present in labels *or* predictions, which is another number.
    """
    tp, fp, _, fn, support = _scores(logits, labels).unbind(1)
    f1 = 2 * tp / (2 * tp + fp + fn).clamp(min=1)
    return float(f1[support > 0].mean())


METRICS: dict[str, Callable[[Tensor, Tensor], float]] = {
    "loss": loss,
    "acc": acc,
    "mean_per_class": mean_per_class,
    "macro_f1": macro_f1,
}


def classification(logits: Tensor, labels: Tensor, names: Sequence[str]) -> dict[str, float]:
    """The named metrics, and the loss, of a whole split.

    Args:
        logits: (n, C).
        labels: (n,), in [0, C).
        names: entries of :data:`METRICS`.
    """
    logits, labels = logits.float(), labels.to(torch.int64)
    return {name: METRICS[name](logits, labels) for name in ("loss", *names)}
