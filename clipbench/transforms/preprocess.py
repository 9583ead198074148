"""From images to tensors, with a checkpoint's preprocessing."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.v2 import ColorJitter
from torchvision.transforms.v2 import functional as F

from clipbench.core.errors import UserError
from clipbench.transforms import resize
from clipbench.transforms.augment import Augment
from clipbench.transforms.randaugment import Erasing, RandAugment

ImageInput = Image.Image | Tensor  # PIL, or uint8 (3, H, W)
Transform = Callable[[ImageInput], Tensor]

# Values of dataset.resize_mode -> open_clip's names, which weight files hold.
MODES = {"crop": "shortest", "squash": "squash", "pad": "longest"}


@dataclass(frozen=True)
class Preprocess:
    """How a checkpoint's images are prepared; it is stored with the weights.

    Attributes:
        size: side of the square that the model sees, in pixels.
        resize: length that a side is resized to before the crop, in pixels.
        mean: per channel, of values in [0, 1].
        std: per channel, of values in [0, 1].
        interpolation: ``bicubic`` or ``bilinear``, antialiased.
        resize_mode: ``shortest`` keeps the aspect ratio and crops, ``squash`` keeps the whole
            image and distorts it (SigLIP, CLIPA), ``longest`` keeps both and pads with black.
    """

    size: int
    resize: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"

    def at(self, size: int | None) -> "Preprocess":
        """Return the preprocessing at another size, its resize in proportion; None for the same."""
        if size is None:
            return self
        return replace(self, size=size, resize=size * self.resize // self.size)

    def with_mode(self, mode: str | None) -> "Preprocess":
        """Return the preprocessing with another ``dataset.resize_mode``; None for the same.

        Squash and pad keep the whole image, so nothing is cut off after the resize, as in
        ``open_clip.image_transform(resize_mode=...)``.
        """
        if mode is not None and mode not in MODES:
            raise UserError(f"dataset.resize_mode={mode}: unknown. Use crop, squash or pad.")
        if mode is None or MODES[mode] == self.resize_mode:
            return self
        return replace(self, resize=self.size, resize_mode=MODES[mode])

    def to_json(self) -> str:
        """Return the JSON that a weight file stores."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "Preprocess":
        """Return the preprocessing that :meth:`to_json` wrote; raise a UserError otherwise."""
        try:
            values = json.loads(text)
            mean, std = tuple(values["mean"]), tuple(values["std"])
            return Preprocess(**{**values, "mean": mean, "std": std})
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"a weight file's preprocessing is not of this package ({error}). Use another file."
            ) from None


def _rgb(image: ImageInput) -> ImageInput:
    # As in open_clip and torchvision's folder loader: grey is repeated, CMYK and palettes are
    # translated, alpha is dropped. Before the resize: Pillow resizes palettes by nearest pixel.
    if isinstance(image, Tensor) or image.mode == "RGB":
        return image
    return image.convert("RGB")


def _bytes(image: ImageInput) -> Tensor:
    pixels: Tensor = image if isinstance(image, Tensor) else F.pil_to_tensor(image)
    return pixels.contiguous()


def _resize(
    image: ImageInput, size: tuple[int, int], interpolation: str, window: tuple[int, int, int, int]
) -> ImageInput:
    """Return a window (top, left, height, width) of the resized image, antialiased."""
    if isinstance(image, Tensor):
        return resize.resize(image, size, interpolation, window)
    mode = InterpolationMode(interpolation)
    resized: Image.Image = F.resize(image, list(size), mode, antialias=True)
    return resized if window == (0, 0, *size) else F.crop(resized, *window)


