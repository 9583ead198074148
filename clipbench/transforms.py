"""Pictures in, tensors out: the transforms of a checkpoint's own preprocessing."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.functional import to_tensor

from clipbench.errors import Refused

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
        resize_mode: ``shortest`` keeps the aspect ratio and crops, ``squash`` keeps the whole
            picture and bends it (SigLIP, CLIPA).
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

    def to_json(self) -> str:
        """As text, to be kept in a weight file."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "Preprocess":
        """From what :meth:`to_json` wrote.

        Raises:
            Refused: for any other text.
        """
        try:
            told = json.loads(text)
            return Preprocess(**{**told, "mean": tuple(told["mean"]), "std": tuple(told["std"])})
        except (ValueError, TypeError, KeyError) as unknown:
            raise Refused(f"a weight file's preprocessing is not ours ({unknown})") from None


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
    # As open_clip and torchvision's own folder loader do it: grey is repeated, CMYK and palettes
    # are translated, alpha is dropped. Before the resize: Pillow resizes palettes by nearest pixel.
    return image if image.mode == "RGB" else image.convert("RGB")


def _tensor(preprocess: Preprocess) -> list[Callable[..., object]]:
    # v2.ToDtype multiplies by 1/255, which differs in the last bit from what open_clip, timm and
    # torchvision's own weights divide.
    return [to_tensor, v2.Normalize(preprocess.mean, preprocess.std)]


def _whole_picture(preprocess: Preprocess) -> list[Callable[..., object]]:
    mode = InterpolationMode(preprocess.interpolation)
    shorter = preprocess.resize_mode == "shortest"
    size = preprocess.resize if shorter else [preprocess.resize, preprocess.resize]
    return [v2.Resize(size, mode, antialias=True), v2.CenterCrop(preprocess.size)]


def eval_transform(preprocess: Preprocess) -> Transform:
    """Resize, crop the centre, normalise: PIL image to float32 (3, S, S)."""
    transform: Transform = v2.Compose([_rgb, *_whole_picture(preprocess), *_tensor(preprocess)])
    return transform


def train_transform(preprocess: Preprocess, augment: Augment) -> Transform:
    """The training picture: the eval transform, or a random crop and flip in its place."""
    mode = InterpolationMode(preprocess.interpolation)
    if augment.scale is None:
        geometry = _whole_picture(preprocess)
    else:
        geometry = [
            v2.RandomResizedCrop(
                preprocess.size, augment.scale, augment.ratio, mode, antialias=True
            )
        ]
    flip = v2.RandomHorizontalFlip(augment.hflip)
    transform: Transform = v2.Compose([_rgb, *geometry, flip, *_tensor(preprocess)])
    return transform
