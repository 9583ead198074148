"""What numbers a config may hold: one table, looked at before any data."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from clipbench.core.config.search_path import ALSO_DATASETS
from clipbench.core.errors import UserError


@dataclass(frozen=True)
class Range:
    """The numbers that a key may have; null is for the schema to allow.

    Attributes:
        low: the smallest.
        high: the largest.
        above: whether ``low`` itself is too small.
        below: whether ``high`` itself is too large.
        whole: whether it must be an integer.
        words: allowed besides, such as ``auto``.
    """

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False
    whole: bool = False
    words: tuple[str, ...] = ()

    def allows(self, value: object) -> bool:
        """Whether a value is null, one of the words, a number in the range, or a list of such."""
        if value is None or (isinstance(value, str) and value in self.words):
            return True
        if isinstance(value, list | tuple):
            return all(self.allows(item) for item in value)
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        large = value > self.low or (value == self.low and not self.above)
        small = value < self.high or (value == self.high and not self.below)
        return math.isfinite(value) and large and small

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        low = f"above {self.low:.10g}" if self.above else f"from {self.low:.10g} up"
        if self.high < math.inf:
            to = f"below {self.high:.10g}" if self.below else f"to {self.high:.10g}"
            low = f"{low.removesuffix(' up')} {to}" if not self.above else f"{low} and {to}"
        return " or ".join([f"{kind} {low}", *self.words])


_COUNT = Range(1, whole=True)
_NONE_OR_MORE = Range(0)
_POSITIVE = Range(0, above=True)
_SHARE = Range(0, 1)
_DECAY = Range(0, 1, below=True)

ROOT: Mapping[str, Range] = {
    "seed": Range(0, 2**32 - 1, whole=True),
    "lr": _POSITIVE,
    "batch_size": _COUNT,
    "micro_batch": _COUNT,
    "epochs": Range(0, whole=True),
    "steps": _COUNT,
    "freeze_depth": Range(0, whole=True, words=("all",)),
    "text_freeze_depth": Range(0, whole=True, words=("all",)),
    "warmup": _NONE_OR_MORE,
    "warmup_steps": Range(0, whole=True),
    "weight_decay": _NONE_OR_MORE,
    "layer_decay": Range(0, 1, above=True),
    "ema": Range(0, 1, below=True, words=("auto",)),
    "label_smoothing": _DECAY,
    "head_lr_factor": _NONE_OR_MORE,
    "mix_fraction": Range(0, 1, above=True, below=True),
    "mix_weight": _NONE_OR_MORE,
    "patience": _COUNT,
    "keep": Range(1, whole=True, words=("all",)),
    "timeout": _POSITIVE,
    "rank_timeout": _POSITIVE,
    "ckpt.every_steps": _COUNT,
    "recipe.min_lr": _NONE_OR_MORE,
    "recipe.betas": _DECAY,
    "recipe.eps": _POSITIVE,
    "recipe.momentum": _DECAY,
    "recipe.clip_norm": _POSITIVE,
    "recipe.text_lr_factor": _NONE_OR_MORE,
    "recipe.text_weight_decay": _NONE_OR_MORE,
    "trainer.limit_train_batches": _POSITIVE,
    "trainer.log_every_n_steps": _COUNT,
    "trainer.gradient_clip_val": _NONE_OR_MORE,
    "model.image_size": _COUNT,
}
DATASET: Mapping[str, Range] = {
    "workers": Range(0, whole=True),
    "shots": _COUNT,
    "cache_gb": _NONE_OR_MORE,
}

# Keys of Lightning's that would undo what the run itself plans and records: what leaves them idle,
# and what to type instead.
PLANNED: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "max_epochs": ((), "the length of a run is epochs. Use epochs={value}"),
    "max_steps": ((-1,), "the length of a run is epochs or steps. Use steps={value}"),
    "max_time": ((), "the length of a run is epochs or steps. Use steps=, or timeout= in seconds"),
    "min_epochs": ((), "a run ends early with patience alone. Use patience="),
    "min_steps": ((), "a run ends early with patience alone. Use patience="),
    "accumulate_grad_batches": (
        (1,),
        "batch_size is that of a step, and micro_batch is what is in memory at once. Use "
        "micro_batch=, or a batch_size {value} times as large",
    ),
    "fast_dev_run": ((False, 0), "it would leave no record. Use debug=limit"),
    "overfit_batches": ((0, 0.0), "it would train on val. Use dataset.shots=, or debug=limit"),
    "limit_val_batches": ((1.0,), "every split is evaluated whole. Leave it out"),
    "limit_test_batches": ((1.0,), "every split is evaluated whole. Leave it out"),
    "limit_predict_batches": ((1.0,), "every split is evaluated whole. Leave it out"),
    "num_sanity_val_steps": ((0,), "epoch 0 is a whole evaluation already. Leave it out"),
    "check_val_every_n_epoch": ((1,), "val is evaluated after each epoch. Leave it out"),
    "val_check_interval": ((1.0,), "val is evaluated after each epoch. Leave it out"),
    "reload_dataloaders_every_n_epochs": ((0,), "a run has one loader. Leave it out"),
    "use_distributed_sampler": ((False,), "the ranks share each batch already. Leave it out"),
    "barebones": ((False,), "it would leave no record. Leave it out"),
}


def check(config: Mapping[str, Any]) -> None:
    """Refuse numbers out of range, and keys that would undo what the run plans.

    Args:
        config: the resolved root.

    Raises:
        UserError: naming the first key and its value, with each of them in its details.
    """
    wrong = [*_out_of_range(config), *_planned_otherwise(config)]
    if wrong:
        raise UserError(wrong[0], wrong[1:])


def _out_of_range(config: Mapping[str, Any]) -> Iterator[str]:
    datasets = ("dataset", *ALSO_DATASETS)
    table = {**ROOT, **{f"{name}.{key}": DATASET[key] for name in datasets for key in DATASET}}
    for key, allowed in table.items():
        value: Any = config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if not allowed.allows(value):
            yield f"{key}={value}: is not {allowed}. Use one"


def _planned_otherwise(config: Mapping[str, Any]) -> Iterator[str]:
    for key, (idle, instead) in PLANNED.items():
        value = config["trainer"].get(key)
        same = key == "max_epochs" and value == config["epochs"]  # as conf/trainer has it
        # By type as well: 1 batch is not the share 1.0.
        if value is None or same or any(value == v and type(value) is type(v) for v in idle):
            continue
        yield f"trainer.{key}={value}: {instead.format(value=value)}"
