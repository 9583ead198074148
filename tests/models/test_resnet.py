"""ResNet against torchvision itself."""

import pytest
import torch
import torchvision

from clipbench.core.errors import UserError
from clipbench.models import weight_files
from clipbench.models.base import Classifier, random_head
from clipbench.models.resnet import ResNet


def test_a_saved_model_is_the_same_in_torchvision(tmp_path):
    torch.manual_seed(0)
    tower = ResNet(arch="resnet18").eval()
    head = random_head(tower, 7)
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        logits = Classifier(tower, head, meaningful=False).eval()(image)
    path = tmp_path / "model.safetensors"
    weight_files.save(path, tower.native_state_dict(head), tower.metadata())
    theirs = torchvision.models.resnet18(num_classes=7).eval()
    theirs.load_state_dict(weight_files.read(path), strict=True)
    again = ResNet(arch="resnet18", pretrained=str(path)).eval()
    with torch.no_grad():
        assert torch.equal(theirs(image), logits)
        assert torch.equal(tower.native(head).eval()(image), logits)
        assert torch.equal(again(image), tower(image))


def test_a_file_of_another_resnet_names_it(tmp_path):
    torch.save(torchvision.models.resnet34().state_dict(), tmp_path / "mine.pth")
    with pytest.raises(
        UserError, match=r"does not fit resnet18: .*unexpected.*looks like resnet34"
    ):
        ResNet(arch="resnet18", pretrained=str(tmp_path / "mine.pth"))


def test_the_resize_keeps_its_proportion_to_the_crop():
    with torch.device("meta"):
        assert ResNet(arch="resnet50").preprocess.resize == 232
        assert ResNet(arch="resnet50", image_size=448).preprocess.resize == 464


@pytest.mark.parametrize(
    ("arch", "pretrained", "said"),
    [
        ("resnet51", None, "Similar: resnet50"),
        ("vgg16", None, "no ResNet vgg16"),
        ("resnet50", "IMAGENET1K_V3", "weights of resnet50: IMAGENET1K_V1, IMAGENET1K_V2"),
        ("resnet50", "/nowhere/my.pth", "no weight file /nowhere/my.pth"),
    ],
)
def test_unknown_names_are_refused_with_known_ones(arch, pretrained, said):
    with pytest.raises(UserError, match=said):
        ResNet(arch=arch, pretrained=pretrained)
