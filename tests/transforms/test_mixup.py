"""Mixup and cutmix, against timm's, a formula by hand, and the whole batch for its parts."""

import pytest
import torch
import torch.nn.functional as F
from timm.data.mixup import Mixup
from timm.loss import SoftTargetCrossEntropy

from clipbench.core.jobs import Job
from clipbench.results import identity
from clipbench.strategies.base import cross_entropy
from clipbench.strategies.ce_text import CEText
from clipbench.strategies.finetune import Finetune
from clipbench.training.module import ClassificationModule
from clipbench.training.run import execute
from clipbench.training.schedule import Schedule
from clipbench.transforms.augment import Augment
from clipbench.transforms.mixup import MixUp
from tests.conftest import FEW, TINY, composed, result_jsons
from tests.training.test_module import TASK, TIMM_VIT, batches, measure, recipe_of, tower

WEIGHTS = torch.tensor([0.5, 1.0, 2.0])


def mixed(step, batch, **augment):
    return MixUp(Augment(**augment), 3, seed=4)(batch, step)


def share_of(one, before, made):
    """The share of a row in a mixture, from its image: constant over the image."""
    shares = (made - before) / (one - before)
    usual = shares[(one - before).abs() > 0.1]
    assert usual.max() - usual.min() < 1e-3
    return usual.mean()


def test_it_is_a_function_of_seed_and_step_and_of_nothing_else():
    (batch,) = batches(1)
    before = torch.get_rng_state()
    looks = [mixed(step, batch, mixup=0.8, cutmix=1.0) for step in range(6)]
    again = [mixed(step, batch, mixup=0.8, cutmix=1.0) for step in range(6)]
    assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(looks, again, strict=True):
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["label"], other["label"])
    assert len({float(look["image"].square().sum()) for look in looks}) == 6
    assert torch.equal(batch["image"], batches(1)[0]["image"]), "the batch was changed"
    seldom = [mixed(step, batch, mixup=0.8, mixup_probability=0.3) for step in range(100)]
    assert 15 < sum(look["label"].ndim == 2 for look in seldom) < 45


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_labels_are_shares_of_what_is_in_the_image(kind):
    (batch,) = batches(1)
    image, label = batch["image"], F.one_hot(batch["label"], 3).float()
    for step in range(5):
        look = mixed(step, batch, **{kind: 1.0})
        if kind == "mixup":
            share = share_of(image[1], image[0], look["image"][1])
        else:
            share = (look["image"][1] == image[1]).float().mean()
        torch.testing.assert_close(look["label"], share * label + (1 - share) * label.roll(1, 0))
        first = share * image[0] + (1 - share) * image[-1]  # the first is mixed with the last
        assert kind == "cutmix" or torch.allclose(look["image"][0], first, atol=1e-3)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_image_and_loss_are_timms_on_the_same_draw(smoothing):
    """timm mixes a batch with itself backwards, torchvision moved by one: of two rows, the same."""
    (batch,) = batches(1, rows=2)
    look = mixed(3, batch, mixup=0.8)
    share = float(share_of(batch["image"][0], batch["image"][1], look["image"][0]))
    theirs = Mixup(mixup_alpha=0.8, label_smoothing=smoothing, num_classes=3)
    theirs._params_per_batch = lambda: (share, False)
    image, target = theirs(batch["image"].clone(), batch["label"])
    torch.testing.assert_close(look["image"], image, rtol=1e-4, atol=1e-4)
    scores = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    ours = cross_entropy(scores, look["label"], smoothing=smoothing, weights=None)
    torch.testing.assert_close(ours, SoftTargetCrossEntropy()(scores, target), rtol=1e-4, atol=1e-4)


def module_of(strategy, classifier, *overrides, weights=WEIGHTS):
    recipe = recipe_of("label_smoothing=0.1", *overrides)
    made = ClassificationModule(classifier, strategy, recipe, Schedule(9, 0), measure, weights)
    made.mixup = MixUp(Augment(mixup=1.0), 3, seed=4)
    return made


