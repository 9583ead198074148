"""Timm towers against timm itself."""

import json

import pytest
import timm
import torch
from safetensors.torch import save_file

from clipbench.core.errors import UserError
from clipbench.models import weight_files
from clipbench.models.base import Classifier, random_head
from clipbench.models.timm import Timm

# A ViT, a ResNet, an EfficientNet, a ConvNeXt, one with layers between pool and classifier, and one
# whose classifier is a convolution.
ARCHS = ["test_vit", "test_resnet", "test_efficientnet", "test_convnext", "test_mambaout"]


@pytest.mark.parametrize("arch", [*ARCHS, "resnetv2_18"])
def test_a_saved_model_is_the_same_in_timm(tmp_path, arch):
    torch.manual_seed(0)
    tower = Timm(arch=arch).eval()
    head = random_head(tower, 7)
    image = torch.randn(2, 3, tower.preprocess.size, tower.preprocess.size)
    with torch.no_grad():
        logits = Classifier(tower, head, meaningful=False).eval()(image)
    path = tmp_path / "model.safetensors"
    weight_files.save(path, tower.native_state_dict(head), tower.metadata())
    theirs = timm.create_model(arch, num_classes=7).eval()
    theirs.load_state_dict(weight_files.read(path), strict=True)
    again = Timm(arch=arch, pretrained=str(path)).eval()
    with torch.no_grad():
        assert torch.allclose(theirs(image), logits, atol=1e-6)
        assert torch.equal(tower.native(head).eval()(image), theirs(image))
        assert torch.equal(again(image), tower(image))


def test_position_embeddings_interpolate_as_timm_does(tmp_path):
    torch.manual_seed(0)
    small = timm.create_model("test_vit").eval()
    save_file(small.state_dict(), tmp_path / "vit.safetensors")
    tower = Timm(arch="test_vit", pretrained=str(tmp_path / "vit.safetensors"), image_size=224)
    theirs = timm.create_model(
        "test_vit",
        pretrained=True,
        pretrained_cfg_overlay={"file": str(tmp_path / "vit.safetensors")},
        num_classes=0,
        img_size=224,
    ).eval()
    image = torch.randn(2, 3, 224, 224)
    assert tower.preprocess.size == 224
    with torch.no_grad():
        assert torch.equal(tower.eval()(image), theirs(image))


def test_a_hub_repository_of_timm(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPBENCH_DATA", str(tmp_path))
    folder = tmp_path / "weights" / "net-of-ours"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    theirs = timm.create_model("test_resnet").eval()
    save_file(theirs.state_dict(), folder / "model.safetensors")
    told = {"architecture": "test_resnet", "pretrained_cfg": {"mean": [0.1, 0.2, 0.3]}}
    (folder / "config.json").write_text(json.dumps(told))
    tower = Timm(arch="test_resnet", pretrained="hf-hub:lab/net-of-ours").eval()
    image = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        assert torch.equal(tower(image), theirs.forward_head(theirs.forward_features(image), True))
    assert tower.preprocess.mean == (0.1, 0.2, 0.3)
    with pytest.raises(UserError, match=r"Use model\.arch=test_resnet"):
        Timm(arch="test_vit", pretrained="hf-hub:lab/net-of-ours")


def test_the_networks_own_options_reach_it():
    with torch.device("meta"):
        tower = Timm(arch="test_vit", options={"drop_path_rate": 0.5})
    assert "DropPath" in str(tower.model)


@pytest.mark.parametrize(
    ("arch", "pretrained", "said"),
    [
        ("resnet51", None, "Similar names: resnet"),
        ("resnet50", "nonsense", "tags of resnet50: a1_in1k"),
        ("deit_base_distilled_patch16_224", None, "no single classifier"),
    ],
)
def test_unknown_names_are_refused_with_known_ones(arch, pretrained, said):
    with pytest.raises(UserError, match=said):
        Timm(arch=arch, pretrained=pretrained)


def test_a_fixed_size_is_refused_rather_than_run_into():
    with pytest.raises(UserError, match="works at 224 px only"):
        Timm(arch="mixer_s32_224", image_size=160)


def test_a_file_of_another_network_is_refused(tmp_path):
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "resnet.safetensors")
    with pytest.raises(UserError, match=r"does not fit test_vit: \d+ missing"):
        Timm(arch="test_vit", pretrained=str(tmp_path / "resnet.safetensors"))
