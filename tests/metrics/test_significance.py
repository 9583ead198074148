"""Comparisons of saved predictions: against sklearn, statsmodels, theory, and where nothing is."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from statsmodels.stats.contingency_tables import mcnemar as exact

from clipbench.core.errors import UserError
from clipbench.metrics import registry, significance
from clipbench.metrics.intervals import wilson
from clipbench.metrics.seeds import t_test
from clipbench.metrics.significance import difference
from clipbench.results import record as record_module
from clipbench.results import store
from clipbench.results.comparison import compare, compare_all, over_images

LABELS = np.random.default_rng(0).choice(5, 400, p=[0.4, 0.3, 0.2, 0.07, 0.03])


SKLEARN = {
    "acc": accuracy_score,
    "mean_per_class": balanced_accuracy_score,
    "macro_f1": lambda truth, predicted: f1_score(
        truth, predicted, average="macro", labels=np.unique(truth)
    ),
}


def guesses(seed, right, labels=LABELS):
    """Predictions that are right with some probability."""
    rng = np.random.default_rng(seed)
    wrong = rng.integers(0, 5, len(labels))
    return np.where(rng.random(len(labels)) < right, labels, wrong)


@pytest.fixture
def saved(tmp_path):
    """Writes a run's record and predictions, its rows in an order of their own."""

    def write(name, predicted, labels=LABELS, sha256="a" * 64, **more):
        folder = tmp_path / name
        folder.mkdir()
        rows = {"split": "test", "id": [f"{i}.png" for i in range(len(labels))]}
        frame = pd.DataFrame({**rows, "label": labels, "prediction": predicted})
        other = frame.assign(split="val", prediction=0)
        order = np.random.default_rng(len(name)).permutation(len(frame))
        pd.concat([other, frame.iloc[order]]).to_parquet(folder / "predictions.parquet")
        data = {"test": {"sha256": sha256, **more}}
        record = {"schema": record_module.SCHEMA, "data": data, "varies": True}
        store.write(folder, record)
        return folder

    return write


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_every_resample_is_scored_as_sklearn_scores_it():
    first, second = guesses(1, 0.6), guesses(2, 0.3)
    rng = np.random.default_rng(3)
    draws = rng.integers(0, 400, (20, 400))
    draws[0] = np.flatnonzero(LABELS < 3)[rng.integers(0, (LABELS < 3).sum(), 400)]  # two missing
    for metric in registry.PAIRED:
        found = significance._scorer(LABELS, [first, second], metric)(draws)
        for i, draw in enumerate(draws):
            for run, predicted in enumerate((first[draw], second[draw])):
                truth = LABELS[draw]
                expected = SKLEARN[metric](truth, predicted)
                assert found[run, i] == pytest.approx(expected, abs=1e-12)


def test_two_single_runs_are_compared_picture_by_picture(saved):
    first, second = guesses(1, 0.55), guesses(2, 0.65)
    found = compare([saved("a", first)], [saved("second", second)])
    hit, other = first == LABELS, second == LABELS
    table = [[(hit & other).sum(), (hit & ~other).sum()], [(~hit & other).sum(), 0]]
    assert found.p == pytest.approx(exact(table, exact=True).pvalue)
    assert found.estimate == pytest.approx(other.mean() - hit.mean())
    assert (found.test, found.n, found.seeds) == ("exact McNemar", 400, (1, 1))
    # The normal interval of a mean of paired differences, which the bootstrap's nears.
    half = 1.96 * (other.astype(float) - hit).std() / 20
    assert found.low == pytest.approx(found.estimate - half, abs=0.006)
    assert found.high == pytest.approx(found.estimate + half, abs=0.006)


def test_the_interval_of_one_run_nears_wilsons(saved):
    run = saved("a", guesses(1, 0.6))
    found = over_images(run, "test", "acc")
    theirs = wilson(found.estimate, 400)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.006)
    with pytest.raises(UserError, match="no test for loss"):
        over_images(run, "test", "loss")