@pytest.mark.parametrize("micro", ["null", "5"])
def test_the_loss_of_a_step_is_the_formula_whole_and_in_parts(micro):
    """Weights of classes and smoothing too; 13 rows by 5 are 5, 5 and 3."""
    (batch,) = batches(1)
    strategy = Finetune(head="random")
    classifier = strategy.prepare(tower(*TIMM_VIT), TASK).eval()
    made = module_of(strategy, classifier, f"micro_batch={micro}")
    loss = sum(share * part() for share, part in made._losses(batch))
    loss.backward()
    found = classifier.head.weight.grad.clone()

    look = mixed(0, batch, mixup=1.0)
    logs = classifier(look["image"]).log_softmax(-1)
    target = look["label"] * 0.9 + 0.1 / 3
    by_hand = -(target * WEIGHTS * logs).sum() / 13
    torch.testing.assert_close(loss, by_hand)
    classifier.zero_grad()
    by_hand.backward()
    torch.testing.assert_close(found, classifier.head.weight.grad)
    # without either, it is the mixture of both labels' losses
    plain = cross_entropy(classifier(look["image"]), look["label"], smoothing=0.0, weights=None)
    share = float(share_of(batch["image"][0], batch["image"][-1], look["image"][0]))
    one, other = (F.cross_entropy(logs, y) for y in (batch["label"], batch["label"].roll(1)))
    torch.testing.assert_close(plain, share * one + (1 - share) * other, rtol=1e-3, atol=1e-4)


def test_a_live_text_tower_takes_shares_too():
    (batch,) = batches(1, size=64)
    strategy = CEText(seed=0)
    torch.manual_seed(0)
    classifier = strategy.prepare(tower("model=clip_tiny"), TASK).eval()
    made = module_of(strategy, classifier, weights=None)
    ((_, loss),) = made._losses(batch)
    look = mixed(0, batch, mixup=1.0)
    tokens = classifier.tower.tokenizer()(strategy.texts(0))
    text = F.normalize(classifier.tower.encode_text(tokens), dim=-1)
    image = F.normalize(classifier.tower(look["image"]), dim=-1)
    logs = (classifier.tower.logit_scale.exp() * image @ text.T).log_softmax(-1)
    by_hand = -((look["label"] * 0.9 + 0.1 / 3) * logs).sum(-1).mean()
    torch.testing.assert_close(loss(), by_hand)


def job(strategy, *overrides):
    words = (*FEW, "augment.mixup=0.8", f"strategy={strategy}", *overrides)
    return Job(composed(*words), {"model": "m", "dataset": "shapes", "strategy": strategy}, [])


@pytest.mark.parametrize(
    ("strategy", "overrides"),
    [("flyp", ()), ("contrastive", ()), ("linear_probe", ("strategy.solver=sgd",))],
)
def test_a_strategy_that_has_no_use_for_mixed_labels_says_so(outputs, strategy, overrides):
    done = execute(job(strategy, "model=clip_tiny", *overrides))
    assert done.status == "failed"
    assert done.error.startswith(f"strategy={strategy} cannot use mixed labels")
    assert "use augment.mixup=0" in done.error


def test_a_run_mixes_what_it_trains_on_and_nothing_else(outputs):
    """With another dataset in each batch, whose images are not mixed with these."""
    mix = ("mix=shapes", "mix.subset=4", "mix.shots=2", "mix.world_seed=1", "augment=ft_clip")
    words = ("model=clip_tiny", "augment.cutmix=1", "augment.mixup=0.8", "micro_batch=5", *mix)
    done = execute(job("finetune", *words))
    assert (done.status, done.error) == ("completed", None)
    ((_, record),) = result_jsons(outputs)
    assert record["curve"][1]["train/loss"] > 0
    assert record["config"]["augment"]["mixup"] == 0.8


def test_what_is_off_leaves_the_key_alone():
    def key(*overrides):
        return identity.key(identity.identity(composed(*TINY, "dataset=shapes", *overrides)))

    config = composed(*TINY, "dataset=shapes")
    added = ("randaugment", "color_jitter", "erasing", "mixup", "cutmix", "mixup_probability")
    before = {k: v for k, v in config["augment"].items() if k not in added}
    assert key() == identity.key(identity.identity({**config, "augment": before}))
    on = ("mixup=0.8", "cutmix=1", "color_jitter=0.4", "erasing=0.25", "randaugment=rand-m9")
    assert len({key(), *(key(f"augment.{word}") for word in on)}) == 6
