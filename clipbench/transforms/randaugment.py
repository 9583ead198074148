"""timm's RandAugment and random erasing, drawn from torch's generator like everything else."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from clipbench.core.errors import UserError

Change = Callable[[Tensor], Tensor]


@contextmanager
def _drawn_from_torch() -> Iterator[None]:
    """Seed the generators of Python and NumPy, from which timm draws, by torch's.

    :mod:`clipbench.loading.dataset` sets torch's by (seed, epoch, position).
    """
    seed = int(torch.randint(2**32, (1,)))
    pythons, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(pythons)
        np.random.set_state(numpys)  # noqa: NPY002


def _posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    """Posterize as timm does, but to 1 bit at magnitude 10: Pillow 13 refuses 0 bits."""
    return image if bits >= 8 else ImageOps.posterize(image, max(1, bits))


# timm is imported only when it is used, since that takes a second.


class RandAugment:
    """A policy of timm's, such as ``rand-m9-mstd0.5-inc1``, over pixels before normalisation.

    The mean of the checkpoint's images fills what a rotation leaves empty.
    """

    def __init__(
        self, name: str, mean: Sequence[float] = (0.5, 0.5, 0.5), interpolation: str = "bicubic"
    ) -> None:
        from timm.data.auto_augment import rand_augment_transform

        fill = tuple(min(255, round(255 * value)) for value in mean)  # as timm rounds it
        options = {"img_mean": fill, "interpolation": Image.Resampling[interpolation.upper()]}
        try:
            self._policy: Any = rand_augment_transform(name, options)
        except (AssertionError, ValueError):
            raise UserError(
                f"augment.randaugment={name}: not a policy of timm's. Use rand-m9-mstd0.5-inc1."
            ) from None
        for op in self._policy.ops:
            if op.name.startswith("Posterize"):
                op.aug_fn = _posterize

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the augmented pixels, uint8 (3, H, W)."""
        with _drawn_from_torch():
            changed: Tensor = F.pil_to_tensor(self._policy(F.to_pil_image(pixels)))
        return changed


class Erasing:
    """Replace 2 to 33 % of a normalised image, float (3, H, W), by noise: timm's mode ``pixel``."""

    def __init__(self, probability: float) -> None:
        from timm.data.random_erasing import RandomErasing

        erasing: Any = RandomErasing
        self._erase = erasing(probability, mode="pixel", device="cpu")

    def __call__(self, image: Tensor) -> Tensor:
        """Erase in place, and return the image."""
        with _drawn_from_torch():
            changed: Tensor = self._erase(image)
        return changed
