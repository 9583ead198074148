"""The root keys of a config: each is one field, and all that depends on it follows from there.

The defaults of a command line, the refusal of numbers out of range, ``--help``, and what of a
config makes up the key of a run.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from omegaconf import II, MISSING, OmegaConf

from clipbench.core import paths
from clipbench.core.config.keys import Affects, Key, Range, declared

_COUNT = Range(1, whole=True)
_NONE_OR_MORE = Range(0)
_POSITIVE = Range(0, above=True)
_DECAY = Range(0, 1, below=True)
_DEPTH = Range(0, whole=True, words=("all",))
_STEPS = Range(0, whole=True)


def _key(
    affects: Affects,
    text: str,
    default: object = MISSING,
    numbers: Range | None = None,
    **more: Any,
) -> Any:
    """Return a field with the metadata of :class:`clipbench.core.config.keys.Key`."""
    return field(
        default=default, metadata={"affects": affects, "help": text, "range": numbers, **more}
    )


# Where the data are and how they are read. What class names, templates and prompts say, and which
# image is in which split, is hashed by itself, wherever it comes from.
_DATASET = {
    "root": Key("nothing", "folder of the dataset"),
    "workers": Key("nothing", "processes that decode images", Range(0, whole=True)),
    "shots": Key("training", "images a class to train on", _COUNT),
    "cache_gb": Key("nothing", "decoded images to keep on disk", _NONE_OR_MORE),
    "class_names": Key("nothing", "for prompts"),
    "templates": Key("nothing", "prompts with one {}"),
    "splits": Key("nothing", "shares of train, val and test"),
    "labels": Key("nothing", "table of labels"),
    "path_key": Key("nothing", "column of paths"),
    "label_key": Key("nothing", "column of labels"),
    "split_key": Key("nothing", "column of splits"),
}
_RECOMMENDED = {"recommended": Key("nothing", "values that a recipe may take")}
_AUGMENT = {
    "randaugment": Key("training", "magnitude of RandAugment", off=None),
    "color_jitter": Key("training", "strength of color jitter", off=0),
    "erasing": Key("training", "probability of random erasing", off=0),
    "mixup": Key("training", "alpha of MixUp", off=0),
    "cutmix": Key("training", "alpha of CutMix", off=0),
    "mixup_probability": Key("training", "share of batches that are mixed", off=1),
}
_RECIPE = {
    "min_lr": Key("training", "where the cosine ends", _NONE_OR_MORE),
    "betas": Key("training", "of AdamW", _DECAY),
    "eps": Key("training", "of AdamW", _POSITIVE),
    "momentum": Key("training", "of SGD", _DECAY),
    "clip_norm": Key("training", "of gradients", _POSITIVE),
    "text_lr_factor": Key("training", "of lr, for the text tower", _NONE_OR_MORE),
    "text_weight_decay": Key("training", "of the text tower", _NONE_OR_MORE),
}
_TRAINER = {
    # The root's epochs again; a run that takes other steps than planned is refused.
    "max_epochs": Key("nothing", "the root's epochs"),
    "num_nodes": Key("training", "machines", off=1),
    "limit_train_batches": Key("training", "of an epoch", _POSITIVE),
    "gradient_clip_val": Key("training", "recipe.clip_norm", _NONE_OR_MORE),
    "log_every_n_steps": Key("nothing", "steps between logged losses", _COUNT),
    "enable_progress_bar": Key("nothing", "on a terminal"),
    "enable_model_summary": Key("nothing", "Lightning's table of modules"),
    "profiler": Key("nothing", "Lightning's profiler"),
}


@dataclass
class Checkpoints:
    """Keys below ``ckpt``."""

    resume: Any = _key(
        "nothing",
        "continue an interrupted run: auto, or the PATH of its folder elsewhere; null starts anew, "
        "a completed run too",
        "auto",
    )
    every_steps: Any = _key(
        "nothing", "save the state this often, besides after each epoch", None, _COUNT
    )


@dataclass
class Root:
    """Keys at the root of a config; the sweep axes among them default to the recipe.

    Null, where it has no meaning of its own, asks for a value by rule:
    ``clipbench.training.recommendations``. A new key is one more field::

        my_key: int = field(default=3, metadata={"affects": "training", "help": "what it does"})
    """

    model: Any = _key(
        "training",
        "the model to train",
        inside={
            **_RECOMMENDED,
            "image_size": Key("training", "pixels of a side", _COUNT),
            "pool": Key("training", "how a timm model pools", off=None),
        },
    )
    dataset: Any = _key("training", "the images and their labels", inside=_DATASET)
    retention: Any = _key(
        "evaluation",
        "another dataset, to watch what is forgotten",
        None,
        off=None,
        inside=_DATASET,
    )
    mix: Any = _key(
        "training", "another dataset, to train on as well", None, off=None, inside=_DATASET
    )
    prompts: Any = _key("nothing", "what classes are called; the prompts are hashed by themselves")
    strategy: Any = _key("training", "what trains, and from what start", inside=_RECOMMENDED)
    recipe: Any = _key("training", "the defaults of the keys below", inside=_RECIPE)
    augment: Any = _key("training", "random changes of training images", inside=_AUGMENT)
    trainer: Any = _key("training", "Lightning's own keys", inside=_TRAINER)
    callbacks: Any = _key("training", "Lightning's callbacks", None)
    logger: Any = _key("nothing", "where curves go", None)
    seed: int = _key(
        "training",
        "of the split, the head, the order of images and augmentation",
        0,
        Range(0, 2**32 - 1, whole=True),
    )
    lr: float | None = _key("training", "peak learning rate", II("recipe.lr"), _POSITIVE)
    batch_size: int | None = _key(
        "training", "images of a step, over all devices", II("recipe.batch_size"), _COUNT
    )
    micro_batch: int | None = _key(
        "training",
        "images in memory at once, if batch_size does not fit; null: all of them",
        None,
        _COUNT,
    )
    epochs: int | None = _key("training", "length of the run", II("recipe.epochs"), _STEPS)
    steps: int | None = _key(
        "training", "of the optimizer, in place of epochs", II("recipe.steps"), _COUNT
    )
    freeze_depth: Any = _key("training", "blocks to freeze: 0 to all of them, or all", 0, _DEPTH)
    text_freeze_depth: Any = _key(
        "training", "the same for the text tower, if it trains", 0, _DEPTH
    )
    warmup: float | None = _key(
        "training", "share of the run that warms up", II("recipe.warmup"), _NONE_OR_MORE
    )
    warmup_steps: int | None = _key(
        "training", "literal steps, in place of the share", II("recipe.warmup_steps"), _STEPS
    )
    weight_decay: float | None = _key(
        "training", "of weights that decay", II("recipe.weight_decay"), _NONE_OR_MORE
    )
    layer_decay: float = _key(
        "training",
        "of the learning rate, from a block to the one before; 1 is off",
        II("recipe.layer_decay"),
        Range(0, 1, above=True),
    )
    ema: Any = _key(
        "training",
        "average the weights: a decay, or auto, which fits the run; null: no",
        II("recipe.ema"),
        Range(0, 1, below=True, words=("auto",)),
    )
    label_smoothing: float | None = _key(
        "training", "of the loss", II("recipe.label_smoothing"), _DECAY
    )
    head_lr_factor: float = _key(
        "training", "of lr, for the head", II("recipe.head_lr_factor"), _NONE_OR_MORE
    )
    grad_checkpointing: bool = _key(
        "training", "compute activations again instead of keeping them", False
    )
    mix_fraction: float = _key(
        "training",
        "share of each batch that comes from the mix dataset",
        0.25,
        Range(0, 1, above=True, below=True),
        part_of="mix",
    )
    mix_weight: float = _key("training", "weight of its loss", 1.0, _NONE_OR_MORE, part_of="mix")
    alphas: Any = _key(
        "evaluation",
        "evaluate averages of start (0) and end (1): 10 for steps of 0.1, or [0.5]",
        None,
        off=None,
    )
    merge: str = _key(
        "evaluation",
        "how the averages are made: wise_ft, fisher, or paint (with strategy.head_trains=false)",
        "wise_ft",
        part_of="alphas",
    )
    merge_bn: str = _key(
        "evaluation",
        "BatchNorm's statistics in averages: average or reestimate",
        "average",
        part_of="alphas",
    )
    retention_every_epoch: bool = _key(
        "evaluation",
        "also after each epoch, not only before and after training",
        False,
        part_of="retention",
    )
    monitor: str | None = _key(
        "training",
        "metric of val that chooses the best epoch: macro_f1, loss; null: the dataset's",
        None,
        off=None,
    )
    patience: int | None = _key(
        "training",
        "stop after this many epochs without a better one; null: never",
        None,
        _COUNT,
        off=None,
    )
    keep: Any = _key(
        "nothing",
        "keep weights of more epochs than the best and the last: all, or this many of the best",
        None,
        Range(1, whole=True, words=("all",)),
    )
    allow_unfinished_warmup: bool = _key("nothing", "let a run end within its warm-up", False)
    gate: bool = _key(
        "nothing", "off: continue even if epoch 0 is far below the published number", True
    )
    leaks: str = _key(
        "nothing",
        "stop if train, val and test share images, byte for byte; allow: record it and continue",
        "stop",
    )
    claim: Any = _key(
        "nothing",
        "what an experiment's runs should show; tested by clipbench.tables table=claims",
        None,
        listed=False,
    )
    ckpt: Checkpoints = field(
        default_factory=Checkpoints,
        metadata={"affects": "nothing", "help": "checkpoints", "inside": declared(Checkpoints)},
    )
    retry: str | None = _key(
        "nothing",
        "failed: run failed jobs again; versions: those completed with other "
        "versions of torch, Pillow, clipbench, ...",
        None,
    )
    timeout: float | None = _key(
        "nothing", "seconds that a job may take; then it is stopped as failed", None, _POSITIVE
    )
    rank_timeout: float = _key(
        "nothing", "seconds that the ranks of a job wait for one another", 300.0, _POSITIVE
    )


KEYS = declared(Root)

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

    ConfigStore.instance().store("schema", Root)
    Plugins.instance().register(AlsoDatasets)
    OmegaConf.register_new_resolver("clipbench.scaled", _scaled, replace=True)


def _scaled(lr: float, reference: int, batch_size: int | None) -> float | None:
    """Return a learning rate in proportion to the batch, given for the reference's size."""
    return None if batch_size is None else lr * batch_size / reference
