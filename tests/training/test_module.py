"""What a step does, against one big batch, a formula by hand, and single precision."""

import copy
import json

import open_clip
import pytest
import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.plugins.precision import MixedPrecision
from torch.utils.data import DataLoader

from clipbench.core.config.instantiate import build
from clipbench.core.errors import UserError
from clipbench.core.jobs import Job
from clipbench.metrics import classification
from clipbench.strategies.base import Task
from clipbench.strategies.contrastive import Contrastive
from clipbench.strategies.finetune import Finetune
from clipbench.strategies.recipe import Recipe
from clipbench.training import build as training
from clipbench.training import schedule as optim
from clipbench.training.callbacks import EMA, Recorder
from clipbench.training.checkpoint_io import AtomicCheckpointIO
from clipbench.training.module import ClassificationModule
from clipbench.training.run import execute
from tests.conftest import composed, result_jsons
from tests.test_run import CHOICES

TASK = Task(
    classes=["star", "heart", "cross"],
    prompts=[[f"a {c}", f"a picture of a {c}"] for c in ("star", "heart", "cross")],
)


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """A CLIP of three transformer blocks, by open_clip's own code."""
    file = tmp_path_factory.mktemp("configs") / "three-blocks.json"
    vision = {"image_size": 32, "patch_size": 8, "layers": 3, "width": 32, "head_width": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    file.write_text(json.dumps({"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(file)
    return ("model=clip_vitb32", "model.arch=three-blocks")


TIMM_VIT = ("model=timm", "model.arch=test_vit", "model.image_size=32")
RESNET = ("model=timm", "model.arch=test_resnet", "model.image_size=32")


def tower(*overrides):
    torch.manual_seed(0)
    return build(composed("model.pretrained=null", *overrides)["model"])


def recipe_of(*overrides):
    config = composed("model=clip_tiny", *overrides)
    return Recipe.of(config)


def batches(count=2, rows=13, size=32, dtype=torch.float32, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "image": torch.randn(rows, 3, size, size, generator=generator).to(dtype),
            "label": torch.randint(0, 3, (rows,), generator=generator),
            "index": torch.arange(rows),
        }
        for _ in range(count)
    ]


def measure(split, logits, labels):
    return classification.classification(logits, labels, ["acc"])


def fitted(classifier, strategy, recipe, rows, *, weights=None, val=None, **options):
    schedule = optim.Schedule(total=len(rows) * options.get("max_epochs", 1), warmup=0)
    module = ClassificationModule(classifier, strategy, recipe, schedule, measure, weights)
    double = rows[0]["image"].dtype == torch.float64
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        gradient_clip_val=recipe.clip_norm,
        plugins=[AtomicCheckpointIO(), *options.pop("plugins", ())],
        **{"max_epochs": 1, "precision": "64-true" if double else "32-true", **options},
    )
    loader = DataLoader(rows, batch_size=None)
    trainer.fit(module, loader, val and DataLoader(val, batch_size=None))
    return trainer, module


def assert_same_weights(one, other, **tolerance):
    for name, value in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, msg=name, **tolerance)


class RowsSeen(Callback):
    """The largest number of pictures that passed the image tower at once, and how many in all."""

    def __init__(self, module):
        self.most, self.total = 0, 0
        module.register_forward_pre_hook(self._see)

    def _see(self, module, inputs):
        self.most = max(self.most, len(inputs[0]))
        self.total += len(inputs[0])


def run_here(*words):
    """A whole run, in this process."""
    return execute(Job(composed(*words), CHOICES, list(words)))


SGD = ("recipe.optimizer=sgd", "lr=0.1", "recipe.clip_norm=0.05")


@pytest.mark.parametrize("micro", [1, 5, 13, 99])
def test_parts_of_a_batch_give_the_gradient_of_the_whole(micro):
    """13 rows by 5 are 5, 5 and 3; with class weights, smoothing, and a clip that bites."""
    weights = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    models = []
    for words in ((), (f"micro_batch={micro}",)):
        encoder = tower(*TIMM_VIT).double()
        strategy = Finetune(head="random")
        torch.manual_seed(3)
        classifier = strategy.prepare(encoder, TASK).double()
        seen = RowsSeen(encoder)
        recipe = recipe_of(*SGD, "label_smoothing=0.1", *words)
        rows = batches(dtype=torch.float64)
        trainer, module = fitted(classifier, strategy, recipe, rows, weights=weights)
        assert trainer.global_step == 2
        models.append((classifier, module.trainer.callback_metrics["train/loss_step"]))
        assert seen.total == 26  # each picture once
    assert seen.most == min(micro, 13)
    (whole, loss), (parts, same_loss) = models
    torch.testing.assert_close(loss, same_loss, rtol=0, atol=1e-12)
    assert_same_weights(whole, parts, rtol=0, atol=1e-12)
    start = tower(*TIMM_VIT).double().state_dict()
    assert not torch.allclose(
        start["model.blocks.0.attn.qkv.weight"], parts.tower.model.blocks[0].attn.qkv.weight
    )


def test_lightnings_own_accumulation_is_not_exact_for_a_short_last_part():
    """Why there is our own: it divides by the number of parts, not by the rows."""
    encoder = tower(*TIMM_VIT).double()
    strategy = Finetune(head="random")
    torch.manual_seed(3)
    classifier = strategy.prepare(encoder, TASK).double()
    mine = copy.deepcopy(classifier)
    (whole,) = batches(1, dtype=torch.float64)
    parts = [{k: v[start : start + 5] for k, v in whole.items()} for start in (0, 5, 10)]
    recipe = recipe_of(*SGD)
    fitted(classifier, strategy, recipe, [whole])
    module = ClassificationModule(mine, strategy, recipe, optim.Schedule(1, 0), measure)
    module.zero_grad()
    for part in parts:  # what accumulate_grad_batches=3 does
        (strategy.loss(mine, part, smoothing=0.0, step=0) / 3).backward()
    torch.nn.utils.clip_grad_norm_(mine.parameters(), 0.05)
    torch.optim.SGD(mine.parameters(), lr=0.1, momentum=0.9).step()
    assert (mine.head.weight - classifier.head.weight).abs().max() > 1e-6


@pytest.mark.parametrize("micro", [3, 8])
def test_pairs_are_encoded_twice_and_have_the_gradient_of_the_whole(vit, micro):
    captions = [[f"a {w} {c}"] for w in ("red", "blue", "small") for c in TASK.classes]
    models = []
    for words in ((), (f"micro_batch={micro}",)):
        clip = tower(*vit).double()
        strategy = Contrastive()
        classifier = strategy.prepare(clip, TASK)
        seen = RowsSeen(clip.model.visual)
        rows = [{**b, "captions": (captions * 2)[:13]} for b in batches(dtype=torch.float64)]
        fitted(classifier, strategy, recipe_of(*SGD, *words), rows)
        models.append(classifier)
    assert seen.most == micro
    assert seen.total == 2 * 26  # features without a graph, then again for the gradient
    assert_same_weights(*models, rtol=0, atol=1e-12)


def _captured(store):
    class Capture(Callback):
        def on_train_batch_end(self, trainer, module, *args):
            store.append({k: v.clone() for k, v in module.classifier.state_dict().items()})

    return Capture()


def test_an_average_is_the_formula_and_what_is_evaluated_chosen_and_saved(tmp_path):
    recipe = recipe_of("lr=1e-2")
    rows, val = batches(4), batches(1, rows=20, seed=9)
    runs = {}
    for decay in (None, 0.6):
        strategy = Finetune(head="random", freeze_depth=1)
        torch.manual_seed(3)
        classifier = strategy.prepare(tower(*RESNET), TASK)
        start = copy.deepcopy(classifier).state_dict()
        raw = []
        recorder = Recorder(tmp_path / str(decay), "val/acc", lambda *_: None)
        recorder.folder.mkdir()
        own = [recorder, *([EMA(decay)] if decay else []), _captured(raw)]
        trainer, module = fitted(
            classifier, strategy, recipe, rows, val=val, max_epochs=3, callbacks=own
        )
        runs[decay] = (trainer, module, recorder, raw)
    # Training goes on with the raw weights: they are those of a run without an average.
    for one, other in zip(runs[None][3], runs[0.6][3], strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)

    trainer, module, recorder, raw = runs[0.6]
    averaged, by_epoch = dict(raw[0]), []
    for step, weights in enumerate(raw):
        if step:
            averaged = {
                name: 0.6 * old + 0.4 * weights[name] if old.is_floating_point() else weights[name]
                for name, old in averaged.items()
            }
        if step % 4 == 3:
            by_epoch.append(averaged)
    moved = [name for name in averaged if not torch.equal(averaged[name], raw[-1][name])]
    assert any("running_mean" in name for name in moved)

    def evaluated(state):
        plain = copy.deepcopy(module.classifier)
        plain.load_state_dict(state)
        with torch.no_grad():
            return plain.eval()(val[0]["image"])

    for row, state in zip(recorder.curve, by_epoch, strict=True):
        expected = measure("val", evaluated(state), val[0]["label"])
        assert row["val/loss"] == pytest.approx(expected["loss"], rel=1e-4)
    best = by_epoch[recorder.best["epoch"] - 1]
    saved = torch.load(tmp_path / "0.6" / "checkpoints" / "best.ckpt", weights_only=True)
    for name, value in best.items():
        torch.testing.assert_close(saved["state_dict"][f"classifier.{name}"], value)
    # What is frozen stays to the bit, its statistics too.
    frozen = [n for n in start if n.startswith(("tower.model.conv1", "tower.model.bn1"))]
    assert len(frozen) >= 6
    for name in frozen:
        assert torch.equal(saved["state_dict"][f"classifier.{name}"], start[name]), name
    # After training, what is loaded is what is evaluated: the average does not come back.
    module.load_state_dict(saved["state_dict"])
    trainer.validate(module, DataLoader(val, batch_size=None), verbose=False)
    torch.testing.assert_close(module.outputs["logits"], evaluated(best))
    last = torch.load(tmp_path / "0.6" / "checkpoints" / "last.ckpt", weights_only=True)
    for name, value in raw[-1].items():
        assert torch.equal(last["current_model_state"][f"classifier.{name}"], value)


def test_the_decay_of_an_average_fits_the_run():
    assert optim.ema_decay("auto", 31_250) == pytest.approx(0.9998)  # FT-CLIP's, on ImageNet
    assert optim.ema_decay("auto", 80) == pytest.approx(1 - 1 / 12.8)
    assert optim.ema_decay("auto", 3) == 0  # too short to average: the weights themselves
    assert optim.ema_decay(0.9998, 80) == 0.9998
    assert optim.ema_decay(None, 80) is None


def gradients(classifier, strategy, rows):
    classifier.zero_grad()
    strategy.loss(classifier, rows, smoothing=0.0, step=0).backward()
    return {n: p.grad for n, p in classifier.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("which", ["open_clip", "timm"])
def test_gradient_checkpointing_changes_no_gradient(vit, which, depth):
    encoder = tower(*(vit if which == "open_clip" else TIMM_VIT))
    strategy = Finetune(freeze_depth=depth)
    classifier = strategy.prepare(encoder, TASK).train()
    (rows,) = batches(1)
    before = gradients(classifier, strategy, rows)
    passes = []
    blocks = encoder.model.visual.transformer.resblocks if which == "open_clip" else None
    (blocks or encoder.model.blocks)[-1].register_forward_pre_hook(lambda *a: passes.append(1))
    encoder.set_grad_checkpointing()
    after = gradients(classifier, strategy, rows)
    assert len(passes) == 2  # once more in the backward pass
    assert before.keys() == after.keys()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=1e-7)


def test_a_network_without_gradient_checkpointing_says_so():
    """open_clip's ModifiedResNet takes the call and does nothing."""
    with pytest.raises(UserError, match=r"no gradient checkpointing\. Use micro_batch"):
        tower("model=clip_tiny").set_grad_checkpointing()
    with pytest.raises(UserError, match="no gradient checkpointing"):
        tower("model=resnet50").set_grad_checkpointing()


@pytest.mark.parametrize("which", ["vit", "clip_tiny", "resnet"])
def test_a_step_in_bf16_is_near_one_in_single_precision(vit, which):
    words = {"vit": vit, "clip_tiny": ("model=clip_tiny",), "resnet": RESNET}[which]
    steps = []
    for precision in ("32-true", "bf16-mixed"):
        strategy = Finetune(head="random")
        encoder = tower(*words)
        torch.manual_seed(3)
        classifier = strategy.prepare(encoder, TASK)
        before = torch.cat([p.detach().flatten() for p in classifier.parameters()])
        rows = batches(1, rows=16, size=encoder.preprocess.size)
        trainer, _ = fitted(classifier, strategy, recipe_of(*SGD), rows, precision=precision)
        after = torch.cat([p.detach().flatten() for p in classifier.parameters()])
        assert all(p.dtype == torch.float32 for p in classifier.parameters())
        steps.append((after - before, trainer.callback_metrics["train/loss_step"]))
    (single, loss), (half, near) = steps
    assert float(near) == pytest.approx(float(loss), rel=0.02)
    assert not torch.equal(single, half)
    cosine = torch.nn.functional.cosine_similarity(single, half, dim=0)
    assert cosine > 0.99
    torch.testing.assert_close(half.norm(), single.norm(), rtol=0.05, atol=0)


def scaled(rows, scale):
    """A classifier before and after steps under a gradient scaler, and the module."""
    strategy = Finetune(head="random")
    torch.manual_seed(3)
    classifier = strategy.prepare(tower(*RESNET), TASK)
    before = copy.deepcopy(classifier.state_dict())
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    own = {"plugins": [MixedPrecision("16-mixed", "cpu", scaler)], "precision": None}
    _, module = fitted(classifier, strategy, recipe_of(*SGD), rows, **own)
    moved = [n for n, p in classifier.named_parameters() if not torch.equal(p, before[n])]
    return moved, module, scaler


def test_a_step_that_overflows_at_its_scale_is_skipped_and_the_run_goes_on():
    moved, module, scaler = scaled(batches(1), 2.0**120)
    assert not moved
    assert (module.skipped, scaler.get_scale()) == (1, 2.0**119)
    moved, module, scaler = scaled(batches(3), 2.0**10)
    assert "head.weight" in moved
    assert module.skipped == 0
    checkpoint = {}
    module.on_save_checkpoint(checkpoint)
    assert not checkpoint
    module.skipped = 4
    module.on_save_checkpoint(checkpoint)
    module.skipped = 0
    module.on_load_checkpoint(checkpoint)
    assert module.skipped == 4


def test_skipped_steps_are_in_the_record(outputs, monkeypatch):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
    make = training.trainer

    def halved(*args, **options):
        made = make(*args, **options)
        made.strategy._precision_plugin = MixedPrecision("16-mixed", "cpu", scaler)
        return made

    monkeypatch.setattr(training, "trainer", halved)
    words = (*RESNET, "model.pretrained=null", "dataset.shots=4", "dataset.subset=3", "logger=none")
    words += ("dataset.counts={train: 4, val: 3, test: 3, test_ood: 3}", "batch_size=2")
    done = run_here(*words, "trainer=cpu", "epochs=3")
    assert done.status == "completed", done.error
    ((_, record),) = result_jsons(outputs)
    skipped = record["steps"]["skipped"]
    assert 1 < skipped < record["steps"]["total"] == 18
    assert scaler.get_scale() == 2.0 ** (24 - skipped)
    (warning,) = [w for w in record["warnings"] if "float16" in w]
    assert warning.startswith(f"{skipped} of 18 steps were skipped")


def test_a_gradient_that_is_not_finite_at_any_scale_is_diverged(monkeypatch):
    """sqrt has no slope at 0, where the loss is finite: no scale helps."""

    def rootless(self, classifier, batch, **others):
        scores = classifier(batch["image"]).float()
        return ((scores - scores.detach()) ** 2).sum().sqrt()

    monkeypatch.setattr(Finetune, "loss", rootless)
    with pytest.raises(UserError, match="the gradient is not finite at step 4") as refused:
        scaled(batches(9), 2.0**4)
    assert refused.value.status == "diverged"


def test_a_run_of_some_steps_is_evaluated_at_its_end():
    strategy = Finetune(head="random")
    classifier = strategy.prepare(tower(*RESNET), TASK)
    ends = []

    class Ends(Callback):
        def on_validation_end(self, trainer, module):
            ends.append(trainer.global_step)

    rows, val = batches(4), batches(1, rows=20, seed=9)
    options = {"max_epochs": -1, "max_steps": 6, "callbacks": [Ends()]}
    trainer, _ = fitted(classifier, strategy, recipe_of(), rows, val=val, **options)
    assert trainer.global_step == 6
    assert ends == [4, 6]


def test_a_step_goes_on_where_a_checkpoint_left_it(tmp_path):
    """Parts of a batch, an average and layer-wise rates, cut after the first of two epochs."""
    recipe = recipe_of("lr=1e-2", "micro_batch=5", "layer_decay=0.5")
    rows, val = batches(4), batches(1, rows=20, seed=9)
    finals = {}
    for name, epochs, resume in (("whole", 2, None), ("first", 1, None), ("second", 2, "first")):
        strategy = Finetune(head="random")
        torch.manual_seed(3)
        classifier = strategy.prepare(tower(*TIMM_VIT), TASK)
        schedule = optim.Schedule(total=8, warmup=2)
        module = ClassificationModule(classifier, strategy, recipe, schedule, measure)
        recorder = Recorder(tmp_path / name, "val/acc", lambda *_: None)
        recorder.folder.mkdir()
        trainer = Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            plugins=[AtomicCheckpointIO()],
            callbacks=[recorder, EMA(0.7)],
        )
        last = resume and tmp_path / resume / "checkpoints" / "last.ckpt"
        loaders = [DataLoader(part, batch_size=None) for part in (rows, val)]
        trainer.fit(module, *loaders, ckpt_path=last)
        finals[name] = (trainer.global_step, recorder.curve[-1], classifier)
    (steps, row, whole), (again, same, resumed) = finals["whole"], finals["second"]
    assert steps == again == 8
    assert row == same
    assert_same_weights(whole, resumed, rtol=0, atol=0)


def test_steps_stand_for_epochs_in_a_run_its_record_and_its_key(outputs):
    words = (*TIMM_VIT, "model.pretrained=null", "dataset.shots=2", "dataset.subset=5")
    words += ("dataset.counts={train: 2, val: 3, test: 3, test_ood: 3}", "logger=none")
    words += ("batch_size=4", "trainer=cpu", "ema=auto", "micro_batch=3")
    done = run_here(*words, "steps=5")  # of 3 an epoch
    assert done.status == "completed", done.error
    ((_, record),) = result_jsons(outputs)
    assert [row["epoch"] for row in record["curve"]] == [0, 1, 2]
    assert record["epochs"] == 2
    assert record["steps"]["total"] == 5
    assert record["steps"]["warmup"] == round(0.1 * 5)
    assert record["final"].keys() >= {"val/acc", "test/acc"}
    again = run_here(*words, "steps=5", "epochs=7")
    assert again.before  # epochs say nothing then
    assert again.key == done.key
    refused = run_here(*words, "steps=5", "warmup_steps=5")
    assert "5 steps never ends in a run of 5 steps" in refused.error
    assert "steps=0: is not a whole number from 1 up" in run_here(*words, "steps=0").error
