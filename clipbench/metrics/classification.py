"""What a set of predictions is worth; every definition is tested against its reference.

Two that torchmetrics also has are defined here, since its definitions are others: macro-F1 (it
counts classes that are predicted and never occur) and the calibration error (it gives confidences
of exactly 1 a bin of their own, and takes logits within [0, 1] for probabilities).
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from scipy import sparse
from torch import Tensor

from clipbench.metrics import registry
from clipbench.metrics.confusion import Counts, count

BINS = 15  # of the calibration error, as in Guo et al. 2017
AT_ONCE = 2**21  # logits that are looked at together: 16 MB in double precision


def blocks(logits: Tensor) -> Iterator[slice]:
    """Yield the rows of logits (n, C) in slices of at most :data:`AT_ONCE` logits."""
    rows = max(1, AT_ONCE // logits.shape[1])
    yield from (slice(start, start + rows) for start in range(0, len(logits), rows))


def _scores(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return per class the true positives, the predictions and the support, each (C,).

    Not by torchmetrics: where algorithms must be deterministic, as in every run, its count of n
    images takes n * C^2 * 8 bytes.
    """
    predicted, size = logits.argmax(1), logits.shape[1]
    hits = labels[predicted == labels]
    tp, said, support = (torch.bincount(of, minlength=size) for of in (hits, predicted, labels))
    return tp.double(), said.double(), support.double()


def loss(logits: Tensor, labels: Tensor) -> float:
    """Return the mean cross-entropy in nats."""
    parts = (
        F.cross_entropy(logits[rows].double(), labels[rows], reduction="sum")
        for rows in blocks(logits)
    )
    return sum(map(float, parts)) / len(labels)


def acc(logits: Tensor, labels: Tensor) -> float:
    """Return the top-1 accuracy, an exact count over n; the lowest class wins ties."""
    return int((logits.argmax(1) == labels).sum()) / len(labels)


def acc5(logits: Tensor, labels: Tensor) -> float:
    """Return the share of images with their class among the five highest; lower ones win ties.

    NaN for fewer than six classes, where it says nothing.
    """
    if logits.shape[1] < 6:
        return float("nan")
    hits = 0
    for rows in blocks(logits):
        scores, label = logits[rows], labels[rows, None]
        own = scores.gather(1, label)
        lower = torch.arange(logits.shape[1]) < label
        ahead = (scores > own) | ((scores == own) & lower)
        hits += int((ahead.sum(1) < 5).sum())
    return hits / len(labels)


def mean_per_class(logits: Tensor, labels: Tensor) -> float:
    """Return the mean recall over the classes in the labels (scikit-learn's balanced accuracy)."""
    tp, _, support = _scores(logits, labels)
    present = support > 0
    return float((tp[present] / support[present]).mean())


def macro_f1(logits: Tensor, labels: Tensor) -> float:
    """Return the mean F1 over the classes in the labels, as WILDS defines it.

    torchmetrics averages over classes present in labels *or* predictions, which is another number.
    """
    tp, predicted, support = _scores(logits, labels)
    f1 = 2 * tp / (predicted + support).clamp(min=1)
    return float(f1[support > 0].mean())


def ece(logits: Tensor, labels: Tensor) -> float:
    """Return the expected calibration error over 15 bins (m-1)/15 to m/15 (Guo et al. 2017)."""
    confidence = torch.empty(len(labels), dtype=torch.float64)
    for rows in blocks(logits):
        confidence[rows] = logits[rows].double().softmax(1).amax(1)
    inner = torch.linspace(0, 1, BINS + 1, dtype=torch.float64)[1:-1]
    bins = torch.bucketize(confidence, inner)
    correct = (logits.argmax(1) == labels).double()
    gaps = torch.bincount(bins, weights=correct - confidence, minlength=BINS)
    return float(gaps.abs().sum()) / len(labels)


def worst_group(logits: Tensor, labels: Tensor, groups: ArrayLike) -> float:
    """Return the lowest accuracy of a group, over the groups that have an image.

    Args:
        logits: (n, C).
        labels: (n,).
        groups: (n,), the group of each image; -1 leaves it out (WILDS' region "Other").

    Returns:
        NaN where no image is in a group.
    """
    ids = torch.as_tensor(np.asarray(groups))
    counted = ids >= 0
    right = ids[counted & (logits.argmax(1) == labels)]
    count = torch.bincount(ids[counted])
    hits = torch.bincount(right, minlength=len(count))
    present = count > 0
    shares = hits[present].double() / count[present]
    return float(shares.min()) if len(shares) else float("nan")


def level_acc(logits: Tensor, labels: Tensor, level: Sequence[int] | Sequence[str]) -> float:
    """Accuracy once label and prediction are both mapped to a coarser level.

    Args:
        logits: (n, C).
        labels: (n,).
        level: the coarser label, or its name, of each of the C classes.
    """
    coarse = torch.as_tensor(np.unique(np.asarray(level), return_inverse=True)[1])
    return int((coarse[logits.argmax(1)] == coarse[labels]).sum()) / len(labels)


