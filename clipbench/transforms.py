"""Pictures in, tensors out: the transforms of a checkpoint's own preprocessing."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

Transform = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class Preprocess:
    """What a checkpoint expects of its pictures; it travels with the weights.

    Attributes:
        size: side of the square that the model sees, in pixels.
        resize: length of the shorter side before the crop, in pixels.
        mean: per channel, of values in [0, 1].
        std: per channel, of values in [0, 1].
        interpolation: ``bicubic`` or ``bilinear``, antialiased.
    """

    size: int
    resize: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"


@dataclass(frozen=True, kw_only=True)
class Augment:
    """What is done to a training picture before normalisation.

    Attributes:
        scale: range of the random crop's area (WiSE-FT: 0.9 to 1), or None for the eval crop.
        ratio: range of the random crop's aspect ratio.
        hflip: probability of a horizontal flip.
    """

    scale: tuple[float, float] | None = None
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    hflip: float = 0.0


def _rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")


def _tensor(preprocess: Preprocess) -> list[Callable[..., object]]:
    return [
        v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(preprocess.mean, preprocess.std),
    ]


def eval_transform(preprocess: Preprocess) -> Transform:
    """Resize the shorter side, crop the centre, normalise: PIL image to float32 (3, S, S)."""
    mode = InterpolationMode(preprocess.interpolation)
    return v2.Compose(
        [
            _rgb,
            v2.Resize(preprocess.resize, mode, antialias=True),
            v2.CenterCrop(preprocess.size),
            *_tensor(preprocess),
        ]
    )


def train_transform(preprocess: Preprocess, augment: Augment) -> Transform:
    """The training picture: the eval transform, or a random crop and flip in its place."""
    mode = InterpolationMode(preprocess.interpolation)
    if augment.scale is None:
        geometry = [v2.Resize(preprocess.resize, mode, antialias=True), v2.CenterCrop(preprocess.size)]
    else:
        geometry = [
            v2.RandomResizedCrop(
                preprocess.size, augment.scale, augment.ratio, mode, antialias=True
            )
        ]
    return v2.Compose([_rgb, *geometry, v2.RandomHorizontalFlip(augment.hflip), *_tensor(preprocess)])
