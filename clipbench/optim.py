"""Parameter groups, optimiser and schedule: how far a run gets in the steps that it has."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Group = dict[str, Any]


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies: not to norms, biases, class and position embeddings.

    open_clip's and timm's rule: nothing of one dimension, and no embedding that is added.
    """
    added = ("positional_embedding", "class_embedding", "pos_embed", "cls_token")
    return parameter.ndim > 1 and not name.endswith(added)


def param_groups(
    named: Iterable[tuple[str, nn.Parameter]],
    *,
    name: str,
    lr: float,
    weight_decay: float,
    decay_all: bool,
) -> list[Group]:
    """The trainable parameters among some, in a group with weight decay and a group without.

    Args:
        named: parameters with their names.
        name: what the groups are called in the record; the second is ``<name>, no decay``.
        lr: peak learning rate.
        weight_decay: of the first group.
        decay_all: WiSE-FT's one group, with decay on norms, biases and embeddings too.
    """
    trainable = [(n, p) for n, p in named if p.requires_grad]
    decayed = [p for n, p in trainable if decay_all or decays(n, p)]
    kept = [p for n, p in trainable if not (decay_all or decays(n, p))]
    groups = [
        {"name": name, "params": decayed, "lr": lr, "weight_decay": weight_decay},
        {"name": f"{name}, no decay", "params": kept, "lr": lr, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def optimizer(
    groups: list[Group], *, name: str, betas: tuple[float, float], eps: float, momentum: float
) -> torch.optim.Optimizer:
    """AdamW or SGD over parameter groups that carry their own lr and weight decay."""
    if name == "adamw":
        return torch.optim.AdamW(groups, betas=betas, eps=eps)
    return torch.optim.SGD(groups, momentum=momentum)


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
        """The learning rate at a step, as a share of the one asked for."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.total - self.warmup)
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    @property
    def peak(self) -> float:
        """The highest factor that the run reaches; below 1 if the warm-up never ends."""
        return min(1.0, self.total / self.warmup) if self.warmup else 1.0


def plan(*, batches: int, epochs: int, warmup: float, warmup_steps: int | None) -> Schedule:
    """The schedule of a run, from its size.

    Args:
        batches: optimiser steps of an epoch.
        epochs: passes over the train split.
        warmup: as a share of the run, unless ``warmup_steps`` says it literally.
        warmup_steps: optimiser steps.
    """
    total = epochs * batches
    steps = round(warmup * total) if warmup_steps is None else warmup_steps
    return Schedule(total=total, warmup=steps)
