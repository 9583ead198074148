"""CLIP against open_clip itself: zero-shot logits, saved files, resized embeddings."""

import json

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.model import resize_pos_embed

from clipbench.core.errors import UserError
from clipbench.loading.prompts import fill
from clipbench.models import weight_files
from clipbench.models.base import Classifier, random_head
from clipbench.models.clip import CLIP

CLASSES = ["rose", "globe-flower", "king protea", "pink-yellow dahlia?", "bee balm"]
TEMPLATES = ["a photo of a {}, a type of flower.", "itap of a {}.", "{}"]


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return CLIP(arch="tiny-vit-quickgelu").eval()


def random_images(size, seed=1, count=4):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_zero_shot_logits_are_open_clips(tmp_path, seed):
    torch.manual_seed(seed)
    ours = CLIP(arch="tiny-vit-quickgelu").eval()
    with torch.no_grad():
        ours.model.logit_scale.fill_(4.6)
        head = ours.zero_shot_head([[fill(t, c) for t in TEMPLATES] for c in CLASSES])
        classifier = Classifier(ours, head, meaningful=True).eval()
        logits = classifier(random_images(32))
    weight_files.save(tmp_path / "x.safetensors", ours.native_state_dict(head), {})
    theirs = open_clip.create_model(
        "tiny-vit-quickgelu", pretrained=str(tmp_path / "x.safetensors")
    )
    tokenizer = open_clip.get_tokenizer("tiny-vit-quickgelu")
    with torch.no_grad():
        zeroshot = open_clip.build_zero_shot_classifier(
            theirs.eval(), tokenizer, CLASSES, TEMPLATES
        )
        features = theirs.encode_image(random_images(32), normalize=True)
        expected = theirs.logit_scale.exp() * features @ zeroshot
    assert expected.std() > 0.1
    assert torch.allclose(logits, expected, atol=1e-5, rtol=0)
    assert (head.bias == 0).all()


def test_zero_shot_head_is_the_formula_of_wise_ft(tiny):
    """Each template normalised, the mean, normalised, times the scale (modeling.py)."""
    head = tiny.zero_shot_head([[fill(t, c) for t in TEMPLATES] for c in CLASSES])
    rows = []
    with torch.no_grad():
        for name in CLASSES:
            texts = tiny.tokenizer()([t.format(name) for t in TEMPLATES])
            each = F.normalize(tiny.model.encode_text(texts), dim=-1)
            rows.append(F.normalize(each.mean(0), dim=0) * tiny.model.logit_scale.exp())
    assert torch.allclose(head.weight, torch.stack(rows), atol=1e-5)


def test_a_head_of_text_leaves_train_mode_as_it_was(tiny):
    tiny.train().zero_shot_head([[fill(t, c) for t in TEMPLATES] for c in CLASSES])
    assert tiny.model.training


@pytest.mark.parametrize("arch", ["tiny-vit", "tiny-rn", "tiny-timm"])
def test_a_saved_model_is_the_same_in_open_clip(tmp_path, arch):
    torch.manual_seed(0)
    tower = CLIP(arch=arch).eval()
    head = random_head(tower, 3)
    with torch.no_grad():
        logits = Classifier(tower, head, meaningful=False).eval()(
            random_images(tower.preprocess.size)
        )
    weight_files.save(tmp_path / "m.safetensors", tower.native_state_dict(head), tower.metadata())
    theirs = open_clip.create_model(arch, pretrained=str(tmp_path / "m.safetensors")).eval()
    with torch.no_grad():
        features = theirs.encode_image(random_images(tower.preprocess.size), normalize=True)
        assert torch.equal(head(features), logits)
    again = CLIP(arch=arch, pretrained=str(tmp_path / "m.safetensors")).eval()
    assert all(torch.equal(v, again.model.state_dict()[k]) for k, v in theirs.state_dict().items())
    assert again.loaded == str(tmp_path / "m.safetensors")


def test_a_file_of_another_activation_is_refused(tmp_path, tiny):
    path = tmp_path / "tuned.safetensors"
    weight_files.save(path, tiny.native_state_dict(random_head(tiny, 2)), tiny.metadata())
    with pytest.raises(
        UserError, match=r"trained with quickgelu .* model\.arch=tiny-vit-quickgelu"
    ):
        CLIP(arch="tiny-vit", pretrained=str(path))


def test_a_file_that_does_not_say_its_activation_is_taken_with_a_warning(tmp_path, tiny):
    torch.save({"state_dict": tiny.model.state_dict(), "epoch": 3}, tmp_path / "theirs.pt")
    (warning,) = CLIP(arch="tiny-vit", pretrained=str(tmp_path / "theirs.pt")).warnings
    assert (
        "theirs.pt does not say which activation it was trained with; tiny-vit computes" in warning
    )
    weight_files.save(
        tmp_path / "ours.safetensors", weight_files.read(tmp_path / "theirs.pt"), tiny.metadata()
    )
    assert CLIP(arch=tiny.arch, pretrained=str(tmp_path / "ours.safetensors")).warnings == ()


