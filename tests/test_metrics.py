"""Against sklearn, on random predictions and on cases made to differ."""

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss
from torchmetrics.functional.classification import multiclass_f1_score

from clipbench import metrics


def one_hot(predictions, classes):
    return torch.nn.functional.one_hot(torch.tensor(predictions), classes).float()


@pytest.mark.parametrize("seed", range(5))
def test_equal_to_sklearn_on_random_predictions(seed):
    rng = np.random.default_rng(seed)
    logits = torch.tensor(rng.normal(size=(200, 7)))
    labels = torch.tensor(rng.integers(0, 6, size=200))  # class 6 is never a label
    got = metrics.classification(logits, labels, ["acc", "mean_per_class", "macro_f1"])
    predicted = logits.argmax(1).numpy()
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        balanced = balanced_accuracy_score(labels, predicted)
    assert got["acc"] == (predicted == labels.numpy()).mean()
    assert got["mean_per_class"] == pytest.approx(balanced, abs=1e-12)
    present = np.unique(labels)
    f1 = f1_score(labels, predicted, average="macro", labels=present)
    assert got["macro_f1"] == pytest.approx(f1, abs=1e-12)
    probabilities = logits.double().softmax(1)
    assert got["loss"] == pytest.approx(log_loss(labels, probabilities, labels=range(7)), abs=1e-6)


def test_macro_f1_is_wilds_and_not_torchmetrics():
    labels, predicted = [0, 0, 1, 1, 2], [0, 3, 1, 1, 2]
    logits = one_hot(predicted, 5)
    wilds = f1_score(labels, predicted, average="macro", labels=np.unique(labels))
    other = float(multiclass_f1_score(logits.argmax(1), torch.tensor(labels), 5, average="macro"))
    assert metrics.macro_f1(logits, torch.tensor(labels)) == pytest.approx(wilds)
    assert wilds != pytest.approx(other)


def test_a_class_that_is_never_predicted_has_recall_and_f1_of_zero():
    labels = torch.tensor([0, 0, 1])
    logits = one_hot([0, 0, 0], 3)
    assert metrics.mean_per_class(logits, labels) == pytest.approx(0.5)
    assert metrics.macro_f1(logits, labels) == pytest.approx(0.4)
    assert metrics.acc(logits, labels) == pytest.approx(2 / 3)
