"""Groups, schedule and plan, against formulas worked by hand."""

import math
from dataclasses import replace

import open_clip
import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from clipbench.core.config.instantiate import build
from clipbench.core.errors import UserError
from clipbench.strategies import param_groups
from clipbench.strategies.base import Task
from clipbench.strategies.contrastive import Contrastive
from clipbench.strategies.finetune import Finetune
from clipbench.strategies.recipe import Recipe
from clipbench.training import schedule as optim
from tests.conftest import composed

TASK = Task(["star", "heart"], [["a star"], ["a heart"]])


def tower(*overrides):
    torch.manual_seed(0)
    return build(composed("model.pretrained=null", *overrides)["model"])


def recipe_of(*overrides):
    return Recipe.of(composed(*overrides))


def rates(groups):
    return {id(p): group["lr"] for group in groups for p in group["params"]}


def wise_ft_lr(base, step, warmup, steps):
    """WiSE-FT, src/models/utils.py, written again from its description."""
    if step < warmup:
        return base * (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) * base


def test_schedule_is_wise_fts():
    schedule = optim.Schedule(total=40, warmup=10)
    for step in range(40):
        assert 3e-5 * schedule.factor(step) == pytest.approx(wise_ft_lr(3e-5, step, 10, 40))


def test_the_optimiser_really_follows_it_in_every_group():
    layer = nn.Linear(3, 2)
    groups = param_groups.param_groups(
        layer.named_parameters(), name="x", lr=0.1, weight_decay=0.2, decay_all=False
    )
    optimizer = optim.optimizer(groups, recipe_of("recipe.optimizer=sgd"))
    schedule = optim.Schedule(total=8, warmup=3)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule.factor)
    for step in range(8):
        for group in optimizer.param_groups:
            assert group["lr"] == pytest.approx(0.1 * schedule.factor(step))
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(
    ("pictures", "batch", "epochs", "warmup", "share"),
    # What WiSE-FT's 500 warm-up steps reach on each dataset.
    [(1020, 512, 10, 500, 0.04), (3334, 512, 10, 500, 0.14), (76_863, 512, 10, 500, 1.0)],
)
def test_peak_of_a_warmup_that_never_ends(pictures, batch, epochs, warmup, share):
    recipe = recipe_of(f"epochs={epochs}", f"warmup_steps={warmup}")
    plan = optim.plan(recipe, math.ceil(pictures / batch))
    reached = max(plan.factor(step) for step in range(plan.total))
    assert plan.peak == pytest.approx(reached)
    assert plan.peak == pytest.approx(share, abs=0.005)


def test_warmup_is_a_share_of_the_run_unless_given_in_steps():
    assert optim.plan(recipe_of("epochs=10", "warmup=0.1"), 16).warmup == 16
    assert optim.plan(recipe_of("epochs=10", "warmup=0.1", "warmup_steps=3"), 16).warmup == 3


def test_the_learning_rate_falls_to_min_lr_and_never_rises_to_it():
    def plan(batches, lr, low):
        words = ("epochs=2", "warmup=0", "warmup_steps=null", f"lr={lr}", f"recipe.min_lr={low}")
        return optim.plan(recipe_of(*words), batches)

    for lr, low in ((0.1, 0.0), (0.1, 0.02), (0.1, 0.1), (0.0, 0.0)):
        schedule = plan(4, lr, low)
        rates = [lr * schedule.factor(step) for step in range(9)]
        assert rates == sorted(rates, reverse=True)
        assert (rates[0], rates[8]) == pytest.approx((lr, low))
    for lr, low in ((0.1, 0.11), (0.0, 1e-6), (0.1, -0.01)):
        with pytest.raises(UserError, match=rf"recipe\.min_lr={low:g}: .* from lr={lr:g}\. Use a"):
            plan(4, lr, low)
        # Nothing moves where nothing trains.
        assert plan(0, lr, low).total == 0


