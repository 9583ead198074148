"""A hundred real photos, prepared as the library that a checkpoint comes from prepares them."""

import os
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
import torchvision
from open_clip.transform import image_transform_v2
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.utils.data import DataLoader
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from clipbench.core.errors import UserError
from clipbench.loading.dataset import ImageDataset
from clipbench.loading.images import decoding
from clipbench.loading.samplers import KeyedSampler
from clipbench.loading.split import Split
from clipbench.models.clip import CLIP
from clipbench.models.resnet import ResNet
from clipbench.models.timm import Timm
from clipbench.transforms.augment import Augment
from clipbench.transforms.preprocess import Preprocess, View
from clipbench.transforms.randaugment import RandAugment, _posterize


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
def photo_paths():
    root = Path(os.environ.get("CLIPBENCH_DATA", "")) / "flowers102" / "flowers-102" / "jpg"
    if "CLIPBENCH_DATA" not in os.environ or not root.is_dir():
        pytest.skip("needs real photos: set CLIPBENCH_DATA")
    found = sorted(root.glob("*.jpg"))[::20][:100]
    assert len(found) == 100
    return found


@pytest.fixture(scope="module")
def photos(photo_paths):
    return [Image.open(path).convert("RGB") for path in photo_paths]


@pytest.mark.parametrize("case", CASES)
def test_a_hundred_photos_are_prepared_exactly_as_the_source_library_does(photos, case):
    preprocess, theirs = CASES[case]()
    ours = View(preprocess)
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
        assert torch.equal(View(preprocess)(image), theirs(image)), mode


