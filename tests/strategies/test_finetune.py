"""Fine-tuning against WiSE-FT worked by hand: its head, loss, trained set and optimiser."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytorch_lightning import Trainer
from torch.utils.data import DataLoader

from clipbench.core.config.instantiate import build
from clipbench.core.errors import UserError
from clipbench.metrics import classification
from clipbench.strategies.base import Task
from clipbench.strategies.finetune import Finetune
from clipbench.strategies.freezing import freeze
from clipbench.strategies.linear_probe import LinearProbe
from clipbench.strategies.recipe import Recipe
from clipbench.strategies.zero_shot import ZeroShot
from clipbench.training import schedule as optim
from clipbench.training.module import ClassificationModule
from tests.conftest import composed

TASK = Task(
    classes=["star", "heart", "cross"],
    prompts=[[f"a {c}", f"a picture of a {c}"] for c in ("star", "heart", "cross")],
)


def tower(model="clip_tiny", *overrides):
    torch.manual_seed(0)
    return build(composed(f"model={model}", "model.pretrained=null", *overrides)["model"])


def resnet():
    return tower("timm", "model.arch=test_resnet", "model.image_size=32")


def batches(size, count=5, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "image": torch.randn(8, 3, size, size, generator=generator),
            "label": torch.randint(0, 3, (8,), generator=generator),
        }
        for _ in range(count)
    ]


def fit(classifier, strategy, recipe, schedule, rows):
    def measure(split, logits, labels):
        return classification.classification(logits, labels, ["acc"])

    module = ClassificationModule(classifier, strategy, recipe, schedule, measure)
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=recipe.clip_norm,
        precision="64-true" if rows[0]["image"].dtype == torch.float64 else "32-true",
    )
    trainer.fit(module, DataLoader(rows, batch_size=None))
    return module


def recipe_of(*overrides):
    config = composed(*overrides)
    return Recipe.of(config)


def test_five_steps_are_wise_fts_five_steps():
    recipe = recipe_of("model=clip_tiny", "recipe=wise_ft")
    clip = tower().double()
    rows = batches(clip.preprocess.size)
    for row in rows:
        row["image"] = row["image"].double()

    # By hand: head = exp(logit scale) x mean of normalised prompts, normalised; the image tower
    # and the head train in one AdamW group; 500 warm-up steps; clip at norm 1.
    mine = copy.deepcopy(clip.model)
    tokenizer = clip.tokenizer()
    with torch.no_grad():
        prompts = TASK.prompts
        mean = [F.normalize(mine.encode_text(tokenizer(p)), dim=-1).mean(0) for p in prompts]
        weight = mine.logit_scale.exp() * F.normalize(torch.stack(mean), dim=-1)
    weight.requires_grad_(True)
    bias = torch.zeros(3, requires_grad=True, dtype=torch.float64)
    trained = [*mine.visual.parameters(), weight, bias]
    for parameter in trained:
        parameter.requires_grad_(True)
    adamw = torch.optim.AdamW(trained, lr=3e-5, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)
    mine.train()
    for step, row in enumerate(rows):
        adamw.param_groups[0]["lr"] = 3e-5 * (step + 1) / 500
        features = F.normalize(mine.encode_image(row["image"]), dim=-1)
        loss = F.cross_entropy(features @ weight.T + bias, row["label"])
        adamw.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        adamw.step()

    strategy = Finetune()
    classifier = strategy.prepare(clip, TASK)
    assert classifier.meaningful
    schedule = optim.Schedule(total=5, warmup=recipe.warmup_steps)
    fit(classifier, strategy, recipe, schedule, rows)
    for (name, ours), theirs in zip(
        clip.model.visual.named_parameters(), mine.visual.parameters(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9, msg=name)
    torch.testing.assert_close(classifier.head.weight, weight, rtol=0, atol=1e-12)
    torch.testing.assert_close(classifier.head.bias, bias, rtol=0, atol=1e-12)


def test_one_step_moves_every_parameter_of_the_image_tower_and_no_other():
    clip = tower()
    strategy = Finetune()
    classifier = strategy.prepare(clip, TASK)
    before = {k: v.clone() for k, v in clip.model.state_dict().items()}
    recipe = recipe_of("model=clip_tiny", "lr=1e-3")
    fit(classifier, strategy, recipe, optim.Schedule(5, 0), batches(clip.preprocess.size))
    for name, value in clip.model.state_dict().items():
        assert torch.equal(value, before[name]) != name.startswith("visual."), name


def test_a_resnet_head_has_ten_times_the_learning_rate():
    strategy = Finetune()
    classifier = strategy.prepare(resnet(), TASK)
    assert not classifier.meaningful
    groups = strategy.param_groups(
        classifier, recipe_of("model=resnet50", "dataset=flowers102", "lr=0.001")
    )
    rates = {g["name"]: g["lr"] for g in groups}
    assert rates["image tower"] == pytest.approx(0.001)
    assert rates["head"] == rates["head, no decay"] == pytest.approx(0.01)
    counted = [id(p) for g in groups for p in g["params"]]
    assert len(counted) == len(set(counted)) == len(list(classifier.parameters()))


@pytest.mark.parametrize("make", [tower, resnet], ids=["clip", "resnet"])
@pytest.mark.parametrize("depth", [0, 1, 2, "L", "all"])
def test_frozen_layers_stay_to_the_bit_and_the_rest_moves(make, depth):
    encoder = make()
    layers = encoder.layers()
    blocks = len(layers) - 2
    depth = blocks if depth == "L" else depth
    strategy = Finetune(freeze_depth=depth, head="random")
    torch.manual_seed(3)
    classifier = strategy.prepare(encoder, TASK)
    frozen = {0: 0, "all": len(layers)}.get(depth, depth if depth == "all" else depth + 1)
    before = [[p.detach().clone() for p in layer] for layer in layers]
    recipe = recipe_of("model=clip_tiny", "lr=1e-3")
    size = encoder.preprocess.size
    fit(classifier, strategy, recipe, optim.Schedule(5, 0), batches(size))
    for i, (layer, old) in enumerate(zip(encoder.layers(), before, strict=True)):
        moved = [not torch.equal(p, q) for p, q in zip(layer, old, strict=True)]
        assert all(moved) if i >= frozen else not any(moved), f"layer {i} of depth {depth}"


def test_running_statistics_of_frozen_blocks_stay_and_of_others_move():
    encoder = resnet()
    strategy = Finetune(freeze_depth=2)
    classifier = strategy.prepare(encoder, TASK)

    def statistics():
        norms = [m for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        return [(m.weight.requires_grad, m.running_mean.clone()) for m in norms]

    before = statistics()
    assert {trains for trains, _ in before} == {True, False}
    recipe = recipe_of("model=clip_tiny", "lr=1e-3")
    fit(classifier, strategy, recipe, optim.Schedule(5, 0), batches(encoder.preprocess.size))
    for (trains, old), (_, new) in zip(before, statistics(), strict=True):
        assert torch.equal(old, new) != trains


def test_frozen_statistics_stay_in_blocks_that_train():
    encoder = resnet()
    strategy = Finetune(frozen_statistics=True)
    classifier = strategy.prepare(encoder, TASK)
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    recipe = recipe_of("model=clip_tiny", "lr=1e-3")
    fit(classifier, strategy, recipe, optim.Schedule(5, 0), batches(encoder.preprocess.size))
    for name, value in encoder.state_dict().items():
        still = "running" in name or name.endswith("num_batches_tracked")
        assert torch.equal(value, before[name]) == still, name


@pytest.mark.parametrize("depth", [-1, 99, "none", 1.5])
def test_a_depth_that_is_not_there_is_refused(depth):
    with pytest.raises(UserError, match=r"use 0\.\.4 or all"):
        freeze(resnet(), depth)


def test_label_smoothing_reaches_the_loss():
    clip = tower()
    classifier = Finetune().prepare(clip, TASK)
    row = batches(clip.preprocess.size)[0]
    recipe = recipe_of("model=clip_tiny", "label_smoothing=0.1")
    module = ClassificationModule(classifier, Finetune(), recipe, optim.Schedule(1, 0), ["acc"])
    module.log = lambda *args, **kwargs: None
    log_p = classifier(row["image"]).log_softmax(1)
    target = F.one_hot(row["label"], 3) * 0.9 + 0.1 / 3
    by_hand = -(target * log_p).sum(1).mean()
    torch.testing.assert_close(module.training_step(row, 0), by_hand)


def test_linear_probe_trains_the_head_alone():
    clip = tower()
    strategy = LinearProbe()
    classifier = strategy.prepare(clip, TASK)
    assert {n for n, p in classifier.named_parameters() if p.requires_grad} == {
        "head.weight",
        "head.bias",
    }


def test_zero_shot_needs_a_text_side():
    assert not any(p.requires_grad for p in ZeroShot().prepare(tower(), TASK).parameters())
    with pytest.raises(UserError, match="no text side"):
        ZeroShot().prepare(resnet(), TASK)


def test_a_loss_that_is_not_finite_is_divergence():
    clip = tower()
    strategy = Finetune()
    classifier = strategy.prepare(clip, TASK)
    rows = batches(clip.preprocess.size)
    rows[2]["image"][0] = np.nan
    recipe = recipe_of("model=clip_tiny")
    with pytest.raises(UserError, match="not finite at step 2") as caught:
        fit(classifier, strategy, recipe, optim.Schedule(5, 0), rows)
    assert caught.value.status == "diverged"
    assert all(torch.isfinite(p).all() for p in classifier.parameters())
