"""The groups of an optimizer: by depth, by decay, by whose parameters they are."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

Group = dict[str, Any]

Layers = Sequence[Sequence[nn.Parameter]]


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Return whether weight decay applies: not to norms, biases, class and position embeddings.

    open_clip's and timm's rule: nothing of one dimension, and no embedding that is added.
    """
    added = ("positional_embedding", "class_embedding", "pos_embed", "cls_token")
    return parameter.ndim > 1 and not name.endswith(added)


def layer_scales(layers: Layers, decay: float) -> dict[int, tuple[int, float]]:
    """Return of each parameter its layer and its share of the learning rate, by ``id``.

    The rule of BEiT, FT-CLIP and timm: with L blocks, the stem is layer 0 and block i layer i,
    at ``decay ** (L + 1 - i)``. What follows the last block (final norm, projection) belongs to
    that block, as timm's tables have it. The head is layer L + 1, at 1; it is in no layer here.

    Args:
        layers: the L + 2 groups of ``ImageTower.layers()``.
        decay: of the learning rate from a layer to the one before it.
    """
    last = len(layers) - 2
    return {
        id(parameter): (min(i, last), decay ** (last + 1 - min(i, last)))
        for i, layer in enumerate(layers)
        for parameter in layer
    }


def param_groups(
    named: Iterable[tuple[str, nn.Parameter]],
    *,
    name: str,
    lr: float,
    weight_decay: float,
    decay_all: bool,
    layers: Layers = (),
    layer_decay: float = 1.0,
) -> list[Group]:
    """Return groups of the trainable parameters: with weight decay, and without.

    With layer-wise decay there are two such groups for each layer. Its learning rate is written
    into them: timm writes a ``lr_scale``, which torch's optimizers and schedulers do not read.

    Args:
        named: parameters with their names.
        name: what the groups are called in the record: ``<name>``, ``<name>, no decay``, or
            ``<name>, layer 3`` and so on.
        lr: peak learning rate, of what is in no layer and of everything without layer-wise decay.
        weight_decay: of the groups that have it.
        decay_all: WiSE-FT's one group, with decay on norms, biases and embeddings too.
        layers: ``ImageTower.layers()``, for layer-wise decay; see :func:`layer_scales`.
        layer_decay: 1 is off.
    """
    scales = layer_scales(layers, layer_decay) if layer_decay != 1 else {}
    groups: dict[tuple[int, bool], Group] = {}
    for n, parameter in named:
        if not parameter.requires_grad:
            continue
        layer, scale = scales.get(id(parameter), (len(layers), 1.0))
        decayed = decay_all or decays(n, parameter)
        called = name if layer == len(layers) else f"{name}, layer {layer}"
        group = {
            "name": called if decayed else f"{called}, no decay",
            "params": [],
            "lr": lr * scale,
            "weight_decay": weight_decay if decayed else 0.0,
        }
        groups.setdefault((layer, not decayed), group)["params"].append(parameter)
    return [groups[position] for position in sorted(groups)]
