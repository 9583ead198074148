"""The fitted head against scikit-learn by hand, and the search against trying everything."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from clipbench.core.errors import UserError
from clipbench.core.jobs import Job
from clipbench.inference import saved_model
from clipbench.models.base import Classifier, as_head, random_head
from clipbench.strategies import logistic_regression
from clipbench.strategies.base import Task
from clipbench.strategies.linear_probe import LinearProbe
from clipbench.training.run import execute
from tests.conftest import FEW, TINY, composed, result_jsons
from tests.strategies.test_finetune import TASK, resnet, tower

CHOICES = {"dataset": "shapes", "strategy": "linear_probe"}


def features(n, seed, classes=4, width=12, noise=2.5):
    """Features around one centre a class, with labels."""
    centres = np.random.default_rng(9).normal(size=(classes, width))
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    return centres[labels] + noise * rng.normal(size=(n, width)), labels.astype(np.int64)


def by_hand(train, c, **options):
    return LogisticRegression(C=c, max_iter=1000, random_state=0, **options).fit(*train)


def test_a_fit_is_scikit_learns():
    train = features(80, 0)
    weight, bias = logistic_regression.fit(train, 0.3, 4, None)
    theirs = by_hand(train, 0.3)
    np.testing.assert_array_equal(weight, theirs.coef_)
    np.testing.assert_allclose(bias, theirs.intercept_, rtol=0, atol=1e-12)


def test_two_classes_have_two_rows_whose_difference_is_scikit_learns_one():
    train = features(40, 0, classes=2)
    weight, bias = logistic_regression.fit(train, 1.0, 2, None)
    theirs = by_hand(train, 1.0)
    logits = torch.from_numpy(train[0] @ weight.T + bias)
    np.testing.assert_allclose(logits.softmax(1).numpy(), theirs.predict_proba(train[0]))


def test_class_weights_are_scikit_learns_balanced():
    x, y = features(80, 0)
    keep = (y != 1) | (np.arange(80) < 20)  # class 1 is rare
    train = x[keep], y[keep]
    counts = np.bincount(train[1])
    weight, _ = logistic_regression.fit(train, 0.5, 4, counts.sum() / (4 * counts))
    np.testing.assert_allclose(weight, by_hand(train, 0.5, class_weight="balanced").coef_)


def test_a_class_that_train_lacks_is_never_the_answer_and_its_loss_is_finite():
    x, y = features(80, 0)
    train = x[y != 2], y[y != 2]
    weight, bias = logistic_regression.fit(train, 0.5, 4, None)
    assert (weight[2] == 0).all()
    answers = (train[0] @ weight.T + bias).argmax(1)
    assert 2 not in answers
    np.testing.assert_array_equal(answers, by_hand(train, 0.5).predict(train[0]))
    assert np.isfinite(logistic_regression.scores((weight, bias), (x, y))).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_the_strength_found_is_the_best_of_all_97(seed):
    train, val = features(40, seed), features(400, 100 + seed)
    every = {}
    for step in range(97):
        model = by_hand(train, 10 ** (-6 + step / 8))
        every[step] = (model.score(*val), -_loss(model, val))
    best = max(every, key=every.get)
    c, linear = logistic_regression.swept(train, val, 4)
    assert c == pytest.approx(10 ** (-6 + best / 8))
    assert logistic_regression.scores(linear, val) == pytest.approx(every[best])


def _loss(model, rows):
    return -np.log(model.predict_proba(rows[0])[np.arange(len(rows[1])), rows[1]]).mean()


def test_the_search_tries_clips_fifteen_strengths_at_most():
    tried = []

    def score(step):
        tried.append(step)
        return (-abs(step - 37), 0.0)

    assert logistic_regression.search(score) == 37
    assert tried[:7] == [0, 16, 32, 48, 64, 80, 96]
    assert len(tried) == len(set(tried)) <= 15
    assert logistic_regression.search(lambda step: (step, 0.0)) == 96
    assert (
        logistic_regression.search(lambda step: (0.0, 0.0)) == 0
    )  # the strongest, if nothing tells


@pytest.mark.parametrize("what", ["projected", "penultimate"])
def test_the_head_reads_a_clips_features_as_it_was_fitted(what):
    clip = tower()
    strategy = LinearProbe(features=what)
    classifier = strategy.prepare(clip, TASK)
    size = clip.feature_dim
    rows = {"train": features(60, 0, 3, size), "val": features(30, 1, 3, size)}
    strategy.fit_head(classifier, lambda s: tuple(map(torch.from_numpy, rows[s])))
    x, y = rows["train"]
    seen = x / np.linalg.norm(x, axis=1, keepdims=True) if what == "projected" else x
    c, _ = logistic_regression.swept((seen, y), _seen(rows["val"], what), 3)
    expected = by_hand((seen, y), c)
    with torch.no_grad():
        logits = classifier.double().classify(torch.from_numpy(x))
    np.testing.assert_allclose(
        logits.softmax(1).numpy(), expected.predict_proba(seen), rtol=1e-4, atol=1e-6
    )


def _seen(rows, what):
    x, y = rows
    return (x / np.linalg.norm(x, axis=1, keepdims=True) if what == "projected" else x), y


def test_refitting_takes_train_and_val_for_the_test_splits_alone():
    classifier = Classifier(resnet(), random_head(resnet(), 4), meaningful=False)
    width = classifier.tower.feature_dim
    rows = {"train": features(60, 0, 4, width), "val": features(30, 1, 4, width)}
    tensors = {name: tuple(map(torch.from_numpy, pair)) for name, pair in rows.items()}
    strategy = LinearProbe(refit=True)
    strategy.fit_head(classifier, tensors.__getitem__)
    c, own = logistic_regression.swept(rows["train"], rows["val"], 4)
    np.testing.assert_allclose(classifier.head.weight.detach(), own[0], rtol=1e-5, atol=1e-7)
    ((suffix, state),) = strategy.evaluation_points(classifier)
    both = tuple(np.concatenate(pair) for pair in zip(*rows.values(), strict=True))
    assert suffix == ""
    np.testing.assert_allclose(state["head.weight"], by_hand(both, c).coef_, rtol=1e-5, atol=1e-7)
    # Where the start was better on val, it is what the test splits see.
    classifier.head.load_state_dict(as_head(torch.ones(4, width)).state_dict())
    assert list(strategy.evaluation_points(classifier)) == [("", None)]


def run(*words, model="timm"):
    words = (*words, "strategy=linear_probe")
    return execute(Job(composed(*words), {**CHOICES, "model": model}, list(words)))


def test_a_run_has_its_start_and_the_fitted_head_and_no_steps(outputs):
    words = ("model=clip_tiny", *FEW, "strategy.features=penultimate")
    outcome = run(*words, model="clip_tiny")
    assert outcome.status == "completed", outcome.error
    ((folder, record),) = result_jsons(outputs)
    assert [row["epoch"] for row in record["curve"]] == [0, 1]
    assert record["curve"][0]["val/acc"] is None
    assert record["curve"][1]["val/acc"] == record["final"]["val/acc"] > 0.2
    assert record["steps"]["total"] == 0
    again = saved_model.classifier(folder)
    assert not again.tower.normalized
    assert again.head.in_features == again.tower.feature_dim


def test_nothing_of_the_recipe_changes_a_fit(outputs):
    first = run(*TINY, *FEW, "lr=1e-3")
    second = run(*TINY, *FEW, "lr=1e-1", "epochs=7")
    assert first.key == second.key
    assert second.before


def test_what_has_no_meaning_is_refused():
    for words, message in (
        ({"solver": "newton"}, "use lbfgs or sgd"),
        ({"features": "all"}, "use projected or penultimate"),
        ({"refit": True, "solver": "sgd"}, "goes with strategy.solver=lbfgs"),
        ({"head": "lp"}, "itself what head=lp fits"),
    ):
        with pytest.raises(UserError, match=message):
            LinearProbe(**words)
    with pytest.raises(UserError, match=r"reads strategy\.features=projected"):
        LinearProbe(features="penultimate", head="zero_shot").prepare(tower(), TASK)
    with pytest.raises(UserError, match="no text side"):
        LinearProbe(head="zero_shot").prepare(resnet(), Task(["a"], [["a"]]))


def test_the_features_before_a_projection_are_what_it_projects():
    clip = tower("clip_vitb32", "model.arch=tiny-vit").eval()
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        projected = clip(image)
        clip.penultimate()
        before = clip(image)
    assert before.shape == (2, clip.feature_dim) == (2, 32)
    torch.testing.assert_close(before @ clip.model.visual.proj, projected)
    assert not torch.allclose(F.normalize(before), before)
