"""The typed root of every config, and the one place that turns config nodes into objects."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import MISSING, OmegaConf

from clipbench.core.config.overrides import escaped
from clipbench.core.config.search_path import AlsoDatasets
from clipbench.core.errors import Refused

# A config is data: it may name these classes and nothing else (a block-list is no boundary:
# torch.load and pandas.read_pickle are reachable through Hydra's own).
ALLOWED = ("clipbench.", "pytorch_lightning.")
# Addresses that are in records and run keys, and the classes' modules of today.
MOVED = {
    "clipbench.prompts.Prompts": "clipbench.loading.prompts.Prompts",
    "clipbench.loggers.Wandb": "clipbench.training.loggers.Wandb",
}


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


def _check(node: Any) -> None:
    if isinstance(node, Mapping):
        if "_target_" in node:
            _class(str(node["_target_"]))
        for child in node.values():
            _check(child)
    elif isinstance(node, list):
        for child in node:
            _check(child)


def _located(value: Any) -> Any:
    """A config's value with the addresses in it that have moved replaced by where they are now."""
    if isinstance(value, Mapping):
        return {k: _located(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_located(v) for v in value]
    return MOVED.get(value, value) if isinstance(value, str) else value


def _class(target: str) -> type:
    from hydra.utils import get_object

    if not target.startswith(ALLOWED):
        raise Refused(f"_target_ {target} is refused; a config may name classes of {ALLOWED} only")
    try:
        found = get_object(MOVED.get(target, target))
    except Exception as error:
        raise Refused(f"_target_ {target} cannot be imported: {error}") from error
    # The second test stops a detour through a module's imports: clipbench.core.paths.os.system.
    if not inspect.isclass(found) or not found.__module__.startswith(ALLOWED):
        raise Refused(f"_target_ {target} is refused; it is no class of {ALLOWED}")
    return found


def build(node: Mapping[str, Any], **extra: Any) -> Any:
    """Instantiate a config node after checking every ``_target_`` in it.

    Args:
        node: plain data with a ``_target_``; its ``recommended`` entry is not for the constructor.
        extra: further keyword arguments.

    Raises:
        Refused: if a target is outside the allow-list, a key is not one of its parameters, or the
            constructor refuses what it is given.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    _check(node)
    keys = {k: _located(v) for k, v in node.items() if k != "recommended"}
    signature = inspect.signature(_class(str(node["_target_"])))
    try:
        signature.bind(**{k: v for k, v in keys.items() if not k.startswith("_")}, **extra)
    except TypeError as error:
        names = ", ".join(signature.parameters)
        raise Refused(f"{node['_target_']}: {error}; it takes {names}") from error
    try:
        # All of it is resolved, and Hydra would do so twice: in the whole, and at each look.
        return instantiate(escaped(escaped(keys)), **escaped(escaped(extra)))
    except InstantiationException as wrapped:
        if isinstance(wrapped.__cause__, Refused):
            raise wrapped.__cause__ from None
        raise
