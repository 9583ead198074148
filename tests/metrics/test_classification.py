"""Against sklearn, against formulas worked by hand, and on cases made to differ."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    classification_report,
    confusion_matrix,
    f1_score,
    log_loss,
    top_k_accuracy_score,
)
from torchmetrics.functional.classification import (
    multiclass_calibration_error,
    multiclass_f1_score,
    multiclass_stat_scores,
)

from clipbench.metrics import classification
from tests import limits


def one_hot(predictions, classes):
    return torch.nn.functional.one_hot(torch.tensor(predictions), classes).float()


def random_case(seed, n=200, classes=7):
    """Class ``classes - 1`` is never a label."""
    rng = np.random.default_rng(seed)
    logits = torch.tensor(rng.normal(size=(n, classes)))
    return logits, torch.tensor(rng.integers(0, classes - 1, size=n))


@pytest.mark.parametrize("seed", range(5))
def test_equal_to_sklearn_on_random_predictions(seed):
    logits, labels = random_case(seed)
    names = ["acc", "acc5", "mean_per_class", "macro_f1"]
    got = classification.classification(logits, labels, names)
    predicted = logits.argmax(1).numpy()
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        balanced = balanced_accuracy_score(labels, predicted)
    assert list(got) == ["loss", *names]
    assert got["acc"] == (predicted == labels.numpy()).mean()
    assert got["acc5"] == top_k_accuracy_score(labels, logits, k=5, labels=range(7))
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
    assert classification.macro_f1(logits, torch.tensor(labels)) == pytest.approx(wilds)
    assert wilds != pytest.approx(other)


def test_a_class_that_is_never_predicted_has_recall_and_f1_of_zero():
    labels = torch.tensor([0, 0, 1])
    logits = one_hot([0, 0, 0], 3)
    assert classification.mean_per_class(logits, labels) == pytest.approx(0.5)
    assert classification.macro_f1(logits, labels) == pytest.approx(0.4)
    assert classification.acc(logits, labels) == pytest.approx(2 / 3)


NAMES = ("loss", "acc", "acc5", "mean_per_class", "macro_f1", "ece")


@pytest.mark.parametrize(
    ("labels", "predicted", "expected"),
    [
        ([3], [3], {"acc": 1, "mean_per_class": 1, "macro_f1": 1}),
        ([3], [0], {"acc": 0, "mean_per_class": 0, "macro_f1": 0}),
        ([0, 1, 2, 3], [1, 2, 3, 0], {"acc": 0, "mean_per_class": 0, "macro_f1": 0}),
        ([5, 5, 5, 0], [5, 5, 0, 0], {"acc": 3 / 4, "mean_per_class": 5 / 6, "macro_f1": 11 / 15}),
    ],
)
def test_one_picture_all_wrong_and_few_classes_present(labels, predicted, expected):
    got = classification.classification(one_hot(predicted, 6) * 9, torch.tensor(labels), NAMES)
    assert set(got) == set(NAMES)
    assert all(np.isfinite(value) for value in got.values())
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, abs=1e-12)


def test_ties_go_to_the_lowest_class_everywhere():
    logits, labels = torch.zeros(12, 6), torch.arange(12) % 6
    got = classification.classification(
        logits, labels, NAMES, {"g": labels}, {"half": [0, 0, 0, 1, 1, 1]}
    )
    assert got["acc"] == 2 / 12
    assert got["acc5"] == 10 / 12  # class 5 is the one below the fifth
    assert classification.confusion(logits, labels).toarray()[:, 0].tolist() == [2] * 6
    assert classification.level_acc(logits, labels, [0, 0, 0, 1, 1, 1]) == 0.5
    assert classification.worst_group(logits, labels, labels) == 0
    assert got["ece"] == pytest.approx(0, abs=1e-12)  # confidence 1/6, right one time in six


def test_top_5_says_nothing_of_five_classes_and_is_left_out():
    logits, labels = random_case(0, classes=5)
    assert np.isnan(classification.acc5(logits, labels))
    assert list(classification.classification(logits, labels, ["acc", "acc5"])) == ["loss", "acc"]


def test_counts_are_divided_in_float64():
    labels = torch.tensor([0, 0, 1])
    logits = one_hot([0, 0, 0], 6)
    names = ["acc", "acc5", "acc_worst_k", "acc_level", "mean_per_class", "macro_f1"]
    got = classification.classification(
        logits, labels, names, {"k": [4, 4, 4]}, {"level": range(6)}
    )
    assert [got[name] for name in names] == [2 / 3, 1, 2 / 3, 2 / 3, 1 / 2, 0.8 / 2]


def ece_by_hand(logits, labels):
    """Guo et al. 2017, a picture and a bin at a time."""
    bins = [[] for _ in range(15)]
    for row, label in zip(logits.double().numpy(), labels.tolist(), strict=True):
        p = np.exp(row - row.max())
        p /= p.sum()
        k = next(m for m in range(15) if p.max() <= (m + 1) / 15 or m == 14)
        bins[k].append((row.argmax() == label, p.max()))
    full = [np.array(b, float) for b in bins if b]
    return sum(len(b) / len(labels) * abs(b[:, 0].mean() - b[:, 1].mean()) for b in full)


@pytest.mark.parametrize("spread", [0.1, 1, 4, 50])
def test_calibration_error_is_guos(spread):
    logits, labels = random_case(3)
    logits = logits * spread
    assert classification.ece(logits, labels) == pytest.approx(
        ece_by_hand(logits, labels), abs=1e-12
    )


def test_a_confidence_on_the_edge_of_two_bins_is_in_the_lower():
    third, less = [1 / 3, 1 / 3, 1 / 3, 0], [0.3, 0.25, 0.25, 0.2]  # 1/3 is 5/15
    logits, labels = torch.tensor([third, less], dtype=torch.float64).log(), torch.tensor([0, 1])
    assert logits.softmax(1)[0, 0] == 5 / 15
    assert classification.ece(logits, labels) == pytest.approx(abs(1 - (1 / 3 + 0.3)) / 2)


def test_calibration_error_is_torchmetrics_within_open_bins_only():
    logits, labels = random_case(1)
    theirs = multiclass_calibration_error(logits.softmax(1), labels, 7, n_bins=15)
    assert classification.ece(logits, labels) == pytest.approx(float(theirs), abs=1e-6)
    # Sure of everything, a third of the time exactly 1 in floating point: one bin, not two.
    sure = torch.tensor([[0.0, 800], [0, 5], [0, 800]], dtype=torch.float64)
    labels = torch.tensor([0, 1, 1])
    p = float(torch.tensor(5.0, dtype=torch.float64).sigmoid())
    assert classification.ece(sure, labels) == pytest.approx((2 + p) / 3 - 2 / 3)
    theirs = float(multiclass_calibration_error(sure.softmax(1), labels, 2, n_bins=15))
    assert theirs != pytest.approx(classification.ece(sure, labels), abs=1e-3)
    # Logits between 0 and 1 are logits.
    low = torch.tensor([[0.9, 0.1], [0.8, 0.3]])
    expected = ece_by_hand(low, torch.tensor([0, 0]))
    assert classification.ece(low, torch.tensor([0, 0])) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_worst_group_ignores_empty_groups_and_those_that_do_not_count(seed):
    logits, labels = random_case(seed)
    groups = np.random.default_rng(seed).choice([-1, 0, 2, 5], size=200)  # 1, 3, 4 are empty
    groups[labels.numpy() == 0] = -1
    right = logits.argmax(1).numpy() == labels.numpy()
    expected = min(right[groups == g].mean() for g in (0, 2, 5))
    got = classification.classification(logits, labels, ["acc_worst_place"], {"place": groups})
    assert got["acc_worst_place"] == pytest.approx(expected, abs=1e-15)


def test_worst_group_of_a_group_without_a_hit_and_of_no_group():
    labels = torch.tensor([0, 1, 1])
    logits = one_hot([0, 1, 0], 2)
    assert classification.worst_group(logits, labels, [0, 1, 7]) == 0
    assert classification.worst_group(logits, labels, [3, 3, -1]) == 1
    got = classification.classification(logits, labels, ["acc_worst_k"], {"k": [-1, -1, -1]})
    assert list(got) == ["loss"]


def test_a_shift_set_of_fewer_classes_chooses_among_them():
    logits, labels = random_case(4)
    kept = [1, 2, 5]
    part = torch.isin(labels, torch.tensor(kept))
    logits, labels = logits[part], labels[part]
    got = classification.classification(
        classification.among(logits, kept), labels, ["acc", "ece", "macro_f1"]
    )
    narrow = classification.classification(
        logits[:, kept], torch.searchsorted(torch.tensor(kept), labels), ["acc", "ece", "macro_f1"]
    )
    assert got == {name: pytest.approx(value, abs=1e-12) for name, value in narrow.items()}
    assert got["acc"] > classification.acc(logits, labels)
    assert classification.among(logits, None) is logits


FAMILY = ["a", "a", "b", "b", "b", "c", "c"]


@pytest.mark.parametrize("level", [FAMILY, [9, 9, 4, 4, 4, 0, 0]])
def test_accuracy_of_a_coarser_level(level):
    logits, labels = random_case(2)
    coarse = np.array(FAMILY)
    expected = accuracy_score(coarse[labels], coarse[logits.argmax(1)])
    got = classification.classification(logits, labels, ["acc_family"], levels={"family": level})
    assert got["acc_family"] == expected > classification.acc(logits, labels)


@pytest.mark.parametrize("name", ["f1", "acc_worst_year", "acc_worst_family", "acc_region"])
def test_a_name_that_means_nothing_is_an_error(name):
    logits, labels = random_case(0)
    with pytest.raises(ValueError, match=f"no metric is called {name}"):
        classification.classification(
            logits, labels, [name], {"region": labels.numpy()}, {"family": FAMILY}
        )


@pytest.mark.parametrize("seed", range(3))
def test_confusion_and_the_table_of_classes_are_sklearns(seed):
    logits, labels = random_case(seed, n=60)
    labels[labels == 4] = 3  # 4 and 6 are never a label
    logits[:, 5] -= 99  # 5 is never predicted
    predicted = logits.argmax(1)
    counts = classification.confusion(logits, labels)
    assert counts.dtype == np.int64
    theirs = confusion_matrix(labels, predicted, labels=range(7))
    np.testing.assert_array_equal(counts.toarray(), theirs)
    classes = [f"class {k}" for k in range(7)]
    table = classification.per_class(counts, classes)
    theirs = classification_report(
        labels, predicted, labels=range(7), output_dict=True, zero_division=np.nan
    )
    for k, row in table.iterrows():
        expected = theirs[str(k)]
        assert row["class"] == classes[k]
        assert row["n"] == expected["support"] == (labels == k).sum()
        assert row["correct"] == ((labels == k) & (predicted == k)).sum()
        assert row["recall"] == pytest.approx(expected["recall"], nan_ok=True)
        assert row["precision"] == pytest.approx(expected["precision"], nan_ok=True)
        assert row["f1"] == pytest.approx(expected["f1-score"], nan_ok=True)
    assert np.isnan(table["recall"][[4, 6]]).all()
    assert np.isnan(table["precision"][5])
    present = table[table["n"] > 0]
    assert present["recall"].mean() == pytest.approx(classification.mean_per_class(logits, labels))
    assert present["f1"].mean() == pytest.approx(classification.macro_f1(logits, labels))


def test_the_table_says_what_a_class_is_confused_with_and_what_stays_in_its_family():
    classes = ["707-320", "727-200", "A300B4", "A310"]
    levels = {"family": ["Boeing 707", "Boeing 727", "A300", "A310"], "maker": [0, 0, 1, 1]}
    labels = [0, 0, 0, 0, 1, 1, 1, 2, 2]
    predicted = [0, 1, 1, 2, 3, 2, 1, 2, 2]
    counts = classification.confusion(one_hot(predicted, 4), torch.tensor(labels))
    table = classification.per_class(counts, classes, levels)
    expected = pd.DataFrame(
        {
            "label": [0, 1, 2, 3],
            "class": classes,
            "family": levels["family"],
            "maker": levels["maker"],
            "n": [4, 3, 2, 0],
            "correct": [1, 1, 2, 0],
            "recall": [0.25, 1 / 3, 1, np.nan],
            "precision": [1, 1 / 3, 0.5, 0],
            "f1": [0.4, 1 / 3, 2 / 3, 0],
            "confused_with": ["727-200", "A300B4", None, None],  # 1: a tie of A300B4 and A310
            "confused": [2, 1, 0, 0],
            "errors_within_family": [0, 0, 0, 0],
            "errors_within_maker": [2, 0, 0, 0],
        }
    )
    pd.testing.assert_frame_equal(table, expected)


@pytest.fixture
def deterministic():
    """As in every run: ``trainer.deterministic=warn``."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(("n", "classes"), [(20_000, 1_000), (2_000, 10_000)])
