"""A head fitted to its end on frozen features: CLIP's linear-probe protocol, by scikit-learn.

CLIP (Radford et al. 2021, app. A.3): logistic regression by L-BFGS, at most 1,000 iterations, its
L2 strength one of 96 steps over 1e-6..1e6 on a logarithmic scale, found on the validation split
by halving the interval around the peak.
"""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from clipbench.models.base import Classifier

DECADES, STEPS = 12, 8  # eight steps in each decade
SPANS = (8, 4, 2, 1)  # of steps: the interval around the peak, halved
MOST_ITERATIONS = 1000
Rows = tuple[NDArray[np.float64], NDArray[np.int64]]
Linear = tuple[NDArray[np.float64], NDArray[np.float64]]


def strength(step: int) -> float:
    """Return scikit-learn's ``C``, one over the L2 strength, of a step in 0..96."""
    return float(10.0 ** (step / STEPS - DECADES / 2))


def fit(rows: Rows, c: float, classes: int, weights: NDArray[np.float64] | None) -> Linear:
    """Fit features (n, D) to labels (n,); return weights (C, D) and biases (C,).

    A class that is not among the labels gets no weight, and a bias that never makes it the answer
    on these rows; its own optimum is minus infinity.

    Args:
        rows: features and labels.
        c: one over the L2 strength.
        classes: C.
        weights: of each class in the loss, (C,), or None.
    """
    features, labels = rows
    model = LogisticRegression(C=c, max_iter=MOST_ITERATIONS, random_state=0)
    with warnings.catch_warnings():  # at the weakest strengths 1,000 iterations are the protocol
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features, labels, sample_weight=None if weights is None else weights[labels])
    found, bias = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # one row then stands for the difference of two
        found, bias = np.concatenate([-found, found]) / 2, np.concatenate([-bias, bias]) / 2
    whole = np.zeros((classes, features.shape[1]))
    whole[model.classes_] = found
    seen = features @ found.T + bias
    low = np.full(classes, seen.min() - 20.0)
    low[model.classes_] = bias
    return whole, low


def search(score: Callable[[int], tuple[float, float]]) -> int:
    """Return the step of the best score by CLIP's search: every two decades, then closer.

    Args:
        score: of a step in 0..96; a higher tuple is better, and of equal ones the lower step.
    """
    tried = {step: score(step) for step in range(0, DECADES * STEPS + 1, 2 * STEPS)}
    best = max(tried, key=lambda step: (tried[step], -step))
    for span in SPANS:
        for step in (best - span, best + span):
            if 0 <= step <= DECADES * STEPS and step not in tried:
                tried[step] = score(step)
        best = max(tried, key=lambda step: (tried[step], -step))
    return best


def swept(
    train: Rows, val: Rows, classes: int, weights: NDArray[np.float64] | None = None
) -> tuple[float, Linear]:
    """Return the fit on train whose strength is best on val: its ``C`` and the fit.

    Accuracy decides, and the loss where accuracies are equal, as they often are on small sets.
    """
    fits: dict[int, Linear] = {}

    def score(step: int) -> tuple[float, float]:
        fits[step] = fit(train, strength(step), classes, weights)
        return scores(fits[step], val)

    best = search(score)
    return strength(best), fits[best]


def scores(linear: Linear, rows: Rows) -> tuple[float, float]:
    """Return the accuracy of a linear classifier and its mean log-likelihood."""
    features, labels = rows
    logits = torch.from_numpy(features @ linear[0].T + linear[1])
    truth = torch.from_numpy(labels)
    accuracy = (logits.argmax(1) == truth).double().mean()
    return float(accuracy), -float(F.cross_entropy(logits, truth))


def fit_head(
    classifier: Classifier,
    features: Callable[[str], tuple[Tensor, Tensor]],
    weights: Tensor | None,
) -> float:
    """Set a classifier's head to the fit on train that is best on val; return its ``C``.

    Args:
        classifier: its head is replaced in place.
        features: the tower's features (n, D) and the labels (n,) of a split by name.
        weights: of each class in the loss, (C,), or None.
    """
    train, val = (_rows(classifier, [features(split)]) for split in ("train", "val"))
    c, linear = swept(train, val, classifier.head.out_features, _weights(weights))
    _set(classifier, linear)
    return c


def set_head(
    classifier: Classifier,
    splits: Sequence[tuple[Tensor, Tensor]],
    c: float,
    weights: Tensor | None,
) -> None:
    """Set a classifier's head to the fit on some splits together, at a strength."""
    classes = classifier.head.out_features
    _set(classifier, fit(_rows(classifier, splits), c, classes, _weights(weights)))


def _rows(classifier: Classifier, splits: Sequence[tuple[Tensor, Tensor]]) -> Rows:
    """Return features as the head reads them, in double precision, and labels."""
    features = torch.cat([part for part, _ in splits]).double()
    labels = torch.cat([part for _, part in splits])
    if classifier.tower.normalized:
        features = F.normalize(features, dim=-1)
    return features.numpy(), labels.numpy()


def _weights(weights: Tensor | None) -> NDArray[np.float64] | None:
    return None if weights is None else weights.double().cpu().numpy()


@torch.no_grad()
def _set(classifier: Classifier, linear: Linear) -> None:
    for parameter, value in zip(classifier.head.parameters(), linear, strict=True):
        parameter.copy_(torch.from_numpy(value))
