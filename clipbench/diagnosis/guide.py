"""The OpenCLIP fine-tuning guide's table of ranges, and which of its rows a run falls under."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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


GUIDE = {
    "full fine-tuning": Published((1e-5, 1e-4), (1000, 5000), (5, 10)),
    "partial fine-tuning": Published((5e-5, 5e-4), (1000, 3000), (5, 10)),
    "a frozen encoder": Published((1e-4, 1e-3), (1000, 5000), (10, 20)),
    "training from scratch": Published((1e-3, 5e-3), (10_000, 10_000), (32, math.inf)),
}


def row(strategy: Mapping[str, Any]) -> str:
    """The name of the guide's row for a strategy's config, by what it freezes.

    The same as :func:`clipbench.advice.kind` of the strategy itself, which takes torch to build.
    """
    name = str(strategy["_target_"]).rpartition(".")[2]
    if name == "LiT":  # its text tower is new
        return "training from scratch"
    depths = [strategy.get(key) or 0 for key in ("freeze_depth", "text_freeze_depth")]
    if name == "LinearProbe" or strategy.get("encode_once") or "all" in depths:
        return "a frozen encoder"
    return "partial fine-tuning" if any(depths) else "full fine-tuning"


def own_lr(model: Mapping[str, Any], strategy: Mapping[str, Any]) -> float | None:
    """The learning rate that a strategy's own file recommends, or else the model's."""
    recommended = {**model.get("recommended", {}), **strategy.get("recommended", {})}
    found: float | None = recommended.get("lr")
    return found
