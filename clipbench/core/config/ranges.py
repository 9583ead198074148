"""What numbers a config may hold, checked before any data is read."""

from collections.abc import Iterator, Mapping
from typing import Any

from clipbench.core.config.keys import Range
from clipbench.core.config.schema import KEYS
from clipbench.core.errors import UserError


def _ranges() -> Iterator[tuple[str, Range]]:
    for name, key in KEYS.items():
        if key.range:
            yield name, key.range
    for name, key in KEYS.items():
        yield from ((f"{name}.{k}", inner.range) for k, inner in key.inside.items() if inner.range)


RANGES = dict(_ranges())

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
    for key, allowed in RANGES.items():
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
