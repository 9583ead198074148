"""The models that a comparison is between: CLIP and ResNet50, or stand-ins for them."""

from collections.abc import Sequence
from dataclasses import dataclass

from clipbench.core.config import compose
from clipbench.core.errors import UserError
from clipbench.models import about

# Of each side, the model that is meant, then its stand-ins, the best first.
SIDES = (("clip_vitb32", "clip_tiny"), ("resnet50", "efficientnet_lite0", "resnet_tiny"))
KNOWN = {
    "clip_tiny": "clip_tiny (a small CLIP, pretrained on drawings)",
    "resnet_tiny": "resnet_tiny (a small ResNet, pretrained on drawings)",
}


@dataclass(frozen=True)
class Candidates:
    """The models, and the notice about them.

    Attributes:
        models: options of ``model=``.
        notice: the first line of the report if there are stand-ins, else None.
    """

    models: Sequence[str]
    notice: str | None = None


def of(models: str) -> Candidates:
    """Return the requested models; ``auto`` takes CLIP and ResNet50 if their weights are available.

    Weights are downloaded if there is a network.

    Args:
        models: ``auto``, or options of ``model=`` with commas between.
    """
    if models != "auto":
        return Candidates([name for name in models.split(",") if name])
    found = [next((name for name in side if _there(name)), side[-1]) for side in SIDES]
    swapped = [(took, side[0]) for took, side in zip(found, SIDES, strict=True) if took != side[0]]
    if not swapped:
        return Candidates(found)
    replaced = [f"{KNOWN.get(took, took)} in place of {meant}" for took, meant in swapped]
    names = " or ".join("CLIP" if meant.startswith("clip") else "ResNet50" for _, meant in swapped)
    return Candidates(
        found,
        f"Stand-ins: {' and '.join(replaced)}: weights are not on this machine and could not be "
        f"downloaded. What follows says nothing about {names}.",
    )


def _there(name: str) -> bool:
    """Return whether a model's weights are on this machine, after a download if necessary."""
    from clipbench.core.config.instantiate import build  # torch

    try:
        build(compose.compose(f"model={name}")["model"])
    except UserError:
        return False
    return True


def has_text(name: str) -> bool:
    """Return whether a model reads text, and so can classify without training.

    Raises:
        hydra.errors.HydraException: if there is no such option.
    """
    return about.of(compose.compose(f"model={name}")["model"]).text
