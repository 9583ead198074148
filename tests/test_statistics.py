"""Intervals and tests against statsmodels and published examples."""

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar as theirs
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

from clipbench.statistics import holm, mcnemar, over_seeds, wilson

# r, n and the interval that Newcombe 1998 (Statistics in Medicine 17, table I, method 3) prints.
NEWCOMBE = [
    (81, 263, 0.2553, 0.3662),
    (15, 148, 0.0624, 0.1605),
    (0, 20, 0.0000, 0.1611),
    (1, 29, 0.0061, 0.1718),
]


@pytest.mark.parametrize(("r", "n", "low", "high"), NEWCOMBE)
def test_wilson_is_newcombes_and_statsmodels(r, n, low, high):
    found = wilson(r / n, n)
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))
    expected = proportion_confint(r, n, method="wilson")
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-12)
    assert (found.over, found.n) == ("pictures", n)


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_interval_over_seeds_is_students(level):
    values = [0.81, 0.79, 0.84, 0.80, 0.825]
    found = over_seeds(values, level)
    expected = DescrStatsW(values).tconfint_mean(1 - level)
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-12)
    assert found.estimate == pytest.approx(np.mean(values))


def test_of_one_seed_there_is_no_interval_and_of_equal_ones_no_width():
    one = over_seeds([0.8])
    assert one.estimate == 0.8
    assert np.isnan([one.low, one.high]).all()
    same = over_seeds([0.5, 0.5, 0.5])
    assert (same.low, same.high) == (0.5, 0.5)


def paired(both, first, second, neither):
    """Two vectors of right and wrong with these counts."""
    right = np.repeat([[1, 1], [1, 0], [0, 1], [0, 0]], [both, first, second, neither], axis=0)
    return right[:, 0].astype(bool), right[:, 1].astype(bool)


# Agresti's approval ratings (Categorical Data Analysis, table 10.1), and small tables.
@pytest.mark.parametrize(
    "table", [(794, 150, 86, 570), (59, 6, 16, 80), (5, 0, 6, 1), (3, 2, 2, 3)]
)
def test_mcnemar_is_statsmodels_exact_test(table):
    both, first, second, neither = table
    expected = theirs([[both, first], [second, neither]], exact=True).pvalue
    assert mcnemar(*paired(*table)) == pytest.approx(expected, abs=1e-12)


def test_mcnemar_by_hand():
    # Six pictures tell, and all for one side: 2 / 2^6.
    assert mcnemar(*paired(5, 0, 6, 1)) == pytest.approx(2 / 64)
    assert mcnemar(*paired(5, 0, 0, 1)) == 1


def test_holm_is_statsmodels():
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 10):
        ps = rng.uniform(0, 0.2, n).tolist()
        assert holm(ps) == pytest.approx(multipletests(ps, method="holm")[1].tolist(), abs=1e-15)
    assert holm([]) == []
