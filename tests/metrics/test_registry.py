"""What the registry says of metrics, and that everything it names exists."""

import subprocess
import sys

import pytest

from clipbench.metrics import registry
from clipbench.reporting.tensorboard import boards


def test_the_registry_needs_no_torch():
    code = "import sys, clipbench.metrics.registry; print({'torch', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_address_is_that_of_a_function():
    for metric in registry.METRICS.values():
        for address in filter(None, (metric.function, metric.resampled)):
            assert callable(registry.resolve(address)), address


def test_a_name_is_found_with_its_split_and_alpha_or_by_a_pattern():
    accuracy = registry.METRICS["acc"]
    for metric in ("acc", "val/acc", "test/acc@alpha", "chosen/test/acc@alpha=0.5"):
        assert registry.of(metric) is accuracy
    assert registry.of("test/acc_family").counts_images
    assert not registry.of("test/acc_worst_region@alpha=0.5").counts_images
    assert registry.of("val/image_recall@5").printed == "image_recall@5"
    unknown = registry.of("test/unheard_of")
    assert (unknown.label, unknown.bounded, unknown.lower_is_better) == ("unheard_of", True, False)


def test_losses_and_ranks_have_no_upper_end():
    names = ("train/loss", "val/text_median_rank", "test/ece", "test/macro_f1")
    assert [registry.of(name).bounded for name in names] == [False, False, True, True]


@pytest.mark.parametrize(
    ("share", "classes", "expected"),
    [(0.5, 2, (0.5, 0.5, 1 / 3)), (0.25, 4, (0.25, 0.25, 0.1))],
)
def test_guessing_the_largest_class(share, classes, expected):
    values = [registry.METRICS[name].guess(share, classes) for name in registry.PAIRED]
    assert values == pytest.approx(expected)


def test_the_charts_are_those_of_the_registry():
    assert boards.charts() == {
        "val": {
            "accuracy": "^val/acc$",
            "mean per class": "^val/mean_per_class$",
            "macro-F1": "^val/macro_f1$",
            "loss": "^val/loss$",
        },
        "training": {"loss": "^train/loss$", "learning rate": "^lr-"},
        "retrieval, val": {
            "a text finds its image": "^val/image_recall@",
            "an image finds its text": "^val/text_recall@",
        },
    }
