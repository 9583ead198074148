"""How candidates are ordered."""

import math
from types import SimpleNamespace

from clipbench.reporting.page import candidates


def test_a_metric_whose_lower_values_are_better_orders_candidates_the_other_way():
    def order(metric, *values):
        stubs = [SimpleNamespace(mean=lambda key, value=value: value) for value in values]
        best = sorted(stubs, key=lambda c: -candidates._on_val(c, metric))
        return [stub.mean("") for stub in best]

    assert order("acc", 0.2, None, 0.9, 0.0) == [0.9, 0.2, 0.0, None]
    assert order("ece", 0.2, None, 0.9, 0.0) == [0.0, 0.2, 0.9, None]
    assert candidates._on_val(SimpleNamespace(mean=lambda key: None), "loss") == -math.inf
