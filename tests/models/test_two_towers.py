"""Text layers, and attention that is as fast frozen as it is trained."""

import copy

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from clipbench.models.clip import CLIP
from clipbench.models.lit import LiT
from clipbench.models.resnet import ResNet

TEXTS = {"tiny-vit": 1, "tiny-rn": 1, "tiny-timm": 1, "ViT-B-32-quickgelu": 12, "coca_ViT-B-32": 12}


@pytest.mark.parametrize("arch", TEXTS)
def test_each_parameter_of_a_text_tower_is_in_one_layer_in_open_clips_order(arch):
    with torch.device("meta"):
        tower = CLIP(arch=arch)
    layers = tower.text_layers()
    assert len(layers) == TEXTS[arch] + 2
    names = {id(p): n for n, p in tower.model.named_parameters()}
    ours = [{names[id(p)] for p in layer} for layer in layers]
    flat = [name for layer in ours for name in layer]
    assert len(flat) == len(set(flat))
    outside = ("visual.", "logit_", "text_decoder.")
    assert set(flat) == {n for n in names.values() if not n.startswith(outside)}
    # open_clip's own lock: of its groups the last two are our tail and last block, and so on.
    for free in range(2, len(ours) + 1):
        tower.model.requires_grad_(True)
        lock = getattr(tower.model, "lock_text_tower", None) or tower.model.text.lock  # CoCa
        lock(unlocked_layers=free)
        freed = {n for n, p in tower.model.named_parameters() if p.requires_grad}
        assert {n for n in freed if not n.startswith(outside)} == set().union(*ours[-free:])


def test_a_model_without_text_has_no_text_layers():
    with torch.device("meta"):
        assert ResNet(arch="resnet50").text_layers() == []


def test_texts_that_are_too_long_are_those_whose_words_are_cut_off():
    """Exactly those of which open_clip's tokenizer leaves out tokens."""
    tower = CLIP(arch="clip_tiny")
    tokenizer, length = tower.tokenizer(), 24
    texts = ["dog " * n for n in range(18, 26)] + ["", "a" * 22, "q" * 23, "猫" * 9, "x7 " * 30]
    cut = [i for i, text in enumerate(texts) if len(tokenizer.encode(text)) + 2 > length]
    assert tower.cut(texts) == cut
    assert 0 < len(cut) < len(texts)
    assert tower.cut([]) == tower.cut(["a dog"]) == []


def plain(tower):
    """The same without the hooks: open_clip's attention as it comes."""
    other = copy.deepcopy(tower)
    for part in other.modules():
        part._forward_pre_hooks.clear()
    return other


def calls(tower, images, tokens):
    with (
        profile(activities=[ProfilerActivity.CPU]) as seen,
        torch.autocast("cpu", torch.bfloat16),
        torch.no_grad(),
    ):
        features = tower(images), tower.encode_text(tokens)
    return features, {event.key for event in seen.key_averages()}


@pytest.fixture
def frozen():
    torch.manual_seed(0)
    tower = CLIP(arch="tiny-vit-quickgelu").requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 32, 32, generator=generator)
    return tower, images, tower.tokenizer()(["a star", "a heart"])


def test_frozen_attention_in_bf16_multiplies_no_weight_row_by_row(frozen):
    tower, images, tokens = frozen
    ours, made = calls(tower, images, tokens)
    theirs, slow = calls(plain(tower), images, tokens)
    assert "aten::bmm" in slow  # what the cure is for; if torch has mended it, drop the cure
    assert "aten::bmm" not in made
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("training", [True, False])
def test_in_fp32_nothing_changes_to_the_bit(frozen, training):
    tower, images, tokens = frozen
    tower.train(training)
    other = plain(tower)
    assert torch.equal(tower(images), other(images))
    assert torch.equal(tower.encode_text(tokens), other.encode_text(tokens))


def test_where_attention_learns_nothing_changes_to_the_bit(frozen):
    tower, images, _ = frozen
    tower.requires_grad_(True)
    other = plain(tower)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(tower(images), other(images))


def test_the_laid_out_input_gives_the_same_numbers(frozen):
    tower, _, _ = frozen
    attention = tower.model.visual.transformer.resblocks[0].attn.to(torch.bfloat16)
    twin = copy.deepcopy(attention)
    twin._forward_pre_hooks.clear()
    rows = torch.randn(3, 7, 32).to(torch.bfloat16)
    with torch.no_grad():
        ours, _ = attention(rows, rows, rows, need_weights=False)
        theirs, _ = twin.double()(*[rows.double()] * 3, need_weights=False)
    torch.testing.assert_close(ours.double(), theirs, rtol=0.02, atol=0.02)


def test_a_lit_of_a_clip_is_its_image_tower_and_new_text(frozen):
    clip, images, _ = frozen
    lit = LiT(clip, width=32, layers=2, heads=2)
    assert torch.equal(lit(images), clip(images))
    assert len(lit.text_layers()) == 4
    assert {id(p) for layer in lit.layers() for p in layer} == {
        id(p) for p in clip.trained().parameters()
    }
    assert sum(p.numel() for p in lit.parameters()) < sum(p.numel() for p in clip.parameters()) + (
        4096 * 32 + 60_000
    )
