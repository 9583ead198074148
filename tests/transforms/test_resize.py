"""Pixels resized against Pillow's own resize of the same image."""

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from clipbench.transforms import resize

SHAPES = [(640, 427), (427, 640), (300, 225), (97, 61), (40, 399), (500, 9), (64, 64), (1, 30)]
SIZES = [(224, 224), (224, 336), (336, 224), (100, 50), (300, 40), (64, 64), (7, 1)]  # H, W


def photos():
    for shape in SHAPES:
        for photo in load_sample_images().images:
            yield Image.fromarray(photo).resize(shape, Image.Resampling.LANCZOS)


def apart(image, size, interpolation):
    """How far each value is from Pillow's."""
    mode = Image.Resampling[interpolation.upper()]
    theirs = F.pil_to_tensor(image.resize(size[::-1], mode))
    ours = resize.resize(F.pil_to_tensor(image), size, interpolation, (0, 0, *size))
    return (ours.int() - theirs.int()).abs()


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_of_photos_no_value_is_more_than_1_of_255_from_pillows(interpolation):
    unequal = total = 0
    for photo in photos():
        for size in [*SIZES, photo.size[::-1], photo.size]:
            found = apart(photo, size, interpolation)
            assert found.max() <= 1, (photo.size, size)
            unequal, total = unequal + int((found > 0).sum()), total + found.numel()
    assert unequal / total < 0.01


def test_torchvision_alone_is_further_away():
    """Else neither Pillow's order of passes nor the negative is needed any more."""
    tall = [*photos()][3].resize((427, 640))
    theirs = F.pil_to_tensor(tall.resize((224, 224), Image.Resampling.BICUBIC)).int()
    told = (F.pil_to_tensor(tall), (224, 224), InterpolationMode.BICUBIC)
    if resize._columns_first():
        assert (F.resize(*told, antialias=True).int() - theirs).abs().max() > 2
        assert (resize._passes(*told).int() - theirs).abs().max() <= 2
    beyond = {"passes": 0, "mean": 0}
    for photo in photos():
        pixels, size = (
            F.pil_to_tensor(photo),
            (photo.height * 7 // 8 or 1, photo.width * 7 // 8 or 1),
        )
        theirs = F.pil_to_tensor(photo.resize(size[::-1], Image.Resampling.BICUBIC)).int()
        alone = resize._passes(pixels, size, InterpolationMode.BICUBIC).int()
        beyond["passes"] += int(((alone - theirs).abs() > 1).sum())
        beyond["mean"] += int((apart(photo, size, "bicubic") > 1).sum())
    assert beyond["mean"] < beyond["passes"] / 2, beyond


def test_a_window_is_a_part_of_the_whole():
    for image in [*photos()][::4]:
        pixels = F.pil_to_tensor(image)
        whole = resize.resize(pixels, (60, 90), "bicubic", (0, 0, 60, 90))
        part = resize.resize(pixels, (60, 90), "bicubic", (11, 20, 30, 50))
        assert torch.equal(part, whole[:, 11:41, 20:70])
        assert part.is_contiguous()


def test_pixels_that_do_not_lie_in_order_are_resized_alike():
    """A crop, and the two ways in which decoders lay out an image."""
    pixels = F.pil_to_tensor(next(iter(photos())))
    told = ((50, 70), "bicubic", (0, 0, 50, 70))
    planar = resize.resize(pixels.contiguous(), *told)
    decoded = resize.resize(pixels.permute(1, 2, 0).contiguous().permute(2, 0, 1), *told)
    assert torch.equal(planar, decoded)
    crop = pixels[:, 30:200, 40:300]
    assert torch.equal(resize.resize(crop, *told), resize.resize(crop.clone(), *told))
