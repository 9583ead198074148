"""The OpenCLIP fine-tuning guide's table of ranges, and which of its rows a run falls under."""

import math
from dataclasses import dataclass

from clipbench.core.config.option_files import Node
from clipbench.strategies import about

Range = tuple[float, float]


@dataclass(frozen=True)
class Published:
    """A row of the OpenCLIP guide's table: from, to."""

    lr: Range
    warmup_steps: Range
    epochs: Range

    @property
    def middle(self) -> float:
        """The learning rate in the middle of the range, by ratio."""
        return math.sqrt(self.lr[0] * self.lr[1])


FULL, PARTIAL = "full fine-tuning", "partial fine-tuning"
FROZEN, SCRATCH = "a frozen encoder", "training from scratch"
GUIDE = {
    FULL: Published((1e-5, 1e-4), (1000, 5000), (5, 10)),
    PARTIAL: Published((5e-5, 5e-4), (1000, 3000), (5, 10)),
    FROZEN: Published((1e-4, 1e-3), (1000, 5000), (10, 20)),
    SCRATCH: Published((1e-3, 5e-3), (10_000, 10_000), (32, math.inf)),
}


def row(model: Node, strategy: Node) -> str:
    """Return the name of the guide's row for a run, by what it starts from and what it freezes.

    Args:
        model: its config.
        strategy: likewise.
    """
    known = about.of(strategy)
    if known.scratch or _random(model):
        return SCRATCH
    depths = [strategy.get(key) or 0 for key in ("freeze_depth", "text_freeze_depth")]
    if not known.trains_encoder or "all" in depths:
        return FROZEN
    return PARTIAL if any(depths) else FULL


def _random(model: Node) -> bool:
    return "pretrained" in model and model["pretrained"] is None


def own_lr(model: Node, strategy: Node) -> float | None:
    """Return the learning rate that a strategy's own file recommends, or else the model's."""
    recommended = {**model.get("recommended", {}), **strategy.get("recommended", {})}
    found: float | None = recommended.get("lr")
    return found


def recommended(model: Node, strategy: Node) -> float | None:
    """Return the learning rate that counts as usual though it may be outside the guide's range.

    A strategy's own file speaks of that strategy; a model's speaks of full fine-tuning, and says
    nothing of a run that freezes blocks. Where random weights are the fault, the rate is not named.
    """
    whole = row(model, strategy) == FULL or _random(model)
    whose = "lr" in strategy.get("recommended", {}) or whole
    return own_lr(model, strategy) if whose else None


def fits(model: Node, strategy: Node, lr: float) -> bool:
    """Return whether a learning rate is inside the guide's range for a run, or is recommended."""
    low, high = GUIDE[row(model, strategy)].lr
    return low <= lr <= high or lr == recommended(model, strategy)
