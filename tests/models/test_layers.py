"""Every parameter of an image tower is in one layer; layers come in the order of computation."""

import pytest
import torch

from clipbench.models.clip import CLIP
from clipbench.models.resnet import ResNet
from clipbench.models.timm import Timm

# The number of blocks: what the paper's table shows, or what timm's function counts.
TOWERS = {
    "ViT": (CLIP, "tiny-vit", 3),
    "ModifiedResNet": (CLIP, "tiny-rn", 5),
    "timm in open_clip": (CLIP, "tiny-timm", 6),
    "CLIP ViT-B/32": (CLIP, "ViT-B-32-quickgelu", 12),
    "CLIP ResNet50": (CLIP, "RN50-quickgelu", 16),
    "CLIP ConvNeXt": (CLIP, "convnext_base", 36),
    "CoCa": (CLIP, "coca_ViT-B-32", 12),
    "ResNet18": (ResNet, "resnet18", 8),
    "ResNet50": (ResNet, "resnet50", 16),
    "timm ResNet50": (Timm, "resnet50", 16),
    "timm ViT": (Timm, "vit_base_patch16_224", 12),
    "timm EfficientNet": (Timm, "efficientnet_lite0", 16),
    "timm ConvNeXt": (Timm, "convnext_tiny", 18),
    "timm Swin": (Timm, "swin_tiny_patch4_window7_224", 12),
    "timm RegNet": (Timm, "regnety_002", 13),
    "timm MobileNetV3": (Timm, "mobilenetv3_small_100", 12),
    "timm without a table": (Timm, "caformer_s18", 18),
    "timm with a function for a table": (Timm, "inception_v3", 12),
}


@pytest.fixture(params=TOWERS, ids=list(TOWERS))
def case(request):
    kind, arch, blocks = TOWERS[request.param]
    with torch.device("meta"):  # shapes alone: nothing is computed
        return kind(arch=arch).eval(), blocks


def test_each_parameter_is_in_exactly_one_layer(case):
    tower, blocks = case
    layers = tower.layers()
    assert len(layers) == blocks + 2
    assert all(layers[:-1])  # the tail alone may be empty
    ids = [id(p) for layer in layers for p in layer]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(p) for p in tower.trained().parameters()}


def test_layers_come_in_the_order_of_the_forward_pass(case):
    tower, _ = case
    layer_of = {id(p): i for i, layer in enumerate(tower.layers()) for p in layer}
    passed = []
    for module in tower.trained().modules():
        own = [id(p) for p in module.parameters(recurse=False)]
        # A module that owns parameters beside others' is entered before its parts.
        if own and not list(module.children()):
            module.register_forward_pre_hook(
                lambda _, __, layer=layer_of[own[0]]: passed.append(layer)
            )
    with torch.no_grad(), torch.device("meta"):
        size = tower.preprocess.size
        features = tower(torch.zeros(2, 3, size, size))
    assert features.shape == (2, tower.feature_dim)
    assert len(passed) > len(tower.layers())
    assert passed == sorted(passed)


def test_an_empty_tail_is_the_resnets_alone():
    with torch.device("meta"):
        assert ResNet(arch="resnet50").layers()[-1] == []
        model = Timm(arch="efficientnet_lite0")
        names = {id(p): name for name, p in model.model.named_parameters()}
        tail = {names[id(p)] for p in model.layers()[-1]}
    assert tail == {"conv_head.weight", "bn2.weight", "bn2.bias"}


def test_text_and_logit_scale_are_no_part_of_the_image_tower():
    tower = CLIP(arch="tiny-vit")
    ids = {id(p) for layer in tower.layers() for p in layer}
    rest = {name for name, p in tower.model.named_parameters() if id(p) not in ids}
    assert "logit_scale" in rest
    assert "token_embedding.weight" in rest
    assert not any(name.startswith("visual.") for name in rest)
    assert not any(p.requires_grad for n, p in tower.model.named_parameters() if n in rest)
