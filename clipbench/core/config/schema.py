"""The root keys of a config, as ``assets/keys.yaml`` declares them: for Hydra, and ``--help``."""

import re
from collections.abc import Mapping
from dataclasses import field, make_dataclass
from typing import Any

from omegaconf import MISSING, OmegaConf

from clipbench.core import paths
from clipbench.core.config.keys import Key, declared, table

KEYS = declared(table("keys.yaml"))

_TYPES: Mapping[str, Any] = {"int": int, "float": float, "str": str, "bool": bool}


def _structured(name: str, keys: Mapping[str, Key]) -> type:
    """Return a dataclass with the types and defaults of keys, by which Hydra checks values."""
    entries: list[tuple[str, Any, Any]] = []
    for child, key in keys.items():
        if any(inner.default != MISSING for inner in key.inside.values()):
            kind = _structured(child.title(), key.inside)
            entries.append((child, kind, field(default_factory=kind)))
        else:
            plain = _TYPES.get(key.type.rstrip("?"), Any)
            kind = plain | None if key.type.endswith("?") else plain
            entries.append((child, kind, key.default))
    return make_dataclass(name, entries)


# The short list of --help; a key that it does not name has a line of its own there.
_LISTED = """\
lr batch_size micro_batch epochs steps freeze_depth text_freeze_depth seed warmup warmup_steps
weight_decay layer_decay ema label_smoothing head_lr_factor grad_checkpointing alphas
merge merge_bn retention=DATASET retention_every_epoch mix=DATASET mix_fraction mix_weight
monitor patience keep=all
allow_unfinished_warmup gate leaks=allow retry=failed|versions timeout rank_timeout
ckpt.resume=PATH ckpt.every_steps
dataset.root dataset.shots dataset.workers model.pretrained model.image_size trainer.devices
trainer.num_nodes trainer.precision"""


def listing() -> str:
    """Return the keys that ``--help`` shows; groups are shown with their options."""
    short = re.findall(r"[\w.]+", _LISTED)
    groups = {path.name for path in paths.CONF.iterdir()}
    more = [n for n, key in KEYS.items() if key.listed and n not in {*short, *groups, "ckpt"}]
    return "\n".join([_LISTED, *(f"{name}: {KEYS[name].help}" for name in more)])


def register() -> None:
    """Make the schema known to Hydra as ``schema``, and ``${clipbench.scaled:lr,2048,64}``."""
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

    from clipbench.core.config.search_path import AlsoDatasets

    ConfigStore.instance().store("schema", _structured("Root", KEYS))
    Plugins.instance().register(AlsoDatasets)
    OmegaConf.register_new_resolver("clipbench.scaled", _scaled, replace=True)


def _scaled(lr: float, reference: int, batch_size: int | None) -> float | None:
    """Return a learning rate in proportion to the batch, given for the reference's size."""
    return None if batch_size is None else lr * batch_size / reference