def test_decay_rule():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.class_embedding = nn.Parameter(torch.zeros(4))
            self.positional_embedding = nn.Parameter(torch.zeros(5, 4))
            self.norm, self.linear = nn.LayerNorm(4), nn.Linear(4, 4)

    net = Net()
    net.linear.bias.requires_grad_(False)
    common = {"name": "tower", "lr": 1.0, "weight_decay": 0.1}
    with_decay, without = param_groups.param_groups(
        net.named_parameters(), decay_all=False, **common
    )
    assert [id(p) for p in with_decay["params"]] == [id(net.linear.weight)]
    assert with_decay["weight_decay"] == 0.1
    assert without["weight_decay"] == 0
    assert len(without["params"]) == 4  # two embeddings, the norm's two; not the frozen bias
    (single,) = param_groups.param_groups(net.named_parameters(), decay_all=True, **common)
    assert len(single["params"]) == 5


@pytest.mark.parametrize("arch", ["test_vit", "test_resnet", "test_efficientnet", "test_convnext"])
def test_layer_wise_rates_are_timms_for_every_parameter(arch):
    encoder = tower("model=timm", f"model.arch={arch}", "model.image_size=null")
    recipe = recipe_of("model=timm", "lr=0.5", "layer_decay=0.6", "head_lr_factor=1")
    classifier = Finetune().prepare(encoder, TASK)
    ours = rates(Finetune().param_groups(classifier, recipe))

    whole = timm.create_model(arch, num_classes=2)
    names = {id(p): n for n, p in whole.named_parameters()}
    theirs = {
        names[id(p)]: group["lr_scale"]
        for group in param_groups_layer_decay(whole, layer_decay=0.6)
        for p in group["params"]
    }
    assert len(set(theirs.values())) > 3
    for name, parameter in encoder.model.named_parameters():
        # The one exception: ConvNeXt's last norm, which timm counts as the head, is a tail here.
        scale = 0.6 if name.startswith("head.norm") else theirs[name]
        assert ours[id(parameter)] == pytest.approx(0.5 * scale), name
    for parameter in classifier.head.parameters():
        assert ours[id(parameter)] == 0.5
    assert len(ours) == len(list(classifier.parameters()))


def test_ft_clips_numbers_for_b16():
    """Twelve blocks at 0.6; block 11 has 0.6, the embeddings 0.6^13 = 1.3e-3."""
    layers = [[nn.Parameter(torch.zeros(2, 2))] for _ in range(14)]
    scales = [scale for _, scale in param_groups.layer_scales(layers, 0.6).values()]
    assert scales[0] == pytest.approx(1.306e-3, rel=1e-3)
    assert scales[1] == pytest.approx(0.6**12)
    assert scales[12] == scales[13] == pytest.approx(0.6)  # the last block, and the final norm
    with torch.device("meta"):  # shapes alone
        encoder = tower("model=clip_vitb16")
        classifier = Finetune(head="random").prepare(encoder, TASK)
    groups = Finetune().param_groups(classifier, recipe_of("model=clip_vitb16", "layer_decay=0.6"))
    ours = rates(groups)
    visual = encoder.model.visual
    for part, power in [
        (visual.conv1.weight, 13),
        (visual.positional_embedding, 13),
        (visual.transformer.resblocks[0].ln_1.weight, 12),
        (visual.transformer.resblocks[11].mlp.c_fc.weight, 1),
        (visual.ln_post.bias, 1),
        (visual.proj, 1),
    ]:
        assert ours[id(part)] == pytest.approx(3e-5 * 0.6**power)
    names = {group["name"] for group in groups}
    assert {"image tower, layer 0", "image tower, layer 12, no decay", "head"} <= names


def test_timms_helper_does_nothing_on_an_open_clip_tower_and_ours_does():
    """STYLE 5.1: no group_matcher there, so that timm calls everything the head."""
    visual = open_clip.create_model("ViT-B-32", pretrained=None, device="meta").visual
    theirs = param_groups_layer_decay(visual, layer_decay=0.75)
    assert {group["lr_scale"] for group in theirs} == {1.0}
    encoder = tower("model=clip_tiny")
    assert {g["lr_scale"] for g in param_groups_layer_decay(encoder.model.visual)} == {1.0}
    classifier = Finetune().prepare(encoder, TASK)
    ours = Finetune().param_groups(classifier, recipe_of("layer_decay=0.75", "lr=1"))
    found = sorted({group["lr"] for group in ours if group["name"].startswith("image")})
    blocks = len(encoder.layers()) - 2
    assert found == pytest.approx([0.75**k for k in range(blocks + 1, 0, -1)])


