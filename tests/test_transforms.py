"""A hundred real photos, prepared as the library that a checkpoint comes from prepares them."""

import os
from pathlib import Path

import open_clip
import pytest
import timm
import torch
import torchvision
from open_clip.transform import image_transform_v2
from PIL import Image

from clipbench.errors import Refused
from clipbench.models.clip import CLIP
from clipbench.models.resnet import ResNet
from clipbench.models.timm import Timm
from clipbench.transforms import Augment, Preprocess, eval_transform, train_transform


def clip(arch, tag, image_size=None):
    """Our preprocessing and open_clip's own transform of an architecture and one of its tags."""
    with torch.device("meta"):
        ours = CLIP(arch=arch, image_size=image_size)
        theirs = open_clip.create_model(arch, device="meta", force_image_size=image_size)
    told = open_clip.transform.PreprocessCfg(**theirs.visual.preprocess_cfg)
    return ours.preprocess, image_transform_v2(told, is_train=False)


def resnet(weights):
    with torch.device("meta"):
        return ResNet(arch=weights.meta.get("arch", "resnet50")).preprocess, weights.transforms()


def from_timm(arch, image_size=None):
    with torch.device("meta"):
        ours = Timm(arch=arch, image_size=image_size)
        told = timm.data.resolve_data_config(
            {"img_size": image_size} if image_size else {}, model=timm.create_model(arch)
        )
    return ours.preprocess, timm.data.create_transform(**told)


CASES = {
    "clip_vitb32": lambda: clip("ViT-B-32-quickgelu", "openai"),
    "clip_vitl14_336": lambda: clip("ViT-L-14-336-quickgelu", "openai"),
    "clip_vitb16_plus_240": lambda: clip("ViT-B-16-plus-240", "laion400m_e32"),
    "clip_vitb32 at 288": lambda: clip("ViT-B-32-quickgelu", "openai", 288),
    "resnet50": lambda: resnet(torchvision.models.ResNet50_Weights.IMAGENET1K_V2),
    "timm ResNet": lambda: from_timm("resnet50.a1_in1k"),
    "timm ViT": lambda: from_timm("vit_base_patch16_224"),
    "timm ConvNeXt": lambda: from_timm("convnext_tiny.fb_in22k_ft_in1k"),
    "efficientnet_lite0": lambda: from_timm("tf_efficientnet_lite0"),
    "efficientnet_lite0 at 160": lambda: from_timm("tf_efficientnet_lite0", 160),
    "timm squash": lambda: from_timm("vit_base_patch16_siglip_224"),
}


@pytest.fixture(scope="module")
def photos():
    root = Path(os.environ.get("CLIPBENCH_DATA", "")) / "flowers102" / "flowers-102" / "jpg"
    if "CLIPBENCH_DATA" not in os.environ or not root.is_dir():
        pytest.skip("needs real photos: set CLIPBENCH_DATA")
    found = sorted(root.glob("*.jpg"))[::20][:100]
    assert len(found) == 100
    return [Image.open(path).convert("RGB") for path in found]


@pytest.mark.parametrize("case", CASES)
def test_a_hundred_photos_are_prepared_exactly_as_the_source_library_does(photos, case):
    preprocess, theirs = CASES[case]()
    ours = eval_transform(preprocess)
    for photo in photos:
        assert torch.equal(ours(photo), theirs(photo))


def test_modes_other_than_rgb_are_what_open_clip_makes_of_them():
    """Grey is repeated, CMYK and palettes are translated, alpha is dropped."""
    preprocess = Preprocess(size=32, resize=32, mean=(0.5,) * 3, std=(0.5,) * 3)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (32, 32, 4), generator=generator, dtype=torch.uint8).numpy()
    for mode in ("L", "RGBA", "CMYK", "P", "LA", "1"):
        image = Image.fromarray(pixels, "RGBA").convert("RGB" if mode == "CMYK" else "RGBA")
        image = image.convert(mode)
        theirs = image_transform_v2(
            open_clip.transform.PreprocessCfg(size=32, mean=(0.5,) * 3, std=(0.5,) * 3), False
        )
        assert torch.equal(eval_transform(preprocess)(image), theirs(image)), mode


def test_preprocessing_survives_a_weight_file_as_text():
    preprocess = Preprocess(224, 256, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bilinear", "squash")
    assert Preprocess.from_json(preprocess.to_json()) == preprocess
    with pytest.raises(Refused, match="preprocessing is not ours"):
        Preprocess.from_json('{"size": 224}')
    assert preprocess.at(None) == preprocess
    assert (preprocess.at(160).size, preprocess.at(160).resize) == (160, 182)


def test_training_pictures_are_crops_of_the_asked_size():
    preprocess = Preprocess(size=48, resize=56, mean=(0.5,) * 3, std=(0.5,) * 3)
    image = Image.effect_noise((120, 100), 64).convert("RGB")
    plain = train_transform(preprocess, Augment())(image)
    assert torch.equal(plain, eval_transform(preprocess)(image))
    torch.manual_seed(0)
    crop = train_transform(preprocess, Augment(scale=(0.5, 1.0), hflip=1.0))
    one, two = crop(image), crop(image)
    assert one.shape == two.shape == (3, 48, 48)
    assert not torch.equal(one, two)