def test_seeds_count_as_well_as_pictures(saved):
    """Welch's variance over seeds, the pictures' own added: worked by hand for the accuracy."""
    rights = {"a": (0.3, 0.5, 0.7), "b": (0.45, 0.65, 0.8, 0.75)}
    runs = {
        side: [guesses(10 * ord(side) + i, right) for i, right in enumerate(of)]
        for side, of in rights.items()
    }
    folders = {s: [saved(f"{s}{i}", p) for i, p in enumerate(of)] for s, of in runs.items()}
    hits = {s: np.stack([p == LABELS for p in of]).astype(float) for s, of in runs.items()}
    each = {s: of.mean(1) for s, of in hits.items()}
    found = compare(folders["a"], folders["b"], resamples=4000)
    assert (found.metric, found.seeds) == ("test/acc", (3, 4))
    assert found.estimate == pytest.approx(each["b"].mean() - each["a"].mean())
    a, b = each["a"].var(ddof=1) / 3, each["b"].var(ddof=1) / 4
    pictures = (hits["b"].mean(0) - hits["a"].mean(0)).var() / 400
    error = np.sqrt(a + b + pictures)
    freedom = (a + b) ** 2 / (a**2 / 2 + b**2 / 3)  # Welch's, of the seeds alone
    half = stats.t.ppf(0.975, freedom) * error
    assert found.high - found.low == pytest.approx(2 * half, rel=0.02)
    assert found.p == pytest.approx(2 * stats.t.sf(found.estimate / error, freedom), rel=0.02)
    # The seeds are Welch's: without pictures it is his test.
    welch = stats.ttest_ind(each["b"], each["a"], equal_var=False)
    interval = welch.confidence_interval()
    alone = t_test(found.estimate, [(a, 2), (b, 3)], None)
    assert alone == pytest.approx((interval.low, interval.high, welch.pvalue))


def test_with_seeds_that_agree_the_pictures_alone_count():
    one, other = guesses(1, 0.5), guesses(2, 0.6)
    several = difference(LABELS, [one, one, one], [other, other], resamples=4000)
    paired_t = stats.ttest_rel(*((p == LABELS).astype(float) for p in (other, one)))
    assert several.p == pytest.approx(paired_t.pvalue, rel=0.1)
    interval = paired_t.confidence_interval()
    assert (several.low, several.high) == pytest.approx(interval, abs=0.004)
    assert difference(LABELS, [one, one], [one]).p == 1


def test_where_there_is_no_difference_none_is_found():
    """With seeds that scatter, single runs would find one most of the time."""
    found, naive = [], []
    rng = np.random.default_rng(5)
    for _ in range(60):
        sides = [
            [guesses(rng.integers(1 << 30), rng.uniform(0.3, 0.7)) for _ in range(3)] for _ in "ab"
        ]
        found.append(difference(LABELS, *sides, resamples=100).p)
        naive.append(difference(LABELS, sides[0][:1], sides[1][:1], resamples=10).p)
    assert np.mean(np.array(found) < 0.05) <= 0.1
    assert np.mean(np.array(naive) < 0.05) > 0.5


def test_other_splits_are_refused_by_name(saved):
    one, other = saved("one", LABELS), saved("other", LABELS, sha256="b" * 64)
    with pytest.raises(UserError, match=r"one and .*other saw different .*aaaaaaaa and bbbbbbbb"):
        compare([one], [other])
    images = [saved(name, LABELS, content=name * 64) for name in "xy"]
    with pytest.raises(
        UserError, match="the images of equal names are others, xxxxxxxx and yyyyyyy"
    ):
        compare(*([run] for run in images))
    with pytest.raises(UserError, match="one is of before content was recorded; run it again"):
        compare([one], [images[0]])
    with pytest.raises(UserError, match="no record of split=test_ood"):
        compare([one], [one], "test_ood")
    with pytest.raises(UserError, match="a run on either side"):
        compare([one], [])
    (other / "predictions.parquet").unlink()
    with pytest.raises(UserError, match=r"other has no predictions\.parquet"):
        over_images(other, "test", "acc")
    with pytest.raises(UserError, match="no predictions of split=test_ood"):
        over_images(one, "test_ood", "acc")


def test_every_pair_is_compared(saved):
    models = {
        name: [saved(name, guesses(i, right))]
        for i, (name, right) in enumerate({"low": 0.2, "high": 0.9, "middle": 0.5}.items())
    }
    compared = compare_all(models, resamples=200)
    assert set(compared) == {("low", "high"), ("low", "middle"), ("high", "middle")}
    assert compared["low", "high"].estimate > 0 > compared["high", "middle"].estimate
    assert all(one.of_these_runs and not one.claimed for one in compared.values())
