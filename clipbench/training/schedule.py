"""Parameter groups, optimiser and schedule: how far a run gets in the steps that it has."""

import math
from dataclasses import dataclass

import torch

from clipbench.core.errors import UserError
from clipbench.strategies.param_groups import Group
from clipbench.strategies.recipe import Recipe


def optimizer(groups: list[Group], recipe: Recipe) -> torch.optim.Optimizer:
    """Return AdamW or SGD over parameter groups that each have an lr and a weight decay.

    AdamW without weight decay is Adam.

    Raises:
        UserError: for another name.
    """
    if recipe.optimizer == "adamw":
        first, second = recipe.betas
        return torch.optim.AdamW(groups, betas=(first, second), eps=recipe.eps)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=recipe.momentum)
    raise UserError(f"recipe.optimizer={recipe.optimizer} is not known; use adamw or sgd")


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then half a cosine to ``min_lr``, stepped once per optimiser step.

    The rule of WiSE-FT (src/models/utils.py, ``cosine_lr``): step s of the warm-up has
    ``lr * (s + 1) / warmup``.

    Attributes:
        total: optimiser steps of the run.
        warmup: optimiser steps of warm-up; may exceed ``total``, and is then never over.
        floor: the last learning rate as a share of the peak.
    """

    total: int
    warmup: int
    floor: float = 0.0

    def factor(self, step: int) -> float:
        """Return the learning rate at a step, as a share of ``lr``."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.total - self.warmup)
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    @property
    def peak(self) -> float:
        """The highest factor that the run reaches; below 1 if the warm-up never ends."""
        return min(1.0, self.total / self.warmup) if self.warmup else 1.0


def plan(recipe: Recipe, batches: int) -> Schedule:
    """Return the schedule of a run whose epochs have ``batches`` optimiser steps.

    Raises:
        UserError: for a ``min_lr`` below 0 or above the peak.
    """
    lr, min_lr = recipe.lr or 0.0, recipe.min_lr  # without an lr where nothing trains
    # Without batches there is nothing to train, however many steps are requested.
    total = recipe.epochs * batches if recipe.steps is None or not batches else recipe.steps
    warmup = recipe.warmup_steps
    warmup = round(recipe.warmup * total) if warmup is None else warmup
    if batches and not 0 <= min_lr <= lr:
        raise UserError(
            f"recipe.min_lr={min_lr:g}: the learning rate falls to it from lr={lr:g}. Use a number "
            "from 0 to lr."
        )
    return Schedule(total=total, warmup=warmup, floor=min_lr / lr if batches and lr else 0.0)


def ema_decay(ema: float | str | None, steps: int) -> float | None:
    """Return the decay of the moving average for a run of ``steps``.

    FT-CLIP's 0.9998 averages over 1 / (1 - 0.9998) = 5,000 of its 31,250 steps, 16 % of the run.
    On Flowers102's 80 steps the same decay would leave 98 % of the start in the average.
    ``auto`` takes 16 % of the run's steps: decay = 1 - 1 / (0.16 steps).
    """
    if ema == "auto":
        return max(0.0, 1 - 1 / max(1.0, 0.16 * steps))
    return None if ema is None else float(ema)
