"""Which parameters train."""

from torch import nn

from clipbench.core.errors import UserError
from clipbench.models.base import ImageTower
from clipbench.strategies.param_groups import Layers


def trainable_parameters(layers: Layers, depth: int | str, key: str) -> list[nn.Parameter]:
    """Return the parameters that a freezing depth leaves to train.

    Args:
        layers: L + 2 groups, input to output; or none at all.
        depth: 0 freezes nothing; k >= 1 the stem and the first k blocks; L, the number of blocks,
            leaves the final norm and projection; ``all`` leaves nothing.
        key: what the config calls the depth.

    Raises:
        UserError: if the depth is neither ``all`` nor in 0..L.
    """
    blocks = len(layers) - 2
    if depth == "all":
        frozen = len(layers)
    elif isinstance(depth, int) and 0 <= depth <= blocks:
        frozen = depth + 1 if depth else 0
    else:
        raise UserError(f"{key}={depth} is not possible here; use 0..{blocks} or all")
    return [parameter for layer in layers[frozen:] for parameter in layer]


def freeze(tower: ImageTower, depth: int | str, text_depth: int | str = "all") -> None:
    """Freeze the first part of an image tower and of its text side, and all that is in neither.

    What is frozen costs no backward pass: no image and none of its parameters needs a
    gradient, so torch records nothing before the first layer that trains.

    Args:
        tower: its logit scale, if it has one, is frozen whatever the depths.
        depth: see :func:`trainable_parameters`.
        text_depth: the same of the text tower.

    Raises:
        UserError: for a depth that there is not.
    """
    image = trainable_parameters(tower.layers(), depth, "freeze_depth")
    text = trainable_parameters(tower.text_layers(), text_depth, "text_freeze_depth")
    tower.requires_grad_(False)
    for parameter in [*image, *text]:
        parameter.requires_grad_(True)
