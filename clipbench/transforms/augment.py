"""The augmentation of training images."""

from dataclasses import dataclass

from clipbench.core.errors import UserError
from clipbench.transforms.randaugment import RandAugment


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Augmentation of training images, in this order; 0 and None turn an operation off.

    Attributes:
        scale: range of the random crop's area (WiSE-FT: 0.9 to 1), or None for the eval crop.
        ratio: range of the random crop's aspect ratio.
        hflip: probability of a horizontal flip.
        randaugment: timm's name of a policy, such as ``rand-m9-mstd0.5-inc1``: 2 of 15 operations,
            each left out half of the time, at magnitude 9 of 10 on average.
        color_jitter: how far brightness, contrast and saturation go from 1, each by itself. (timm
            and what is built on it, such as FT-CLIP, ignore theirs with RandAugment.)
        erasing: probability that a rectangle of 2 to 33 % of the normalised image becomes noise.
        mixup: alpha of the Beta distribution of the shares in which images are mixed; see
            :class:`clipbench.transforms.mixup.MixUp`.
        cutmix: likewise, of the area of the rectangle that comes from another image.
        mixup_probability: that a batch is mixed; mixup and cutmix are equally likely.

    Raises:
        UserError: for a value out of range, or a policy that timm does not know.
    """

    scale: tuple[float, float] | None = None
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    hflip: float = 0.0
    randaugment: str | None = None
    color_jitter: float = 0.0
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mixup_probability: float = 1.0

    def __post_init__(self) -> None:
        for name in ("hflip", "erasing", "mixup_probability"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise UserError(f"augment.{name}={value}: not a probability. Use 0 to 1.")
        for name in ("color_jitter", "mixup", "cutmix"):
            if (value := getattr(self, name)) < 0:
                raise UserError(f"augment.{name}={value}: negative. Use 0 to turn it off.")
        if self.randaugment:
            RandAugment(self.randaugment)

    @property
    def mixes(self) -> bool:
        """Whether the images of a batch are mixed with each other."""
        return bool((self.mixup or self.cutmix) and self.mixup_probability)

    @property
    def random(self) -> bool:
        """Whether an image looks different each time that it is seen."""
        return self.scale is not None or any(
            getattr(self, name) for name in ("hflip", "randaugment", "color_jitter", "erasing")
        )