def test_preprocessing_survives_a_weight_file_as_text():
    preprocess = Preprocess(224, 256, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bilinear", "squash")
    assert Preprocess.from_json(preprocess.to_json()) == preprocess
    with pytest.raises(UserError, match="preprocessing is not of this package"):
        Preprocess.from_json('{"size": 224}')
    assert preprocess.at(None) == preprocess
    assert (preprocess.at(160).size, preprocess.at(160).resize) == (160, 182)


def test_training_images_are_crops_of_the_asked_size():
    preprocess = Preprocess(size=48, resize=56, mean=(0.5,) * 3, std=(0.5,) * 3)
    image = Image.effect_noise((120, 100), 64).convert("RGB")
    plain = View(preprocess, Augment())(image)
    assert torch.equal(plain, View(preprocess)(image))
    torch.manual_seed(0)
    crop = View(preprocess, Augment(scale=(0.5, 1.0), hflip=1.0))
    one, two = crop(image), crop(image)
    assert one.shape == two.shape == (3, 48, 48)
    assert not torch.equal(one, two)


# resize modes

SHAPES = [(640, 427), (427, 640), (500, 333), (224, 224), (300, 225), (97, 61), (40, 399), (500, 9)]
MODES = {"crop": "shortest", "squash": "squash", "pad": "longest"}
PLAIN = Preprocess(size=224, resize=224, mean=(0.48, 0.45, 0.40), std=(0.26, 0.27, 0.28))


@pytest.fixture(scope="module")
def samples():
    """scikit-learn's two sample photos, bent to shapes that photos and scans have."""
    pair = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    return [photo.resize(shape, Image.Resampling.LANCZOS) for photo in pair for shape in SHAPES]


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("mode", MODES)
def test_each_resize_mode_is_open_clips_own_to_the_last_bit(samples, mode, interpolation):
    preprocess = replace(PLAIN, interpolation=interpolation).with_mode(mode)
    told = {"mean": PLAIN.mean, "std": PLAIN.std, "interpolation": interpolation}
    theirs = open_clip.image_transform(224, is_train=False, resize_mode=MODES[mode], **told)
    ours = View(preprocess)
    assert preprocess.resize_mode == MODES[mode]
    for photo in samples:
        assert torch.equal(ours(photo), theirs(photo))


def test_a_strip_that_pads_to_less_than_a_pixel_keeps_one():
    strip = Image.new("RGB", (5000, 2), "white")
    fixed = View(replace(PLAIN, resize_mode="longest")).deterministic(strip)
    assert fixed.shape == (3, 224, 224)
    assert (fixed.amax((0, 2)) > 0).sum() == 1


def test_squash_and_pad_keep_the_whole_image_of_a_checkpoint_that_crops_after_its_resize():
    own = replace(PLAIN, size=224, resize=256)
    assert own.with_mode(None) == own.with_mode("crop") == own
    for mode in ("squash", "pad"):
        assert (own.with_mode(mode).size, own.with_mode(mode).resize) == (224, 224)
    siglip = replace(own, resize_mode="squash")
    assert siglip.with_mode("squash") == siglip
    with pytest.raises(UserError, match=r"resize_mode=longest: unknown\. Use crop, squash or pad"):
        own.with_mode("longest")


# from the pixels

VIEWS = {mode: View(PLAIN.with_mode(mode)) for mode in MODES}
VIEWS["resize 256, bilinear"] = View(replace(PLAIN, resize=256, interpolation="bilinear"))


def within_1_of_255(pairs):
    """But for one value in a million, within 2: clipbench/transforms/resize.py says how often."""
    apart = torch.cat([(exact.int() - quick.int()).abs().flatten() for exact, quick in pairs])
    return apart.max() <= 2 and (apart > 1).sum() <= 1e-6 * apart.numel()


@pytest.mark.parametrize("view", VIEWS)
def test_from_pixels_values_are_within_1_of_255(samples, view):
    fixed = VIEWS[view].deterministic
    pairs = [(fixed(photo), fixed(F.pil_to_tensor(photo))) for photo in samples]
    assert within_1_of_255(pairs)
    assert all(quick.dtype == torch.uint8 and quick.is_contiguous() for _, quick in pairs)


@pytest.mark.parametrize("view", VIEWS)
def test_real_photos_decoded_the_quick_way_are_within_1_of_255(photo_paths, view):
    fixed = VIEWS[view].deterministic
    photos = photo_paths[::3]
    assert within_1_of_255((fixed(decoding.read(p)), fixed(decoding.pixels(p))) for p in photos)


def test_what_is_held_between_gives_the_same_image(samples):
    for view in VIEWS.values():
        for photo in samples[:3]:
            assert torch.equal(view.finish(view.deterministic(photo)), view(photo))
    flipped = View(PLAIN, Augment(hflip=1.0))
    held = flipped.deterministic(samples[0])
    assert torch.equal(flipped.finish(held), View(PLAIN)(samples[0]).flip(-1))
    assert torch.equal(flipped.finish(held), flipped.finish(held)), "what is held was changed"


# the random crop


def test_the_random_crop_is_torchvisions_own(samples):
    augment = Augment(scale=(0.3, 1.0), hflip=0.5)
    ours = View(PLAIN, augment)
    reference = v2.Compose(
        [
            v2.RandomResizedCrop(224, (0.3, 1.0), interpolation=InterpolationMode.BICUBIC),
            v2.RandomHorizontalFlip(0.5),
        ]
    )
    assert ours.deterministic is None
    pairs = []
    for seed, photo in enumerate(samples):
        torch.manual_seed(seed)
        cut = F.pil_to_tensor(reference(photo))
        torch.manual_seed(seed)
        assert torch.equal(ours.random(photo), cut)
        torch.manual_seed(seed)
        pairs.append((cut, ours.random(F.pil_to_tensor(photo))))
    assert within_1_of_255(pairs)


def ramps(width, height):
    """Red says how far right, green how far down, blue that it is an image and no padding."""
    x = torch.linspace(0, 255, width).expand(height, width)
    y = torch.linspace(0, 255, height).view(-1, 1).expand(height, width)
    return torch.stack([x, y, torch.full_like(x, 255)]).round().to(torch.uint8)


@pytest.mark.parametrize("mode", ["squash", "pad"])
def test_under_squash_and_pad_the_crop_is_of_the_whole_square(mode):
    preprocess = replace(PLAIN, size=64, resize=64, interpolation="bilinear").with_mode(mode)
    image = ramps(400, 100)
    whole = View(preprocess, Augment(scale=(1.0, 1.0), ratio=(1.0, 1.0)))
    apart = (whole.random(image).int() - View(preprocess).deterministic(image).int()).abs()
    # where padding comes before the resize, not after it, the image's edge is blended with it
    inner = apart[:, 26:38] if mode == "pad" else apart
    assert inner.max() <= 4
    crop = View(preprocess, Augment(scale=(0.4, 0.6), ratio=(0.8, 1.25)))
    seen = []
    for seed in range(30):
        torch.manual_seed(seed)
        pixels = crop.random(image).float()
        inside = pixels[2] == 255
        across, down = (np.ptp(pixels[k][inside].numpy()) / 255 for k in (0, 1))
        seen.append((across, down, bool((pixels[2] == 0).any())))
    if mode == "squash":
        assert all(0.38 <= a * d <= 0.62 and 0.77 <= a / d <= 1.3 for a, d, _ in seen)
        assert not any(padded for _, _, padded in seen)
    else:
        assert all(0.5 < a < 0.9 for a, _, _ in seen)
        assert all(padded for _, _, padded in seen)


# more than crop and flip

POLICY = "rand-m9-mstd0.5-inc1"


def test_randaugment_and_erasing_are_timms_own_on_the_same_draws(samples):
    """FT-CLIP's pipeline, its crop and flip left out; its colour jitter is left out by timm."""
    told = {"mean": PLAIN.mean, "std": PLAIN.std, "interpolation": "bicubic"}
    _, policy, final = timm.data.create_transform(
        224, is_training=True, auto_augment=POLICY, re_prob=1.0, re_mode="pixel", separate=True,
        color_jitter=0.4, **told,
    )  # fmt: skip
    assert "ColorJitter" not in repr(policy)
    ours = View(PLAIN, Augment(randaugment=POLICY, erasing=1.0))
    photos = [photo for photo in samples if photo.size == (224, 224)]
    assert len(photos) == 2
    changed = 0
    for seed in range(12):
        for photo in photos:
            torch.manual_seed(seed)
            one = photo
            for step in (policy, final):
                number = int(torch.randint(2**32, (1,)))
                random.seed(number)
                np.random.seed(number)  # noqa: NPY002
                one = step(one)
            torch.manual_seed(seed)
            assert torch.equal(ours(photo), one)
            torch.manual_seed(seed)
            changed += not torch.equal(ours.random(photo), F.pil_to_tensor(photo))
    assert 12 <= changed <= 23, "each of two operations is left out half of the time"


def test_every_operation_works_at_every_magnitude(samples):
    """timm's posterize leaves no bit at 10, which Pillow refuses; a draw of 9 may come to 10."""
    photo = F.pil_to_tensor(samples[0].resize((24, 24)))
    for name in ("rand-m10-p1-inc1", "rand-m0-p1-inc1", "rand-m10-p1", "rand-m0-p1"):
        changed = RandAugment(name)
        assert len(changed._policy.ops) == 15
        for op in changed._policy.ops:
            changed._policy.ops = [op]
            assert changed(photo).shape == (3, 24, 24), (name, op)
    kept = F.pil_to_tensor(_posterize(F.to_pil_image(photo), 0))
    assert set(kept.unique().tolist()) == {0, 128}


def test_jitter_is_torchvisions_own_and_comes_after_the_policy(samples):
    ours = View(PLAIN, Augment(color_jitter=0.4)).random
    theirs = v2.ColorJitter(0.4, 0.4, 0.4)
    photo = next(photo for photo in samples if photo.size == (224, 224))
    for seed in range(5):
        torch.manual_seed(seed)
        one = theirs(F.pil_to_tensor(photo))
        torch.manual_seed(seed)
        assert torch.equal(ours(photo), one)
    both = View(PLAIN, Augment(color_jitter=0.4, randaugment=POLICY)).random
    assert [type(change).__name__ for change in both._operations] == ["RandAugment", "ColorJitter"]


def test_an_erased_rectangle_is_noise_and_the_rest_is_as_it_was(samples):
    photo = next(photo for photo in samples if photo.size == (224, 224))
    plain, ours = View(PLAIN)(photo), View(PLAIN, Augment(erasing=0.5))
    torch.manual_seed(0)
    looks = [(ours(photo) - plain).abs().sum(0) > 0 for _ in range(60)]
    hit = [look for look in looks if look.any()]
    assert 18 <= len(hit) <= 42
    for look in hit:
        rows, columns = look.any(1).sum(), look.any(0).sum()
        assert look.sum() == rows * columns, "no rectangle"
        assert 0.015 < look.float().mean() < 0.35


@pytest.mark.parametrize("augment", [
    Augment(randaugment=POLICY), Augment(color_jitter=0.4), Augment(erasing=1.0),
    Augment(scale=(0.08, 1.0), hflip=0.5, randaugment=POLICY, color_jitter=0.2, erasing=0.25),
])  # fmt: skip
def test_each_look_is_a_function_of_seed_epoch_and_position(samples, augment):
    stacked = np.stack([np.asarray(p.resize((40, 40))) for p in samples])
    split = Split([str(i) for i in range(16)], np.arange(16) % 3, stacked, 16)
    told = replace(PLAIN, size=32, resize=36)

    def epochs(workers, seed=7):
        # what other libraries have drawn before is nothing to it
        random.seed(workers + 50)
        np.random.seed(workers + 50)  # noqa: NPY002
        images = ImageDataset(split, View(told, augment), seed)
        sampler = KeyedSampler(16, seed=1)
        loader = DataLoader(images, batch_size=5, sampler=sampler, num_workers=workers)
        seen = []
        for epoch in (0, 1):
            sampler.set_epoch(epoch)
            rows = [
                (int(i), x) for b in loader for i, x in zip(b["index"], b["image"], strict=True)
            ]
            seen.append(torch.stack([x for _, x in sorted(rows, key=lambda row: row[0])]))
        return seen

    one = epochs(0)

    def states():
        return random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002

    for other in (epochs(2), epochs(0)):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    before = states()
    View(told, augment)(samples[0])
    assert states() == before
    assert not torch.equal(one[0], one[1])
    assert not torch.equal(one[0], epochs(0, seed=8)[0])


@pytest.mark.parametrize(("wrong", "said"), [
    ({"erasing": 25}, "augment.erasing=25: not a probability. Use 0 to 1"),
    ({"hflip": -0.1}, "augment.hflip=-0.1: not a probability"),
    ({"mixup": -1}, "augment.mixup=-1: negative. Use 0 to turn it off"),
    ({"randaugment": "m9"}, "augment.randaugment=m9: not a policy of timm's. Use rand-m9"),
    ({"randaugment": "rand-x9"}, "augment.randaugment=rand-x9: not a policy"),
])  # fmt: skip
def test_what_is_no_augmentation_is_refused(wrong, said):
    with pytest.raises(UserError, match=said):
        Augment(**wrong)
