"""Resizing pixels to what Pillow makes of them, within 1 of 255, in a third of its time.

torchvision's own resize of uint8 is as quick, but not that near: it rounds its bicubic weights to
16 bits, so that in one photo of five some pixel is 2 away, and it always resizes the rows first,
where Pillow 13 takes the columns of tall pictures first, so that some are 5 away. Hence the first
of the two passes is made here, to the last bit as Pillow makes it; torchvision makes the second,
and what that rounds otherwise is 1 away at most.
"""

from functools import cache, lru_cache

import numpy as np
import torch
import torch.nn.functional as nn
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

WEIGHT_BITS = 22  # of Pillow's integer weights


def resize(
    pixels: Tensor, size: tuple[int, int], interpolation: str, window: tuple[int, int, int, int]
) -> Tensor:
    """A window of the resized picture, antialiased.

    Args:
        pixels: uint8 (3, H, W).
        size: height and width of the whole picture after the resize.
        interpolation: ``bicubic`` or ``bilinear``.
        window: top, left, height and width of the part that is wanted.

    Returns:
        uint8 (3, height, width).
    """
    height, width = pixels.shape[1:]
    top, left, rows, columns = window
    picture = pixels.permute(1, 2, 0).numpy()  # (H, W, 3), as it was decoded
    across = (width, size[1], left, columns)
    down = (height, size[0], top, rows)
    if size[0] < height and height - size[0] > 2 * (width - size[1]) and _columns_first():
        resized = _native(_exact(picture, down, interpolation), across, interpolation)
    elif width == size[1]:
        resized = _exact(picture[:, left : left + columns], down, interpolation)
    else:
        # Pillow turns a picture several times quicker than numpy or torch, which go by bytes.
        turned = np.asarray(Image.fromarray(picture).transpose(Image.Transpose.TRANSPOSE))
        resized = _native(_exact(turned, across, interpolation), down, interpolation)
        resized = resized.transpose(0, 1)
    return resized.permute(2, 0, 1).contiguous()


Side = tuple[int, int, int, int]  # length before and after the resize, start and length wanted


def _exact(picture: NDArray[np.uint8], side: Side, interpolation: str) -> Tensor:
    """The first dimension of (H, W, 3) resized, to the last bit as Pillow does it: uint8."""
    before, after, start, length = side
    if before == after:
        return torch.from_numpy(picture[start : start + length].copy())
    first, last, index, weight = _weights(*side, interpolation)
    rows = torch.from_numpy(picture[first:last].reshape(last - first, -1).astype(np.float32))
    # A weighted sum of rows, which is what an embedding bag is.
    summed = nn.embedding_bag(index, rows, per_sample_weights=weight.float(), mode="sum").numpy()
    np.clip(summed, 0, 255, out=summed)
    # More than what float32 can be wrong by, of sums of k products below 256.
    slack = index.shape[1] * 2.0**-15
    resized = (summed + np.float32(0.5 + slack)).astype(np.uint8)  # numpy's cast is SIMD
    summed += np.float32(0.5 - slack)
    ties = np.flatnonzero(resized != summed.astype(np.uint8))
    if len(ties):
        i, j = np.divmod(ties, rows.shape[1])
        sums = (rows[index[i], j[:, None]].double() * weight[i]).sum(1)
        resized[i, j] = (sums + 0.5).clamp(0, 255).numpy().astype(np.uint8)
    return torch.from_numpy(resized).view(length, -1, 3)


def _native(picture: Tensor, side: Side, interpolation: str) -> Tensor:
    """The second dimension of uint8 (H, W, 3) resized by torchvision."""
    _, after, start, length = side
    size = [picture.shape[0], after]
    mode = InterpolationMode(interpolation)
    resized: Tensor = F.resize(picture.permute(2, 0, 1), size, mode, antialias=True)
    return resized.permute(1, 2, 0)[:, start : start + length]


def _kernel(distance: NDArray[np.float64], interpolation: str) -> NDArray[np.float64]:
    x = np.abs(distance)
    kernel: NDArray[np.float64]
    if interpolation == "bilinear":
        kernel = np.maximum(1 - x, 0)
    else:  # Keys' cubic convolution with a = -1/2
        near = (1.5 * x - 2.5) * x * x + 1
        far = ((-0.5 * x + 2.5) * x - 4) * x + 2
        kernel = np.where(x < 1, near, np.where(x < 2, far, 0))
    return kernel


@lru_cache(maxsize=1024)
def _weights(
    before: int, after: int, start: int, length: int, interpolation: str
) -> tuple[int, int, Tensor, Tensor]:
    """Of which rows the wanted ones are sums: the span; in it, the rows of each; their weights.

    The formulas, and the rounding of the weights, are those of Pillow's src/libImaging/Resample.c.
    """
    scale = before / after
    wide = max(scale, 1.0)  # antialiased: the kernel covers at least one row of the result
    reach = (2 if interpolation == "bicubic" else 1) * wide
    centre = (np.arange(start, start + length) + 0.5) * scale
    first = np.clip((centre - reach + 0.5).astype(np.int64), 0, None)
    last = np.clip((centre + reach + 0.5).astype(np.int64), None, before)
    index = first[:, None] + np.arange((last - first).max())
    weight = _kernel((index - centre[:, None] + 0.5) / wide, interpolation)
    weight[index >= last[:, None]] = 0
    weight /= weight.sum(1, keepdims=True)
    steps = np.trunc(weight * 2**WEIGHT_BITS + np.copysign(0.5, weight)) / 2**WEIGHT_BITS
    low, high = first.min(), last.max()
    index = index.clip(max=high - 1) - low
    return int(low), int(high), torch.from_numpy(index), torch.from_numpy(steps)


@cache
def _columns_first() -> bool:
    """Whether the Pillow at hand resizes the columns first where that saves work, as 13 does."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 16), dtype=np.uint8)
    tall, mode = Image.fromarray(noise), Image.Resampling.BICUBIC
    columns_first = tall.resize((16, 8), mode).resize((12, 8), mode)
    return tall.resize((12, 8), mode).tobytes() == columns_first.tobytes()
