"""LP-FT: the head that a probe fits is where fine-tuning starts."""

import numpy as np
import torch
import torch.nn.functional as F

from clipbench.core.config.instantiate import build
from clipbench.core.jobs import Job
from clipbench.strategies.linear_probe import LinearProbe
from clipbench.training.run import execute
from tests.conftest import FEW, composed, result_jsons
from tests.strategies.test_finetune import TASK, tower

CLIP = ("model=clip_tiny", "model.pretrained=null")


def test_it_starts_from_the_head_of_a_linear_probe():
    strategy = build(composed("strategy=lp_ft", *CLIP)["strategy"])
    assert strategy.fits_head == "start"
    assert strategy.frozen_statistics
    generator = torch.Generator().manual_seed(0)
    rows = {
        n: (torch.randn(30, 128, generator=generator), torch.arange(30) % 3)
        for n in ("train", "val")
    }
    heads = []
    for way in (strategy, LinearProbe()):
        classifier = way.prepare(tower(), TASK)
        way.fit_head(classifier, rows.__getitem__)
        heads.append(classifier.head.weight.detach())
    assert torch.equal(*heads)
    assert classifier.head.weight.detach().abs().sum() > 0
    with torch.no_grad():
        seen = F.normalize(rows["train"][0], dim=-1)
        torch.testing.assert_close(classifier.classify(rows["train"][0]), classifier.head(seen))


def test_a_rescaled_head_has_a_random_ones_spread_and_the_same_answers():
    """normalize_lp of the authors' code: over np.std of the fit, times np.std of a new layer."""
    generator = torch.Generator().manual_seed(0)
    rows = {
        n: (torch.randn(30, 128, generator=generator), torch.arange(30) % 3)
        for n in ("train", "val")
    }
    heads = {}
    for rescale in (False, True):
        words = ("strategy=lp_ft", f"strategy.rescale_head={rescale}", *CLIP)
        strategy = build(composed(*words)["strategy"])
        torch.manual_seed(0)
        classifier = strategy.prepare(tower(), TASK)
        random = classifier.head.weight.detach().numpy().copy()
        strategy.fit_head(classifier, rows.__getitem__)
        heads[rescale] = [p.detach().numpy() for p in classifier.head.parameters()]
    factor = np.std(random) / np.std(heads[False][0])
    assert not np.isclose(factor, 1, atol=0.1)
    for ours, fitted in zip(heads[True], heads[False], strict=True):
        np.testing.assert_allclose(ours, fitted * factor, rtol=1e-5)


def test_a_fitted_head_learns_as_fast_as_the_rest():
    """Ten times is for a new one: in an epoch it undid a fit of solar cells (0.875 to 0.312)."""
    new, fitted = (
        composed("model=efficientnet_lite0", f"strategy={s}") for s in ("finetune", "lp_ft")
    )
    assert (new["head_lr_factor"], fitted["head_lr_factor"]) == (10.0, 1.0)
    assert composed("strategy=lp_ft", "head_lr_factor=3")["head_lr_factor"] == 3.0


def test_epoch_0_of_its_run_is_the_last_of_the_probes(outputs):
    """With one classifier for both, the same pictures and the same fit."""
    found = {}
    for strategy in ("linear_probe", "lp_ft"):
        words = (*CLIP, *FEW, "seed=1", "lr=1e-5", f"strategy={strategy}")
        choices = {"model": "clip_tiny", "dataset": "shapes", "strategy": strategy}
        outcome = execute(Job(composed(*words), choices, list(words)))
        assert outcome.status == "completed", outcome.error
    for _, record in result_jsons(outputs):
        found[record["strategy"]] = record
    probed, tuned = found["linear_probe"]["curve"][1], found["lp_ft"]["curve"][0]
    assert tuned["val/loss"] == np.float64(probed["val/loss"])
    assert tuned["val/acc"] == probed["val/acc"]
    assert [row["epoch"] for row in found["lp_ft"]["curve"]] == [0, 1]
    assert found["lp_ft"]["steps"]["total"] > 0


def test_classes_drawn_evenly_are_refused_for_a_fit(outputs):
    words = (*CLIP, *FEW, "strategy=lp_ft", "dataset.balance=sampler")
    choices = {"model": "clip_tiny", "dataset": "shapes", "strategy": "lp_ft"}
    outcome = execute(Job(composed(*words), choices, list(words)))
    assert outcome.status == "failed"
    assert "Use dataset.balance=weights" in outcome.error