@dataclass(frozen=True)
class Deterministic:
    """Resize and crop as in evaluation, to uint8 (3, S, S).

    A PIL image becomes to the last bit what open_clip, torchvision and timm make of it; pixels,
    uint8 (3, H, W), are at most 1 of 255 away.
    """

    size: int
    resize: int
    interpolation: str
    resize_mode: str

    def __call__(self, image: ImageInput) -> Tensor:
        """Resize to the mode's size, then cut out the centre, padded where that is too small."""
        image = _rgb(image)
        height, width = self._resized(*F.get_size(image))
        rows, columns = min(height, self.size), min(width, self.size)
        window = (round((height - rows) / 2), round((width - columns) / 2), rows, columns)
        part = _resize(image, (height, width), self.interpolation, window)
        return _bytes(F.center_crop(part, [self.size, self.size]))

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if self.resize_mode == "squash":
            return self.resize, self.resize
        if self.resize_mode == "longest":  # as open_clip rounds
            ratio = max(height / self.resize, width / self.resize)
            return max(1, round(height / ratio)), max(1, round(width / ratio))
        longer = int(self.resize * max(height, width) / min(height, width))  # as torchvision does
        return (longer, self.resize) if height > width else (self.resize, longer)


class Random:
    """Draw the random part of a training image, before normalisation, by torch's generator.

    open_clip and WiSE-FT crop a rectangle of the image whatever the mode, so that a model that is
    evaluated on squashed or padded images never trains on one. Here the crop is cut from the
    square that the mode makes of the whole image, at its full resolution and resized once: padded
    images are padded first; squashed ones are cropped by a ratio distorted likewise.
    """

    def __init__(self, preprocess: Preprocess, augment: Augment) -> None:
        self.preprocess, self.augment = preprocess, augment
        policy, strength = augment.randaugment, augment.color_jitter
        self._operations = [
            *([RandAugment(policy, preprocess.mean, preprocess.interpolation)] if policy else []),
            *([ColorJitter(strength, strength, strength)] if strength else []),
        ]

    def __call__(self, image: ImageInput) -> Tensor:
        """Turn an image, or the result of :class:`Deterministic`, into uint8 (3, S, S)."""
        pixels = _bytes(image if self.augment.scale is None else self._crop(_rgb(image)))
        if self.augment.hflip and torch.rand(1) < self.augment.hflip:
            pixels = pixels.flip(-1)
        for operation in self._operations:
            pixels = operation(pixels)
        return pixels

    def _crop(self, image: ImageInput) -> ImageInput:
        height, width = F.get_size(image)
        shape = width / height if self.preprocess.resize_mode == "squash" else 1.0
        if self.preprocess.resize_mode == "longest":
            side = max(height, width)
            image = F.center_crop(image, [side, side])
        ratio = [side * shape for side in self.augment.ratio]
        box = RandomResizedCrop.get_params(image, self.augment.scale, ratio)
        size = (self.preprocess.size, self.preprocess.size)
        return _resize(F.crop(image, *box), size, self.preprocess.interpolation, (0, 0, *size))


class View:
    """The transform of an image to a model's input; ``augment`` is None for evaluation.

    Attributes:
        deterministic: the part whose result a cache may keep; None if the crop is random.
        random: the random part, or None.
    """

    def __init__(self, preprocess: Preprocess, augment: Augment | None = None) -> None:
        p, crops = preprocess, augment is not None and augment.scale is not None
        self.deterministic = (
            None if crops else Deterministic(p.size, p.resize, p.interpolation, p.resize_mode)
        )
        self.random = Random(p, augment) if augment and augment.random else None
        self._erase = Erasing(augment.erasing) if augment and augment.erasing else None
        self._mean = torch.tensor(p.mean).view(3, 1, 1)
        self._std = torch.tensor(p.std).view(3, 1, 1)

    def __call__(self, image: ImageInput) -> Tensor:
        """Transform an image to float32 (3, S, S)."""
        return self.finish(image if self.deterministic is None else self.deterministic(image))

    def finish(self, image: ImageInput) -> Tensor:
        """Transform the result of :attr:`deterministic`, or an image, to float32 (3, S, S)."""
        pixels = _bytes(image) if self.random is None else self.random(image)
        # Divided, not multiplied by 1/255 as in v2.ToDtype: the last bit would differ from the
        # input that open_clip, timm and torchvision's own weights get.
        scaled = pixels.to(torch.float32).div_(255).sub_(self._mean).div_(self._std)
        return scaled if self._erase is None else self._erase(scaled)
