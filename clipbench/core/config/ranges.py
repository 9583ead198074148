"""What numbers a config may hold, checked before any data is read."""

from collections.abc import Iterator, Mapping
from typing import Any

from clipbench.core.config.keys import table
from clipbench.core.config.schema import KEYS
from clipbench.core.errors import UserError

RANGES = {
    name: key.range
    for name, key in [
        *KEYS.items(),
        *(
            (f"{group}.{k}", inner)
            for group, key in KEYS.items()
            for k, inner in key.inside.items()
        ),
    ]
    if key.range
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
    for key, entry in table("planned_by_the_run.yaml").items():
        value = config["trainer"].get(key)
        same = key == "max_epochs" and value == config["epochs"]  # as conf/trainer has it
        # By type as well: 1 batch is not the share 1.0.
        if value is None or same or (value, type(value)) in [(v, type(v)) for v in entry["idle"]]:
            continue
        yield f"trainer.{key}={value}: {entry['instead'].format(value=value)}"
