"""FT-CLIP's pooling and head, against open_clip's modules by hand and timm's own network."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer, _convert_openai_clip

import clipbench
from clipbench.core.errors import UserError
from clipbench.core.jobs import Job
from clipbench.inference.saved_model import classifier
from clipbench.models.base import Classifier, random_head
from clipbench.models.clip import CLIP
from clipbench.results import identity
from clipbench.strategies.base import Task
from clipbench.strategies.finetune import Finetune
from clipbench.training.run import execute
from tests.conftest import FEW, composed, result_jsons
from tests.models.test_clip import random_images
from tests.training.test_module import recipe_of

POOLED = ("model=clip_vitb32", "model.arch=tiny-vit", "model.pretrained=null", "model.pool=mean")


def run_here(*words, strategy="finetune"):
    """A whole run, in this process, which alone knows the tiny architectures."""
    choices = {"model": "clip_vitb32", "dataset": "shapes", "strategy": strategy}
    return execute(Job(composed(*POOLED, *FEW, *words, f"strategy={strategy}"), choices, []))


def pooled(arch="tiny-vit", **options):
    torch.manual_seed(0)
    tower = CLIP(arch=arch, pool="mean", **options)
    with torch.no_grad():  # as a norm that has learnt, so that its weights count
        tower.model.visual.ln_post.weight.uniform_(0.5, 2)
        tower.model.visual.ln_post.bias.normal_()
    return tower.eval()


@torch.no_grad()
def test_features_are_the_mean_of_patches_that_are_normalised_first():
    tower, images = pooled(), random_images(32)
    visual = tower.model.visual
    tokens = visual.conv1(images).flatten(2).transpose(1, 2)
    first = visual.class_embedding.expand(4, 1, 32)
    tokens = visual.ln_pre(torch.cat([first, tokens], 1) + visual.positional_embedding)
    for block in visual.transformer.resblocks:
        tokens = block(tokens)
    patches = tokens[:, 1:]
    centred = patches - patches.mean(-1, keepdim=True)
    normal = centred / (patches.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    by_hand = (normal * visual.ln_post.weight + visual.ln_post.bias).mean(1)
    assert tower.feature_dim == 32
    torch.testing.assert_close(tower(images), by_hand, rtol=1e-4, atol=1e-5)
    behind = F.layer_norm(patches.mean(1), (32,), visual.ln_post.weight, visual.ln_post.bias)
    assert (tower(images) - behind).abs().max() > 0.05, "the order makes no difference here"


@torch.no_grad()
def test_logits_are_timms_of_the_same_weights():
    tower, images = pooled(), random_images(32)
    head = random_head(tower, 5)
    theirs = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=2, num_classes=5,
        pre_norm=True, global_pool="avg", fc_norm=False, norm_layer=torch.nn.LayerNorm,
    )  # fmt: skip
    state = _convert_openai_clip(tower.native_state_dict(head), theirs)
    state |= {"head.weight": head.weight, "head.bias": head.bias}
    missing = theirs.load_state_dict(state, strict=False)
    assert missing.unexpected_keys == []
    assert set(missing.missing_keys) <= {"patch_embed.proj.bias"}
    if theirs.patch_embed.proj.bias is not None:
        theirs.patch_embed.proj.bias.zero_()
    ours = Classifier(tower, head, meaningful=False).eval()(images)
    torch.testing.assert_close(ours, theirs.eval()(images), rtol=1e-3, atol=1e-6)


def test_it_starts_from_the_whole_checkpoint_and_a_small_head(tmp_path):
    torch.manual_seed(0)
    whole = CLIP(arch="tiny-vit")
    torch.save(whole.model.state_dict(), tmp_path / "whole.pt")
    tower = CLIP(arch="tiny-vit", pretrained=str(tmp_path / "whole.pt"), pool="mean")
    left = {n for n, _ in whole.model.visual.named_parameters()} - {"proj"}
    mine = dict(tower.model.visual.named_parameters())
    assert mine.keys() == left
    for name, value in whole.model.visual.named_parameters():
        assert name == "proj" or torch.equal(mine[name], value), name
    assert not any(name.startswith("model.t") for name, _ in tower.named_parameters())
    head = random_head(tower, 4000)
    assert head.weight.abs().max() <= 2 * 1e-3  # torch cuts at 2, not at 2 standard deviations
    assert float(head.weight.detach().std()) == pytest.approx(0.02e-3, rel=0.02)
    assert 0 < head.bias.abs().max() < 1e-3 / np.sqrt(32)


def test_depths_and_layer_wise_rates_are_ft_clips():
    """Its table: embeddings 0, block i at i, the new norm and the head at L + 1, which is 1."""
    tower = pooled()
    groups = tower.layers()
    assert [len(group) for group in groups] == [5, 12, 12, 12, 2]
    visual = tower.model.visual
    assert {id(p) for p in groups[-1]} == {id(p) for p in visual.ln_post.parameters()}
    task = Task(["a", "b", "c"], [["a"], ["b"], ["c"]])
    made = Finetune(freeze_depth=2).prepare(tower, task)
    trained = {n for n, p in made.named_parameters() if p.requires_grad}
    assert {n.split(".resblocks.")[-1][0] for n in trained if "resblocks" in n} == {"2"}
    assert {n for n in trained if "resblocks" not in n} == {
        *("tower.model.visual.ln_post.weight", "tower.model.visual.ln_post.bias"),
        *("head.weight", "head.bias"),
    }
    made = Finetune().prepare(tower, task)
    recipe = recipe_of("layer_decay=0.6", "lr=1", "weight_decay=0.05")
    rates = {
        id(p): (group["lr"], group["weight_decay"])
        for group in Finetune().param_groups(made, recipe)
        for p in group["params"]
    }
    assert len(rates) == len(list(made.parameters()))
    blocks = visual.transformer.resblocks
    for parameter, rate, decays in (
        (visual.conv1.weight, 0.6**4, True),
        (visual.positional_embedding, 0.6**4, False),
        (blocks[0].mlp.c_fc.weight, 0.6**3, True),
        (blocks[2].mlp.c_fc.weight, 0.6, True),
        (visual.ln_post.weight, 1, False),
        (made.head.weight, 1, True),
        (made.head.bias, 1, False),
    ):
        assert rates[id(parameter)] == (pytest.approx(rate), 0.05 * decays)


@pytest.mark.parametrize("arch", ["tiny-rn", "tiny-timm"])
def test_other_towers_are_refused_with_the_reason(arch):
    with pytest.raises(UserError, match=rf"model.pool=mean: for .* ViTs .*; {arch} has a pooling"):
        pooled(arch)
    with pytest.raises(UserError, match=r"model.pool=max: unknown\. Use mean, or null"):
        CLIP(arch=arch, pool="max")


def test_what_a_run_leaves_is_the_model_that_was_evaluated(outputs):
    done = run_here("lr=1e-3", "layer_decay=0.6")
    assert (done.status, done.error) == ("completed", None)
    ((folder, record),) = result_jsons(outputs)
    assert record["curve"][0]["val/acc"] is None, "a random head has no epoch 0"
    assert [name for name in record["parameters"]["groups"] if "text" in name] == []
    model, transform, tokenizer = clipbench.load(folder)
    assert tokenizer is None
    images = random_images(32)
    with torch.no_grad():
        ours = classifier(folder)(images)
        assert torch.equal(model.eval()(images), ours)
    assert ours.shape == (4, 24)
    assert transform(torch.zeros(3, 64, 64, dtype=torch.uint8)).shape == (3, 32, 32)
    with pytest.raises(UserError, match=r"trained with model.pool=mean\. Add that"):
        CLIP(arch="tiny-vit", pretrained=str(folder / "model.safetensors"))
    again = CLIP(arch="tiny-vit", pretrained=str(folder / "model.safetensors"), pool="mean")
    with torch.no_grad():
        assert torch.equal(again.eval()(images), classifier(folder).tower(images))


def test_what_needs_text_says_why_there_is_none(outputs):
    for strategy, words, said in (
        ("zero_shot", (), "model.pool=mean leaves the space that texts share"),
        ("flyp", (), "model.pool=mean leaves the space that texts share"),
        ("finetune", ("mix=shapes", "mix.subset=4"), "mix=... needs a model with text"),
    ):
        done = run_here(*words, strategy=strategy)
        assert said in str(done.error), strategy


def test_the_pooling_is_in_the_key_and_its_absence_is_not():
    def key(config):
        return identity.key(identity.identity(config))

    config = composed("model=clip_vitb32", "dataset=shapes")
    model = {k: v for k, v in config["model"].items() if k != "pool"}
    assert key(config) == key({**config, "model": model})
    assert key(config) != key({**config, "model": {**model, "pool": "mean"}})
