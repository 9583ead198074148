"""What a config key declares: what it affects, what it does, which numbers it may have."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import yaml
from omegaconf import MISSING

from clipbench.core import paths

Affects = Literal["training", "evaluation", "nothing"]
NEVER = object()


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
    words: Sequence[str] = ()

    def allows(self, value: object) -> bool:
        """Return whether a value is null, a word, a number in the range, or a list of these."""
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


@dataclass(frozen=True)
class Key:
    """A root key, or a key inside a group.

    Attributes:
        affects: what another value changes: what is trained, only how that is evaluated, or
            nothing of a run's outcome.
        help: what it does.
        type: ``int``, ``float``, ``str`` or ``bool``, with ``?`` if it may be null; else any.
        default: its value unless it is typed; of a group, that is an option.
        range: the numbers it may have.
        idle: the value at which it does nothing and is left out of the run key.
        part_of: another root key; where that is null, this one does nothing.
        inside: of a group, those of its keys that need an entry.
        listed: whether ``--help`` shows it.
        path: whether its values are paths, which are read as they are typed.
    """

    affects: Affects
    help: str
    type: str = ""
    default: Any = MISSING
    range: Range | None = None
    idle: object = NEVER
    part_of: str | None = None
    inside: Mapping[str, "Key"] = field(default_factory=dict)
    listed: bool = True
    path: bool = False

    def __post_init__(self) -> None:
        if self.affects not in get_args(Affects):
            raise TypeError(f"affects={self.affects}: is not one of {get_args(Affects)}")


def table(name: str) -> dict[str, Any]:
    """Return what a YAML file of the assets holds."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the first is ten times as fast
    content: dict[str, Any] = loader((paths.ASSETS / name).read_text("utf-8")).get_single_data()
    return content


def declared(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Key]:
    """Return the keys that entries declare.

    Raises:
        TypeError: for an entry that does not say what its key affects and what it does.
    """
    keys: dict[str, Key] = {}
    for name, entry in entries.items():
        try:
            values = {**entry, "inside": declared(entry.get("inside", {}))}
            keys[name] = Key(
                **values | ({"range": Range(**entry["range"])} if "range" in entry else {})
            )
        except TypeError as error:
            raise TypeError(f"{name}: {error}") from error
    return keys
