"""How sure a difference is when training is random: on heads that were trained here."""

import itertools

import numpy as np
import pytest
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from clipbench.metrics.seeds import Side, spread, t_test
from clipbench.metrics.significance import difference

CONFIGURATIONS, SEEDS, N = 8, 6, 600


@pytest.fixture(scope="module")
def trained():
    """Of each configuration the labels of a test split, and what six seeds predict for it."""
    images, labels = load_digits(return_X_y=True)
    found = []
    for number in range(CONFIGURATIONS):
        order = np.random.default_rng(number).permutation(len(labels))
        train, test = order[:250], order[250 : 250 + N]
        runs = []
        for seed in range(SEEDS):
            head = MLPClassifier((24,), max_iter=15, batch_size=32, random_state=seed)
            head.set_params(learning_rate_init=0.01)
            runs.append(head.fit(images[train] / 16, labels[train]).predict(images[test] / 16))
        found.append((labels[test], runs))
    return found


def mixes(first, second):
    """Every choice of so many seeds for either side, no seed on both."""
    for one in itertools.combinations(range(SEEDS), first):
        left = [seed for seed in range(SEEDS) if seed not in one]
        for other in itertools.combinations(left, second):
            if first != second or one < other:
                yield one, other


def told(labels, runs, one, other):
    return difference(labels, [runs[i] for i in one], [runs[i] for i in other], resamples=100)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("sides", [(1, 1), (1, 3), (3, 1), (3, 3)])
def test_of_one_configuration_at_most_one_comparison_in_twenty_is_claimed(trained, sides):
    found = [[told(labels, runs, *mix) for mix in mixes(*sides)] for labels, runs in trained]
    assert np.mean([one.claimed for configuration in found for one in configuration]) <= 0.05
    if sides == (1, 1):  # which is not for want of differences between these trained models
        assert any(one.of_these_runs for configuration in found for one in configuration)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_planted_difference_of_eight_points_is_claimed_of_three_seeds_a_side(trained):
    claimed = []
    for number, (labels, runs) in enumerate(trained):
        rng = np.random.default_rng(number)
        worse = []
        for run in runs:
            right = np.flatnonzero(run == labels)
            spoilt = run.copy()
            spoilt[rng.permutation(right)[: round(0.08 * N)]] += 10  # no class is that
            worse.append(spoilt)
        for one, other in mixes(3, 3):
            both = [[runs[i] for i in one], [worse[i] for i in other]]
            found = difference(labels, *both, resamples=100)
            claimed.append(found.claimed and found.estimate < 0)
    assert np.mean(claimed) >= 0.8


def test_one_seed_borrows_from_several_what_it_can_not_know():
    several, one = Side([0.9, 0.92, 0.91], varies=True), Side([0.8], varies=True)
    found = spread(one, several)
    assert found == spread(several, one)
    assert found.known
    assert found.parts == [(pytest.approx(np.var(several.values, ddof=1) * (1 + 1 / 3)), 2)]
    assert not spread(one, one).known
    still = Side([0.8, 0.8, 0.8], varies=True)  # no seed beat its start: nothing to borrow
    assert not spread(one, still).known
    fixed = Side([0.8], varies=False)
    assert spread(fixed, fixed).known
    assert spread(fixed, fixed).parts == []
    assert not spread(fixed, one).known
    ((variance, freedom),) = spread(fixed, several).parts
    assert (variance, freedom) == (pytest.approx(np.var(several.values, ddof=1) / 3), 2)


def test_over_seeds_alone_it_is_welchs_test_and_of_a_fixed_side_students():
    one, other = [0.81, 0.79, 0.84, 0.80], [0.84, 0.86, 0.85]
    training = spread(Side(one, varies=True), Side(other, varies=True))
    found = t_test(np.mean(other) - np.mean(one), training.parts, None)
    welch = stats.ttest_ind(other, one, equal_var=False)
    assert found == pytest.approx((*welch.confidence_interval(), welch.pvalue))
    training = spread(Side([0.8], varies=False), Side(other, varies=True))
    student = stats.ttest_1samp(other, 0.8)
    assert t_test(np.mean(other) - 0.8, training.parts, None)[2] == pytest.approx(student.pvalue)


def test_a_single_run_is_said_to_be_one(trained):
    labels, runs = trained[0]
    spoilt = np.where(np.arange(N) < 200, runs[1] + 10, runs[1])
    found = difference(labels, [runs[0]], [spoilt], resamples=100)
    assert (found.test, found.claimed, found.of_these_runs) == ("exact McNemar", False, True)
    found = difference(labels, [runs[0]], [spoilt], resamples=100, varies=(False, False))
    assert (found.test, found.claimed, found.of_these_runs) == ("exact McNemar", True, False)
    three = difference(labels, runs[:3], [spoilt], resamples=100)
    assert (three.test, three.covers_seeds) == ("Welch's t over seeds and images", True)
    assert three.claimed