def test_memory_does_not_grow_with_the_square_of_the_classes(n, classes, deterministic):
    rng = np.random.default_rng(classes)
    labels = torch.tensor(rng.integers(0, classes, n))
    logits = torch.tensor(rng.normal(size=(n, classes)).astype(np.float32))
    logits[torch.arange(0, n, 3), labels[::3]] += 9
    family = (np.arange(classes) // 10).tolist()
    with limits.memory(200):
        got = classification.classification(logits, labels, (*NAMES, "acc_x"), levels={"x": family})
        counts = classification.confusion(logits, labels)
        table = classification.per_class(counts, [f"c{k}" for k in range(classes)], {"x": family})
    predicted = logits.argmax(1).numpy()
    right = pd.Series(predicted == labels.numpy())
    assert got["acc"] == right.mean()
    assert got["mean_per_class"] == pytest.approx(right.groupby(labels.numpy()).mean().mean())
    assert got["acc5"] == top_k_accuracy_score(labels, logits, k=5, labels=range(classes))
    assert got["loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)))
    seen = table[table["n"] > 0]
    assert seen["recall"].mean() == pytest.approx(got["mean_per_class"], abs=1e-12)
    assert seen["f1"].mean() == pytest.approx(got["macro_f1"], abs=1e-12)
    errors = pd.DataFrame({"true": labels.numpy(), "said": predicted})[~right]
    most = errors.value_counts(sort=False).groupby("true").max()
    assert (table["confused"].to_numpy()[most.index] == most).all()
    assert table["confused"].sum() == most.sum()
    within = (errors["true"] // 10 == errors["said"] // 10).sum()
    assert table["errors_within_x"].sum() == within
    assert counts.sum() == n


@pytest.mark.parametrize("classes", [2, 7, 102])
def test_counts_are_torchmetrics_to_the_bit(classes):
    logits, labels = random_case(5, n=1020, classes=classes)
    tp, fp, _, fn, support = (
        multiclass_stat_scores(logits.argmax(1), labels, num_classes=classes, average=None)
        .double()
        .unbind(1)
    )
    seen = support > 0
    assert classification.mean_per_class(logits, labels) == float((tp[seen] / support[seen]).mean())
    f1 = 2 * tp / (2 * tp + fp + fn).clamp(min=1)
    assert classification.macro_f1(logits, labels) == float(f1[seen].mean())
    assert classification.loss(logits, labels) == float(
        torch.nn.functional.cross_entropy(logits, labels)
    )