def test_a_file_of_another_architecture_names_keys_and_the_right_one(tmp_path, tiny):
    path = tmp_path / "tuned.safetensors"
    about = {**tiny.metadata(), "activation": "gelu"}
    weight_files.save(path, tiny.native_state_dict(random_head(tiny, 2)), about)
    with pytest.raises(
        UserError, match=r"does not fit tiny-rn: .* missing \(visual\.attnpool.*tiny-vit"
    ):
        CLIP(arch="tiny-rn", pretrained=str(path))


def test_position_embeddings_interpolate_as_open_clip_does(tmp_path, tiny):
    path = tmp_path / "small.safetensors"
    weight_files.save(path, tiny.native_state_dict(random_head(tiny, 2)), tiny.metadata())
    large = CLIP(arch="tiny-vit-quickgelu", pretrained=str(path), image_size=64).eval()
    theirs = open_clip.create_model(
        "tiny-vit-quickgelu", pretrained=str(path), force_image_size=64
    ).eval()
    assert large.preprocess.size == large.preprocess.resize == 64
    assert large.model.visual.positional_embedding.shape == (65, 32)
    with torch.no_grad():
        assert torch.equal(large(random_images(64)), theirs.encode_image(random_images(64)))
    state = {"visual.positional_embedding": tiny.model.visual.positional_embedding.detach()}
    resize_pos_embed(state, large.model)
    expected = state["visual.positional_embedding"]
    assert torch.equal(large.model.visual.positional_embedding, expected)
    half = {k: v.half() for k, v in tiny.native_state_dict(random_head(tiny, 2)).items()}
    weight_files.save(path, half, tiny.metadata())  # as OpenAI's own files are
    other = CLIP(arch="tiny-vit-quickgelu", pretrained=str(path), image_size=64)
    torch.testing.assert_close(other.model.visual.positional_embedding, expected, rtol=0, atol=1e-3)


def test_positions_of_an_attention_pool_interpolate_too(tmp_path):
    """open_clip leaves a ResNet's alone, so that its weights fit no other size of image."""
    torch.manual_seed(0)
    small = CLIP(arch="tiny-rn")
    path = tmp_path / "small.safetensors"
    weight_files.save(path, small.native_state_dict(random_head(small, 2)), small.metadata())
    large = CLIP(arch="tiny-rn", pretrained=str(path), image_size=96).eval()
    assert large.preprocess.size == 96
    assert large(random_images(96)).shape == (4, 24)
    whole, *grid = small.model.visual.attnpool.positional_embedding.detach().unbind()
    planes = torch.stack(grid).T.reshape(1, -1, 2, 2)
    planes = F.interpolate(planes, size=(3, 3), mode="bicubic", antialias=True)
    expected = torch.cat([whole[None], planes.flatten(2)[0].T])
    assert torch.equal(large.model.visual.attnpool.positional_embedding, expected)
    half = {k: v.half() for k, v in small.native_state_dict(random_head(small, 2)).items()}
    weight_files.save(tmp_path / "half.safetensors", half, small.metadata())
    other = CLIP(arch="tiny-rn", pretrained=str(tmp_path / "half.safetensors"), image_size=96)
    torch.testing.assert_close(
        other.model.visual.attnpool.positional_embedding, expected, rtol=0, atol=1e-3
    )
    before = torch.cat([whole[None], torch.stack(grid)])
    same = CLIP(arch="tiny-rn", pretrained=str(path))
    assert torch.equal(same.model.visual.attnpool.positional_embedding, before)


def test_preprocessing_travels_with_the_file(tmp_path, tiny):
    about = tiny.metadata()
    told = {**json.loads(about["preprocess"]), "mean": [0.1, 0.2, 0.3], "resize_mode": "squash"}
    path = tmp_path / "tuned.safetensors"
    state = tiny.native_state_dict(random_head(tiny, 2))
    weight_files.save(path, state, {**about, "preprocess": json.dumps(told)})
    again = CLIP(arch="tiny-vit-quickgelu", pretrained=str(path))
    assert again.preprocess.mean == (0.1, 0.2, 0.3)
    assert again.preprocess.resize_mode == "squash"
    assert again.preprocess.size == 32


def test_an_unknown_arch_names_near_ones():
    with pytest.raises(UserError, match="Similar names: ViT-B-32"):
        CLIP(arch="ViT-B-33")
