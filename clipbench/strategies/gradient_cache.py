"""Large batches in little memory: the same gradients, from a part of the rows at a time."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def parts(batch: Mapping[str, Any], size: int | None) -> Iterator[dict[str, Any]]:
    """Yield a batch in parts of at most ``size`` rows; the last may be shorter.

    For losses that are a mean over rows: weighted by their rows, the parts' losses add up to the
    whole batch's, and so do their gradients.

    Args:
        batch: tensors and lists of B rows each.
        size: rows of a part; None for all in one.
    """
    rows = len(batch["label"])
    for start in range(0, rows, size or rows):
        stop = start + (size or rows)
        yield {name: column[start:stop] for name, column in batch.items()}


def encoded(encode: Callable[[Tensor], Tensor], rows: Tensor, size: int | None) -> Tensor:
    """Return features of all rows, with the activations of only some of them in memory.

    For losses of all pairs in a batch, which do not split. The features are made without a graph;
    when their gradient comes, each part is encoded again and carries its share back. That is
    GradCache (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited
    Setup"), exact at the cost of one more forward pass. (Not with BatchNorm in training: it
    normalizes each part by itself, and sees each twice.)

    Args:
        encode: (b, ...) to features (b, D).
        rows: (B, ...).
        size: rows at a time; None for all at once, with nothing encoded twice.
    """
    if size is None or len(rows) <= size:
        return encode(rows)
    made = [checkpoint(encode, part, use_reentrant=False) for part in torch.split(rows, size)]
    features: Tensor = torch.cat(made)
    return features
