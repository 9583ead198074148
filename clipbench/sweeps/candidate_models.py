"""Which models a comparison is between, on this machine: the two of the question, or stand-ins."""

from collections.abc import Sequence
from dataclasses import dataclass

from clipbench.core.config import compose
from clipbench.core.errors import UserError
from clipbench.models import about

# Of each side, the model that is meant, and who may stand in for it, the best first.
SIDES = (("clip_vitb32", "clip_tiny"), ("resnet50", "efficientnet_lite0", "resnet_tiny"))
KNOWN = {
    "clip_tiny": "clip_tiny (a small CLIP, pretrained on drawings)",
    "resnet_tiny": "resnet_tiny (a small ResNet, pretrained on drawings)",
}


@dataclass(frozen=True)
class Contestants:
    """The models, and what to say of them first.

    Attributes:
        models: options of ``model=``.
        notice: the first line of the report where they are stand-ins; None where they are not.
    """

    models: Sequence[str]
    notice: str | None = None


def of(models: str) -> Contestants:
    """The models that were asked for; ``auto`` takes those of the question if they can be had.

    Their weights are fetched where there is network.

    Args:
        models: ``auto``, or options of ``model=`` with commas between.
    """
    if models != "auto":
        return Contestants([name for name in models.split(",") if name])
    found = [next((name for name in side if _there(name)), side[-1]) for side in SIDES]
    swapped = [(took, side[0]) for took, side in zip(found, SIDES, strict=True) if took != side[0]]
    if not swapped:
        return Contestants(found)
    said = [f"{KNOWN.get(took, took)} in place of {meant}" for took, meant in swapped]
    names = " or ".join("CLIP" if meant.startswith("clip") else "ResNet50" for _, meant in swapped)
    return Contestants(
        found,
        f"Stand-ins: {' and '.join(said)}: what was meant is not on this machine and could not be "
        f"fetched. What follows says nothing about {names}.",
    )


def _there(name: str) -> bool:
    """Whether a model's weights are on this machine, or are once this has returned."""
    from clipbench.core.config.instantiate import build  # torch

    try:
        build(compose.compose(f"model={name}")["model"])
    except UserError:
        return False
    return True


def has_text(name: str) -> bool:
    """Whether a model can be asked without training.

    Raises:
        hydra.errors.HydraException: for an option that there is not.
    """
    return about.of(compose.compose(f"model={name}")["model"]).text
