"""Intervals and tests against statsmodels and published examples."""

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar as theirs
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

from clipbench.metrics import registry
from clipbench.metrics.intervals import holm, interval, mcnemar, over_seeds, wilson

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
    assert (found.over, found.n) == ("images", n)


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_interval_over_seeds_is_students(level):
    values = [0.81, 0.79, 0.84, 0.80, 0.825]
    found = over_seeds(values, level)
    expected = DescrStatsW(values).tconfint_mean(1 - level)
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-12)
    assert found.estimate == pytest.approx(np.mean(values))


@pytest.mark.parametrize("values", [[0.8], [0.8, 0.8, 0.8]])
def test_where_no_seed_tells_the_images_do(values):
    alone = over_seeds(values)
    assert alone.estimate == pytest.approx(0.8)
    assert np.isnan([alone.low, alone.high]).all()
    found = interval(values, "test/acc", 960)
    low, high = proportion_confint(768, 960, method="wilson")
    assert (found.low, found.high, found.over) == (
        pytest.approx(low),
        pytest.approx(high),
        "images",
    )


def test_an_interval_ends_where_a_fraction_does():
    values = [0.99, 0.9, 1.0]
    assert DescrStatsW(values).tconfint_mean()[1] > 1
    found = interval(values, "test/acc", 30)
    low, _ = DescrStatsW(values).tconfint_mean()
    assert (found.low, found.high, found.over) == (pytest.approx(low), 1.0, "seeds")
    loss = interval([0.01, 0.3, 2.0], "test/loss", 30)
    expected = DescrStatsW([0.01, 0.3, 2.0]).tconfint_mean()
    assert (loss.low, loss.high) == pytest.approx(expected)
    assert loss.low < 0 < 1 < loss.high


def test_wilson_is_for_a_share_of_the_images():
    counts = ["test/acc", "val/acc5", "test/acc_family", "test/acc@alpha=0.5", "test/acc@alpha"]
    others = ["test/acc_worst_region", "test/mean_per_class", "test/macro_f1", "test/loss"]
    others += ["test/image_recall@5", "test/acc_worst_region@alpha=0.5", "test/ece"]
    assert all(registry.of(metric).counts_images for metric in counts)
    for metric in others:
        assert not registry.of(metric).counts_images
        assert np.isnan(interval([0.5], metric, 100).low), metric


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
