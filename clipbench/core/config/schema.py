"""The keys of a run and their types."""

from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import MISSING, OmegaConf

from clipbench.core.config.search_path import AlsoDatasets


@dataclass
class Root:
    """Keys at the root of a config; the sweep axes among them default to the recipe.

    Null, where it has no meaning of its own, asks for a value by rule:
    ``clipbench.training.recommendations``.
    """

    model: Any = MISSING
    dataset: Any = MISSING
    retention: Any = None
    mix: Any = None
    prompts: Any = MISSING
    strategy: Any = MISSING
    recipe: Any = MISSING
    augment: Any = MISSING
    trainer: Any = MISSING
    callbacks: Any = None
    logger: Any = None
    seed: int = 0
    lr: float | None = MISSING
    batch_size: int | None = MISSING
    micro_batch: int | None = None
    epochs: int | None = MISSING
    steps: int | None = None
    freeze_depth: Any = 0
    text_freeze_depth: Any = 0
    warmup: float | None = MISSING
    warmup_steps: int | None = None
    weight_decay: float | None = MISSING
    layer_decay: float = MISSING
    ema: Any = None
    label_smoothing: float | None = MISSING
    head_lr_factor: float = MISSING
    grad_checkpointing: bool = False
    mix_fraction: float = 0.25
    mix_weight: float = 1.0
    alphas: Any = None
    merge: str = "wise_ft"
    merge_bn: str = "average"
    retention_every_epoch: bool = False
    monitor: str | None = None
    patience: int | None = None
    keep: Any = None
    allow_unfinished_warmup: bool = False
    gate: bool = True
    leaks: str = "stop"
    claim: Any = None
    ckpt: Any = MISSING
    retry: str | None = None
    timeout: float | None = None
    rank_timeout: float = 300.0


def register() -> None:
    """Make the schema known to Hydra as ``schema``, and ``${clipbench.scaled:lr,2048,64}``."""
    ConfigStore.instance().store("schema", Root)
    Plugins.instance().register(AlsoDatasets)
    OmegaConf.register_new_resolver("clipbench.scaled", _scaled, replace=True)


def _scaled(lr: float, reference: int, batch_size: int | None) -> float | None:
    """A learning rate in proportion to the batch, given for a batch of the reference's size."""
    return None if batch_size is None else lr * batch_size / reference
