"""Averages of weights: between a start and where training led, and over several runs.

Pure functions on state dicts, but for what has to look at images: a Fisher information, and
BatchNorm's statistics.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from clipbench.core.errors import UserError

State = Mapping[str, Tensor]

FLOOR = 1e-8  # of a Fisher information (mlfoundations/wise-ft, src/args.py)


def interpolate(start: State, tuned: State, alpha: float, kept: Sequence[str] = ()) -> State:
    """Return (1 - alpha) * start + alpha * tuned, key by key (WiSE-FT, Wortsman et al. 2022).

    Integers, such as BatchNorm's count of batches, are those of ``tuned``. Running statistics are
    averaged like all else, which does not estimate them well: see :func:`reestimate`. The result
    has the precision of ``tuned``.

    Args:
        start: of every parameter and buffer, the head's included.
        tuned: of the same names and shapes.
        alpha: 0 is the start and 1 the tuned, to the bit.
        kept: prefixes of names that stay as tuned. PAINT leaves the head out so, for a head that
            was frozen (Ilharco et al. 2022).

    Raises:
        UserError: for weights of different networks.
    """
    _same_network(start, tuned)
    return {
        name: torch.lerp(start[name].to(value.dtype), value, alpha)
        if value.is_floating_point() and not name.startswith(tuple(kept))
        else value
        for name, value in tuned.items()
    }


def fisher_merge(
    start: State, tuned: State, alpha: float, fishers: tuple[State, State], floor: float = FLOOR
) -> State:
    """Interpolate with each weight counted by its Fisher information at its end.

    ((1-a) F0 w0 + a F1 w1) / ((1-a) F0 + a F1), with each F at least ``floor`` (Matena and Raffel
    2022, as in WiSE-FT, src/wise_ft.py). What has no Fisher information is interpolated.

    Args:
        start: weights before training.
        tuned: and after it.
        alpha: 0 is the start, 1 the tuned.
        fishers: of both ends, see :func:`fisher`.
        floor: of each entry.

    Raises:
        UserError: for weights of different networks.
    """
    merged = dict(interpolate(start, tuned, alpha))
    if alpha in (0, 1):
        return merged  # the quotient would be so but for rounding
    for name in fishers[0]:
        before = (1 - alpha) * fishers[0][name].clamp(min=floor)
        after = alpha * fishers[1][name].clamp(min=floor)
        merged[name] = (before * start[name] + after * tuned[name]) / (before + after)
    return merged


def fisher(
    logits: Callable[[Tensor], Tensor],
    named: Mapping[str, nn.Parameter],
    rows: Iterable[Tensor],
    generator: torch.Generator,
) -> State:
    """Return the diagonal of the Fisher information: the mean squared gradient of log p(y | x).

    y is drawn from the model's own prediction, not taken from the labels: with those it would be
    the empirical Fisher, which is another matrix (Kunstner et al. 2019).

    Args:
        logits: (1, C) of a row, in eval mode.
        named: the parameters; those that no gradient reaches are left out.
        rows: inputs (1, ...), one at a time, since gradients are squared before they are summed.
        generator: of the draws, on the CPU.

    Returns:
        By name, in the parameters' shapes and on the CPU.
    """
    sums: dict[str, Tensor] = {}
    count = 0
    for row in rows:
        scores = logits(row)
        share = scores[0].detach().float().softmax(0).cpu()
        drawn = torch.multinomial(share, 1, generator=generator).to(scores.device)
        loss = F.cross_entropy(scores.float(), drawn)
        slopes = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        for name, slope in zip(named, slopes, strict=True):
            if slope is not None:
                square = slope.detach().float().square().cpu()
                sums[name] = sums[name] + square if name in sums else square
        count += 1
    return {name: total / count for name, total in sums.items()}


@torch.no_grad()
def reestimate(model: nn.Module, batches: Iterable[Tensor]) -> bool:
    """Estimate BatchNorm's running statistics anew, as the mean over batches.

    An average of networks has activations of its own; WiSE-FT keeps the averaged statistics, which
    spoils its ResNets (mlfoundations/wise-ft, issue 10).

    Args:
        model: takes (B, ...) and is changed in place.
        batches: in random order: a batch of one class varies less than all of them.

    Returns:
        False, having done nothing, for a model that has no BatchNorm.
    """
    if not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules()):
        return False
    update_bn(batches, model)
    return True


def uniform(states: Iterable[State]) -> State:
    """Return the mean of several networks' weights; integers are those of the first.

    Raises:
        UserError: for weights of different networks, or none.
    """
    total: dict[str, Tensor] = {}
    count = 0
    for state in states:
        if total:
            _same_network(total, state)
        for name, value in state.items():
            if not total.get(name, value).is_floating_point():
                total.setdefault(name, value)
            else:
                total[name] = total[name] + value if count else value.clone()
        count += 1
    if not count:
        raise UserError("there are no weights to average. Give completed runs.")
    return {name: v / count if v.is_floating_point() else v for name, v in total.items()}


def greedy(
    scores: Sequence[float], load: Callable[[int], State], score: Callable[[State], float]
) -> tuple[list[int], State, float]:
    """Return a greedy soup (Wortsman et al. 2022, "Model soups", recipe 1).

    From the best on held-out data down, each is added if the mean with it is strictly better there.

    Args:
        scores: of each ingredient alone; equal ones are tried in their order.
        load: reads the weights of an ingredient by its position.
        score: of weights.

    Returns:
        The positions of those added, best first; their mean; its score.
    """
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    added = [order[0]]
    soup = load(order[0])
    best = scores[order[0]]
    for i in order[1:]:
        candidate = uniform([*[soup] * len(added), load(i)])
        value = score(candidate)
        if value > best:
            added, soup, best = [*added, i], candidate, value
    return added, soup, best


def _same_network(a: State, b: State) -> None:
    for name in [*a, *b]:
        first, second = (tuple(s[name].shape) if name in s else "not there" for s in (a, b))
        if first != second:
            raise UserError(
                f"weights of different networks cannot be averaged: {name} is {first} in one and "
                f"{second} in another. Average runs of one model and one set of classes."
            )
