"""The numbers that a run trains with: ``recipe=`` with the root's keys in their place."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from clipbench.core.config.option_files import Config


@dataclass(frozen=True)
class Recipe:
    """The values of ``conf/recipe``, which says where each comes from.

    Attributes:
        lr: peak learning rate.
        batch_size: global, over all devices.
        epochs: passes over train; the last may be cut short by ``steps``.
        steps: optimiser steps, in place of epochs.
        warmup: share of the run.
        warmup_steps: optimiser steps, in place of the share.
        optimizer: ``adamw`` or ``sgd``.
        weight_decay: of the groups that decay.
        label_smoothing: of the classes' labels.
        head_lr_factor: of ``lr``, for the head.
        layer_decay: of the learning rate from a block to the one before it; 1 is off.
        ema: a decay, ``auto``, or None for no average of the weights.
        micro_batch: rows whose activations are in memory at once; None for all of a batch.
        betas: of AdamW.
        eps: likewise.
        momentum: of SGD.
        clip_norm: largest norm of the gradient; None for any.
        min_lr: where the cosine ends.
        decay_all: whether norms, biases and embeddings decay too.
        text_lr_factor: of ``lr``, where the text tower trains.
        text_weight_decay: of the text tower; None for ``weight_decay``.
    """

    lr: float
    batch_size: int
    epochs: int
    steps: int | None
    warmup: float
    warmup_steps: int | None
    optimizer: str
    weight_decay: float
    label_smoothing: float
    head_lr_factor: float
    layer_decay: float
    ema: float | str | None = None
    micro_batch: int | None = None
    betas: Sequence[float] = (0.9, 0.999)
    eps: float = 1e-8
    momentum: float = 0.9
    clip_norm: float | None = 1.0
    min_lr: float = 0.0
    decay_all: bool = False
    text_lr_factor: float = 1.0
    text_weight_decay: float | None = None

    @classmethod
    def of(cls, config: Config) -> "Recipe":
        """Return the recipe of a config; a root key stands for the recipe's of the same name."""
        values = values_of(config)
        return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})


def values_of(config: Config) -> Config:
    """Return the values of a config's recipe, some of which may be null, to be chosen by rule."""
    recipe: Config = config["recipe"]
    return {**recipe, **{name: value for name, value in config.items() if name in recipe}}
