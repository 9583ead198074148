import pytest

from clipbench import guards
from clipbench.errors import Refused
from clipbench.optim import Schedule


def test_the_blogs_warmup_is_refused_with_its_cause():
    with pytest.raises(Refused, match=r"500 steps never ends in a run of 20 steps.*4%.*warmup=0.1"):
        guards.warmup(Schedule(20, 500), lr=3e-5, epochs=10, allowed=False)
    guards.warmup(Schedule(20, 500), lr=3e-5, epochs=10, allowed=True)
    guards.warmup(Schedule(20, 19), lr=3e-5, epochs=10, allowed=False)


def test_no_steps_is_an_error_even_when_unfinished_warmup_is_allowed():
    with pytest.raises(Refused, match="no training step"):
        guards.warmup(Schedule(0, 0), lr=1.0, epochs=0, allowed=True)


def test_the_published_number_of_flowers102_is_found_and_others_are_not():
    found = guards.published_zero_shot("ViT-B-32-quickgelu", "openai", "vtab/flowers")
    assert found == pytest.approx(0.66, abs=0.01)
    assert guards.published_zero_shot("ViT-B-32-quickgelu", None, "vtab/flowers") is None
    assert guards.published_zero_shot("ViT-B-32-quickgelu", "openai", None) is None
    assert guards.published_zero_shot("ViT-B-32-quickgelu", "nobody", "vtab/flowers") is None


def test_zero_shot_gate():
    def ask(acc, reference, gate=True):
        return guards.zero_shot({"val/acc": acc}, classes=102, reference=reference, gate=gate)

    with pytest.raises(Refused, match="names and labels disagree"):
        ask(0.05, 0.66)
    assert "disagree" in ask(0.05, 0.66, gate=False)
    assert ask(0.34, 0.66) is None
    assert "at chance" in ask(0.01, None)  # nothing to compare with: a warning, no stop
    assert ask(0.2, None) is None