def test_the_schedule_keeps_the_ratios_of_layer_wise_rates():
    """STYLE 5.2: torch's optimisers read ``lr`` alone, and its schedulers keep its ratios."""
    classifier = Finetune().prepare(tower("model=clip_tiny"), TASK)
    recipe = recipe_of("layer_decay=0.5", "lr=0.1")
    groups = Finetune().param_groups(classifier, recipe)
    optimizer = optim.optimizer(groups, recipe)
    start = [group["lr"] for group in optimizer.param_groups]
    assert len(set(start)) > 3
    schedule = optim.Schedule(total=8, warmup=3)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule.factor)
    for step in range(8):
        now = [group["lr"] for group in optimizer.param_groups]
        assert now == pytest.approx([lr * schedule.factor(step) for lr in start])
        optimizer.step()
        scheduler.step()


def test_without_layer_wise_decay_there_are_two_groups_a_part():
    classifier = Finetune().prepare(tower("model=clip_tiny"), TASK)
    groups = Finetune().param_groups(classifier, recipe_of("lr=0.1"))
    assert [g["name"] for g in groups] == [
        *("image tower", "image tower, no decay", "head", "head, no decay"),
    ]
    assert {g["lr"] for g in groups} == {0.1}


def test_a_text_tower_that_trains_has_layer_wise_rates_too():
    """Each layer at the decay to its distance from the end, as timm has it of a ViT."""
    encoder = tower("model=clip_tiny")
    classifier = Contrastive().prepare(encoder, TASK)
    recipe = replace(recipe_of("layer_decay=0.5", "lr=1"), text_lr_factor=0.3)
    groups = Contrastive().param_groups(classifier, recipe)
    found = rates(groups)
    layers = encoder.text_layers()
    blocks = len(layers) - 2
    for i, layer in enumerate(layers):
        expected = 0.3 * 0.5 ** (blocks + 1 - min(i, blocks))
        assert [found[id(p)] for p in layer] == pytest.approx([expected] * len(layer))
    assert found[id(encoder.model.logit_scale)] == 1
    assert f"text tower, layer {blocks}, no decay" in {group["name"] for group in groups}


def test_a_text_tower_without_named_blocks_or_from_scratch_learns_as_one(monkeypatch):
    recipe = recipe_of("layer_decay=0.5", "lr=1")
    encoder = tower("model=clip_tiny")
    whole = [parameter for layer in encoder.text_layers() for parameter in layer]
    monkeypatch.setattr(type(encoder), "text_layers", lambda tower: [whole, []])
    classifier = Contrastive().prepare(encoder, TASK)
    found = rates(Contrastive().param_groups(classifier, recipe))
    assert {found[id(parameter)] for parameter in whole} == {1}
    lit = build(composed("strategy=lit")["strategy"])
    classifier = lit.prepare(tower("model=resnet_tiny"), TASK)
    assert {group["lr"] for group in lit.param_groups(classifier, recipe)} == {1}


def test_towers_have_rates_and_decays_of_their_own_and_the_logit_scale_none():
    encoder = tower("model=clip_tiny")
    classifier = Contrastive().prepare(encoder, TASK)
    plain = recipe_of("lr=0.1", "weight_decay=0.2")
    recipe = replace(plain, text_lr_factor=0.5, text_weight_decay=0.3, decay_all=True)
    groups = {g["name"]: g for g in Contrastive().param_groups(classifier, recipe)}
    assert set(groups) == {"image tower", "text tower", "logit scale, no decay"}
    assert (groups["image tower"]["lr"], groups["image tower"]["weight_decay"]) == (0.1, 0.2)
    assert (groups["text tower"]["lr"], groups["text tower"]["weight_decay"]) == (0.05, 0.3)
    scale = groups["logit scale, no decay"]
    assert [id(p) for p in scale["params"]] == [id(encoder.model.logit_scale)]
    assert scale["weight_decay"] == 0
    counted = sum(len(g["params"]) for g in groups.values())
    assert counted == len(list(encoder.parameters()))
    as_one = Contrastive().param_groups(classifier, recipe_of("lr=0.1", "weight_decay=0.2"))
    assert {g["weight_decay"] for g in as_one} == {0.2, 0.0}
