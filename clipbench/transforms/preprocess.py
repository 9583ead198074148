"""Pictures in, tensors out: the transforms of a checkpoint's own preprocessing."""

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

Picture = Image.Image | Tensor  # PIL, or uint8 (3, H, W)
Transform = Callable[[Picture], Tensor]

# What dataset.resize_mode says -> open_clip's names, which weight files hold.
MODES = {"crop": "shortest", "squash": "squash", "pad": "longest"}


@dataclass(frozen=True)
class Preprocess:
    """What a checkpoint expects of its pictures; it travels with the weights.

    Attributes:
        size: side of the square that the model sees, in pixels.
        resize: length of the side that is resized to before the crop, in pixels.
        mean: per channel, of values in [0, 1].
        std: per channel, of values in [0, 1].
        interpolation: ``bicubic`` or ``bilinear``, antialiased.
        resize_mode: ``shortest`` keeps the aspect ratio and crops, ``squash`` keeps the whole
            picture and bends it (SigLIP, CLIPA), ``longest`` keeps both and pads with black.
    """

    size: int
    resize: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"

    def at(self, size: int | None) -> "Preprocess":
        """The same at another size, the resize before the crop in proportion; None: as it is."""
        if size is None:
            return self
        return replace(self, size=size, resize=size * self.resize // self.size)

    def with_mode(self, mode: str | None) -> "Preprocess":
        """The same with ``dataset.resize_mode``; None, or the checkpoint's own: as it is.

        Squash and pad keep the whole picture, so nothing is cut off after the resize, as in
        ``open_clip.image_transform(resize_mode=...)``.

        Raises:
            UserError: for a mode other than ``crop``, ``squash`` and ``pad``.
        """
        if mode is not None and mode not in MODES:
            raise UserError(f"dataset.resize_mode={mode} is not known; use crop, squash or pad")
        if mode is None or MODES[mode] == self.resize_mode:
            return self
        return replace(self, resize=self.size, resize_mode=MODES[mode])

    def to_json(self) -> str:
        """As text, to be kept in a weight file."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "Preprocess":
        """From what :meth:`to_json` wrote.

        Raises:
            UserError: for any other text.
        """
        try:
            told = json.loads(text)
            return Preprocess(**{**told, "mean": tuple(told["mean"]), "std": tuple(told["std"])})
        except (ValueError, TypeError, KeyError) as unknown:
            raise UserError(f"a weight file's preprocessing is not ours ({unknown})") from None


def _rgb(picture: Picture) -> Picture:
    # As open_clip and torchvision's own folder loader do it: grey is repeated, CMYK and palettes
    # are translated, alpha is dropped. Before the resize: Pillow resizes palettes by nearest pixel.
    if isinstance(picture, Tensor) or picture.mode == "RGB":
        return picture
    return picture.convert("RGB")


def _bytes(picture: Picture) -> Tensor:
    pixels: Tensor = picture if isinstance(picture, Tensor) else F.pil_to_tensor(picture)
    return pixels.contiguous()


def _resize(
    picture: Picture, size: tuple[int, int], interpolation: str, window: tuple[int, int, int, int]
) -> Picture:
    """A window (top, left, height, width) of the picture resized, antialiased."""
    if isinstance(picture, Tensor):
        return resize.resize(picture, size, interpolation, window)
    mode = InterpolationMode(interpolation)
    resized: Image.Image = F.resize(picture, list(size), mode, antialias=True)
    return resized if window == (0, 0, *size) else F.crop(resized, *window)


@dataclass(frozen=True)
class Whole:
    """The picture as evaluation sees it, the same at every look: uint8 (3, S, S).

    From a PIL image it is to the last bit what open_clip, torchvision and timm make of it; from
    the pixels, uint8 (3, H, W), at most 1 of 255 away.
    """

    size: int
    resize: int
    interpolation: str
    resize_mode: str

    def __call__(self, picture: Picture) -> Tensor:
        """Resize to the mode's size, then cut out the centre, padded where that is too small."""
        picture = _rgb(picture)
        height, width = self._resized(*F.get_size(picture))
        rows, columns = min(height, self.size), min(width, self.size)
        window = (round((height - rows) / 2), round((width - columns) / 2), rows, columns)
        seen = _resize(picture, (height, width), self.interpolation, window)
        return _bytes(F.center_crop(seen, [self.size, self.size]))

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if self.resize_mode == "squash":
            return self.resize, self.resize
        if self.resize_mode == "longest":  # as open_clip rounds
            ratio = max(height / self.resize, width / self.resize)
            return max(1, round(height / ratio)), max(1, round(width / ratio))
        longer = int(self.resize * max(height, width) / min(height, width))  # as torchvision does
        return (longer, self.resize) if height > width else (self.resize, longer)


class Varied:
    """The random part of a training picture before normalisation, drawn from torch's generator.

    open_clip and WiSE-FT crop a rectangle of any mode's picture in training, so that a model to be
    evaluated on squashed or padded pictures never trains on one. Here the crop is cut from the
    square that the mode makes of the whole picture, at its full resolution and resized once:
    padded pictures are padded first; squashed ones are cropped by a ratio bent likewise.

    Args:
        told: how the checkpoint prepares pictures.
        augment: what is done to them.
    """

    def __init__(self, told: Preprocess, augment: Augment) -> None:
        self.told, self.augment = told, augment
        policy, strength = augment.randaugment, augment.color_jitter
        self._changes = [
            *([RandAugment(policy, told.mean, told.interpolation)] if policy else []),
            *([ColorJitter(strength, strength, strength)] if strength else []),
        ]

    def __call__(self, picture: Picture) -> Tensor:
        """The picture, or what :class:`Whole` made of it, to uint8 (3, S, S)."""
        pixels = _bytes(picture if self.augment.scale is None else self._crop(_rgb(picture)))
        if self.augment.hflip and torch.rand(1) < self.augment.hflip:
            pixels = pixels.flip(-1)
        for change in self._changes:
            pixels = change(pixels)
        return pixels

    def _crop(self, picture: Picture) -> Picture:
        height, width = F.get_size(picture)
        shape = width / height if self.told.resize_mode == "squash" else 1.0
        if self.told.resize_mode == "longest":
            side = max(height, width)
            picture = F.center_crop(picture, [side, side])
        ratio = [side * shape for side in self.augment.ratio]
        box = RandomResizedCrop.get_params(picture, self.augment.scale, ratio)
        size = (self.told.size, self.told.size)
        return _resize(F.crop(picture, *box), size, self.told.interpolation, (0, 0, *size))


class View:
    """How a picture becomes what a model sees.

    Args:
        preprocess: of the checkpoint.
        augment: of training; None for evaluation.

    Attributes:
        fixed: the part that is the same at every look, which a cache may hold; None where the
            picture itself is all there is.
        varied: the random part; None where there is none.
    """

    def __init__(self, preprocess: Preprocess, augment: Augment | None = None) -> None:
        told = preprocess
        crops = augment is not None and augment.scale is not None
        self.fixed = (
            None if crops else Whole(told.size, told.resize, told.interpolation, told.resize_mode)
        )
        self.varied = Varied(told, augment) if augment and augment.random else None
        self._erase = Erasing(augment.erasing) if augment and augment.erasing else None
        self._mean = torch.tensor(told.mean).view(3, 1, 1)
        self._std = torch.tensor(told.std).view(3, 1, 1)

    def __call__(self, picture: Picture) -> Tensor:
        """Picture to float32 (3, S, S)."""
        return self.finish(picture if self.fixed is None else self.fixed(picture))

    def finish(self, held: Picture) -> Tensor:
        """From what :attr:`fixed` made, or the picture itself, to normalised float32 (3, S, S)."""
        pixels = _bytes(held) if self.varied is None else self.varied(held)
        # Divided, not multiplied by 1/255 as v2.ToDtype does it: the last bit differs from what
        # open_clip, timm and torchvision's own weights are given.
        seen = pixels.to(torch.float32).div_(255).sub_(self._mean).div_(self._std)
        return seen if self._erase is None else self._erase(seen)


def eval_transform(preprocess: Preprocess) -> View:
    """Resize, crop the centre, normalise: picture to float32 (3, S, S)."""
    return View(preprocess)


def train_transform(preprocess: Preprocess, augment: Augment) -> View:
    """The training picture: the eval transform, or a random one in its place."""
    return View(preprocess, augment)
