"""Every strategy on every family of models: what it says it trains, and no other, is what moves."""

import copy
from functools import cache, partial

import pytest
import torch

from clipbench.core.config.instantiate import build
from clipbench.core.errors import UserError
from clipbench.training import schedule
from clipbench.training.module import ClassificationModule
from tests.conftest import composed
from tests.strategies.test_finetune import TASK, batches, recipe_of, tower

TEXT, PLAIN = "with text", "without"
FAMILIES = {
    "clip_tiny": (TEXT, partial(tower, "clip_tiny")),
    "a ViT's CLIP": (TEXT, partial(tower, "clip_vitb32", "model.arch=tiny-vit-quickgelu")),
    "timm ViT": (PLAIN, partial(tower, "timm", "model.arch=test_vit", "model.image_size=32")),
    "timm ResNet": (PLAIN, partial(tower, "timm", "model.arch=test_resnet", "model.image_size=32")),
    "resnet_tiny": (PLAIN, partial(tower, "resnet_tiny")),
}
LIT = ("strategy.text.width=32", "strategy.text.layers=2", "strategy.text.heads=2")


def image(name):
    return not name.startswith("text ") and name not in ("head", "logit scale")


def beyond(name):
    """Of both towers what is behind the first block."""
    return name.removeprefix("text ") not in ("stem", "block 1", "head")


# Strategy and options -> whether a group of the classifier's trains, and whether it needs text.
CASES = {
    "zero_shot": ((), lambda name: False, True),
    "linear_probe": ((), lambda name: name == "head", False),
    "linear_probe sgd": (("strategy.solver=sgd",), lambda name: name == "head", False),
    "finetune": ((), lambda name: image(name) or name == "head", False),
    "finetune 1": (
        ("freeze_depth=1",),
        lambda name: (image(name) and beyond(name)) or name == "head",
        False,
    ),
    "finetune all": (("freeze_depth=all",), lambda name: name == "head", False),
    "lp_ft": ((), lambda name: image(name) or name == "head", False),
    "contrastive": ((), lambda name: name != "head", True),
    "contrastive 1": (("freeze_depth=1", "text_freeze_depth=1"), beyond, True),
    "image_only": ((), lambda name: image(name) or name == "logit scale", True),
    "image_only 1": (
        ("freeze_depth=1",),
        lambda name: (image(name) and beyond(name)) or name == "logit scale",
        True,
    ),
    "text_only": ((), lambda name: not image(name) and name != "head", True),
    "flyp": ((), lambda name: name != "head", True),
    "ce_text": ((), lambda name: name != "head", True),
    "lit": (LIT, lambda name: not image(name) and name != "head", False),
}


# Composing a config takes longer than all that is done here with it.
@cache
def config_of(*words):
    return composed(*words)


@cache
def recipe():
    return recipe_of("model=clip_tiny", "lr=1e-3", "weight_decay=0.1")


@cache
def made(family):
    return FAMILIES[family][1]()


def encoder_of(family):
    return copy.deepcopy(made(family))


def strategy_of(case, words):
    return build(config_of(f"strategy={case.split()[0]}", *words)["strategy"])


def train(classifier, strategy, size):
    """Three steps, or the fit of a head, as a run takes them."""
    module = ClassificationModule(classifier, strategy, recipe(), schedule.Schedule(3, 0), None)
    if strategy.fits_head:
        generator = torch.Generator().manual_seed(0)
        rows = torch.randn(12, classifier.tower.feature_dim, generator=generator)
        strategy.fit_head(classifier, lambda split: (rows, torch.arange(12) % 3))
    if not strategy.trains:
        return
    optimizer = module.configure_optimizers()["optimizer"]
    strategy.begin_epoch(classifier, 0)
    module.train()
    for step, batch in enumerate(batches(size, 3)):
        batch["captions"] = [list(TASK.prompts[label]) for label in batch["label"]]
        batch["index"] = torch.arange(len(batch["label"]))
        optimizer.zero_grad()
        strategy.loss(classifier, batch, smoothing=0.0, step=step).backward()
        optimizer.step()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", CASES)
def test_what_is_declared_moves_and_all_else_stays_to_the_bit(case, family):
    words, trains, needs_text = CASES[case]
    strategy, encoder = strategy_of(case, words), encoder_of(family)
    if needs_text and FAMILIES[family][0] == PLAIN:
        with pytest.raises(UserError, match=r"no text side.* use strategy=finetune, or lit"):
            strategy.prepare(encoder, TASK)
        return
    torch.manual_seed(1)
    classifier = strategy.prepare(encoder, TASK)
    size = encoder.preprocess.size
    groups = classifier.groups()
    for name, told in classifier.counts().groups.items():
        assert told["trainable"] == told["parameters"] * trains(name), name
    before = copy.deepcopy(classifier.state_dict())
    train(classifier, strategy, size)
    names = {id(p): name for name, p in classifier.named_parameters()}
    group_of = {names[id(p)]: name for name, group in groups.items() for p in group}
    modules = dict(classifier.named_modules())
    for name, value in classifier.state_dict().items():
        moved = not torch.equal(value, before[name])
        if name in names.values():
            assert moved == (name in group_of and trains(group_of[name])), name
            continue
        norm = modules[name.rpartition(".")[0]]  # else a running statistic of BatchNorm
        learns = strategy.trains and norm.weight.requires_grad and not strategy.frozen_statistics
        assert moved == learns, name


@pytest.mark.parametrize("case", ["image_only", "text_only", "contrastive"])
def test_two_frozen_towers_are_refused(case):
    strategy = strategy_of(case, ("freeze_depth=all", "text_freeze_depth=all"))
    with pytest.raises(UserError, match="leave nothing to train; use strategy=zero_shot"):
        strategy.prepare(encoder_of("clip_tiny"), TASK)


def test_a_text_depth_that_is_not_there_is_refused():
    strategy = strategy_of("contrastive", ("text_freeze_depth=3",))
    with pytest.raises(UserError, match=r"text_freeze_depth=3 is not possible here; use 0\.\.2"):
        strategy.prepare(encoder_of("clip_tiny"), TASK)


def test_a_head_that_there_is_not_is_refused():
    strategy = strategy_of("finetune", ("strategy.head=linear",))
    with pytest.raises(UserError, match="there are auto, zero_shot, random, lp"):
        strategy.prepare(encoder_of("clip_tiny"), TASK)


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_of_a_frozen_prefix_is_recorded_for_a_backward_pass(family):
    """And what is frozen is in eval mode, down to what has no parameters."""
    encoder = encoder_of(family)
    depth = len(encoder.layers()) - 3
    strategy = strategy_of("finetune", (f"freeze_depth={depth}", "strategy.head=random"))
    classifier = strategy.prepare(encoder, TASK)
    ClassificationModule(classifier, strategy, recipe(), schedule.Schedule(3, 0), None).train()
    frozen = {id(p) for layer in encoder.layers()[: depth + 1] for p in layer}
    held = []

    def watch(module, _, output):
        own = {id(p) for p in module.parameters()}
        if own and own <= frozen:
            assert not any(part.training for part in module.modules())
            held.append((output[0] if isinstance(output, tuple) else output).requires_grad)

    for module in encoder.modules():
        module.register_forward_hook(watch)
    (batch,) = batches(encoder.preprocess.size, 1)
    strategy.loss(classifier, batch, smoothing=0.0, step=0).backward()
    assert held
    assert not any(held)
