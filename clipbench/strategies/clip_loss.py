"""The CLIP loss of a batch of pairs, on one rank or on many, duplicates among them or not."""

import hashlib
import warnings
from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

DUPLICATES = ("positives", "negatives", "masked")


def clip_loss(
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    same: Tensor,
    *,
    masked: bool = False,
    across: bool = True,
) -> Tensor:
    """Return the symmetric CLIP loss of the rows of this rank against the pairs of all ranks.

    With no pair but a row's own it is open_clip's ClipLoss. Otherwise each row's target is uniform
    over the pairs that mean the same: a true pair is never pushed apart. Or these are masked: left
    out of the row's denominator, neither pulled nor pushed.

    Across ranks it is open_clip's ``local_loss`` with ``gather_with_grad``: the mean over ranks of
    the gradients of each, which is what DDP takes, is the gradient of the whole batch on one rank.
    All ranks must have the same number of rows.

    Args:
        image: normalized features (b, D).
        text: normalized features (b, D), the caption of each image.
        scale: exp of the logit scale.
        same: boolean (b, B), which pairs of all ranks mean the same as each row, itself included;
            see :func:`same`.
        masked: leave out what is the same, in place of sharing the target.
        across: False where every rank has all the pairs.

    Returns:
        Mean over the rows of both directions' cross-entropies.
    """
    ranks, rank = _ranks(across)
    scores = scale * image @ gathered(text, across).T
    # On one rank the second product is the first again.
    back = scores.T if ranks == 1 else scale * text @ gathered(image, across).T
    rows = torch.arange(len(image), device=image.device)
    own = rows + rank * len(image)
    target: Tensor = own
    if masked:
        others = same.clone()
        others[rows, own] = False
        scores, back = (s.masked_fill(others, -torch.inf) for s in (scores, back))
    else:
        shares = same.to(torch.promote_types(scores.dtype, torch.float32))
        target = shares / shares.sum(1, keepdim=True)
    return (F.cross_entropy(scores, target) + F.cross_entropy(back, target)) / 2


def same(
    *meanings: Sequence[str] | Sequence[int], alike: bool = True, across: bool = True
) -> Tensor:
    """Return which pairs of all ranks mean the same as each row of this one, boolean (b, B).

    Args:
        meanings: each of b values, such as captions, classes or the numbers of images: pairs
            mean the same that agree in any of them. Across ranks they are compared by 64 bits.
        alike: False for each row with itself alone.
        across: False where every rank has all the pairs.
    """
    rank, length = _ranks(across)[1], len(meanings[0])
    found = None
    for values in meanings:
        own = torch.tensor([number(value) for value in values])
        everyone = gathered(own, across)
        equal = own[:, None] == everyone[None]
        found = equal if found is None else found | equal
    assert found is not None
    if alike:
        return found
    return torch.eye(length, found.shape[1], dtype=torch.bool).roll(rank * length, 1)


def gathered(rows: Tensor, across: bool = True) -> Tensor:
    """Gather the rows (B, ...) of all ranks, by rank, from those (b, ...) of this one.

    A gradient reaches the rank that made a row, from every rank that reads it.

    Args:
        rows: as many in each rank.
        across: False for the rows as they are.
    """
    if _ranks(across)[0] == 1:
        return rows
    if not rows.requires_grad:
        device = torch.device("cpu") if dist.get_backend() == "gloo" else _device()
        sent = rows.to(device).contiguous()
        taken = [torch.empty_like(sent) for _ in range(dist.get_world_size())]
        dist.all_gather(taken, sent)
        return torch.cat(taken).to(rows.device)
    import torch.distributed.nn.functional as functional

    with warnings.catch_warnings():  # what it names in its stead is private, and of 2.14 alone
        warnings.simplefilter("ignore", FutureWarning)
        return torch.cat(functional.all_gather(rows))  # type: ignore[no-untyped-call]


def _ranks(across: bool) -> tuple[int, int]:
    """Return how many ranks there are, and which this is."""
    if not (across and dist.is_available() and dist.is_initialized()):
        return 1, 0
    return dist.get_world_size(), dist.get_rank()


def _device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device())


def number(value: str | int) -> int:
    """Return a meaning as an integer, a text as 64 bits of its hash."""
    if isinstance(value, int):
        return value
    digest = hashlib.blake2b(value.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