def classification(
    logits: Tensor,
    labels: Tensor,
    names: Sequence[str],
    groups: Mapping[str, ArrayLike] | None = None,
    levels: Mapping[str, Sequence[int] | Sequence[str]] | None = None,
) -> dict[str, float]:
    """Return the named metrics, and the loss, of a whole split.

    What is NaN is left out: ``acc5`` of fewer than six classes, and the worst group where no
    image is in one.

    Args:
        logits: (n, C), n at least 1.
        labels: (n,), in [0, C).
        names: of :data:`clipbench.metrics.registry.COMPUTED`, ``acc_worst_<kind>`` for a kind in
            ``groups``, or ``acc_<level>`` for a level in ``levels``.
        groups: kind of group -> the group of each image, (n,), -1 for none that counts.
        levels: coarser labels: level -> the coarser label, or its name, of each class, (C,).

    Raises:
        ValueError: for a name that is none of these.
    """
    labels = labels.to(torch.int64)
    values: dict[str, float] = {}
    for name in ("loss", *names):
        kind, level = name.removeprefix("acc_worst_"), name.removeprefix("acc_")
        if name in registry.COMPUTED:
            value = registry.resolve(registry.METRICS[name].function)(logits, labels)
        elif kind != name and groups and kind in groups:
            value = worst_group(logits, labels, groups[kind])
        elif level != name and levels and level in levels:
            value = level_acc(logits, labels, levels[level])
        else:
            known = f"groups are {sorted(groups or ())}, levels {sorted(levels or ())}"
            computed = sorted(registry.COMPUTED)
            raise ValueError(f"no metric is called {name}; there are {computed}, {known}")
        values[name] = value
    return {name: value for name, value in values.items() if not np.isnan(value)}


def among(logits: Tensor, labels: Sequence[int] | Mapping[int, Sequence[int]] | None) -> Tensor:
    """Logits that choose among some classes only: those of the others are -inf.

    Args:
        logits: (n, C).
        labels: the classes of a shift set that has fewer than were trained; or of each the classes
            that count as it, of which the highest logit is taken, as WiSE-FT does for ObjectNet;
            None for all.
    """
    if labels is None:
        return logits
    masked = torch.full_like(logits, -torch.inf)
    if isinstance(labels, Mapping):
        for label, same in labels.items():
            masked[:, label] = logits[:, list(same)].amax(1)
        return masked
    masked[:, list(labels)] = logits[:, list(labels)]
    return masked


def confusion(logits: Tensor, labels: Tensor) -> Counts:
    """Return how often each class (row) was taken for each (column): (C, C) counts, sparse."""
    return count(labels.numpy(), logits.argmax(1).numpy(), logits.shape[1])


def per_class(
    counts: Counts,
    classes: Sequence[str],
    levels: Mapping[str, Sequence[int] | Sequence[str]] | None = None,
) -> pd.DataFrame:
    """Return a row for each class, in label order; what nothing was measured for is NaN.

    Args:
        counts: of :func:`confusion`.
        classes: their C names.
        levels: coarser labels, as in :func:`classification`.

    Returns:
        Columns ``label``, ``class``, one for each level, ``n``, ``correct``, ``recall``,
        ``precision``, ``f1``, ``confused_with`` (the class most often predicted in its place, the
        lowest on ties; None without errors), ``confused`` (how often), and
        ``errors_within_<level>``: how many of its errors stay within its own family. The mean
        recall and F1 of rows with ``n`` above 0 are :func:`mean_per_class` and :func:`macro_f1`.
    """
    n, predicted, correct = counts.sum(1), counts.sum(0), counts.diagonal()
    cells = sparse.coo_array(counts)
    wrong = cells.row != cells.col
    true, taken, times = cells.row[wrong], cells.col[wrong], cells.data[wrong]
    coarser = {name: np.asarray(level) for name, level in (levels or {}).items()}
    within = {}
    for name, level in coarser.items():
        near = np.bincount(true, times * (level[true] == level[taken]), len(n))
        within[f"errors_within_{name}"] = near.astype(np.int64)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN, and is meant to be
        ratios = {
            "recall": correct / n,
            "precision": correct / predicted,
            "f1": 2 * correct / (n + predicted),
        }
    order = np.lexsort((taken, -times, true))  # of each class its most frequent error first
    first = order[np.unique(true[order], return_index=True)[1]]
    confused_with = np.full(len(n), None, object)
    confused_with[true[first]] = np.asarray(classes, object)[taken[first]]
    confused = np.zeros(len(n), np.int64)
    confused[true[first]] = times[first]
    return pd.DataFrame(
        {
            "label": range(len(classes)),
            "class": list(classes),
            **coarser,
            "n": n,
            "correct": correct,
            **ratios,
        }
        | {"confused_with": confused_with, "confused": confused, **within}
    )
