"""Temperature scaling, against a search along a grid."""

import pytest
import torch
import torch.nn.functional as F

from clipbench.metrics import classification
from clipbench.metrics.calibration import temperature
from tests import limits


def overconfident(seed, factor, n=400, classes=5):
    """Logits that would be calibrated if divided by the factor."""
    generator = torch.Generator().manual_seed(seed)
    honest = 1.5 * torch.randn(n, classes, generator=generator)
    labels = torch.multinomial(honest.softmax(1), 1, generator=generator)[:, 0]
    return factor * honest, labels


@pytest.mark.parametrize("factor", [0.2, 1.0, 6.0])
def test_it_is_the_minimum_along_a_grid_and_mends_the_calibration(factor):
    logits, labels = overconfident(0, factor)
    found = temperature(logits, labels)
    grid = torch.logspace(-2, 2, 4001, dtype=torch.float64)
    losses = torch.stack([F.cross_entropy(logits.double() / t, labels) for t in grid])
    assert found == pytest.approx(float(grid[losses.argmin()]), rel=2e-3)
    assert found == pytest.approx(factor, rel=0.2)
    if factor != 1:
        assert classification.ece(logits / found, labels) < classification.ece(logits, labels) / 2


def test_it_stays_finite_without_a_mistake_with_nothing_but_and_where_a_class_is_no_choice():
    labels = torch.arange(4)
    assert 0.01 <= temperature(5 * torch.eye(4), labels) < 0.5
    assert 5 < temperature(5 * torch.eye(4), labels.roll(1)) <= 101
    logits, labels = overconfident(1, 2.0)
    among = logits.clone()
    among[:, 4] = float("-inf")
    rows = labels != 4
    expected = temperature(logits[rows, :4], labels[rows])
    assert temperature(among[rows], labels[rows]) == pytest.approx(expected)


def test_it_works_on_a_part_of_many_classes_at_a_time():
    logits, labels = overconfident(2, 3.0, n=4000, classes=1000)
    few = temperature(logits[:1500], labels[:1500])
    with limits.memory(100):
        assert temperature(logits, labels) == pytest.approx(few, rel=0.02)
