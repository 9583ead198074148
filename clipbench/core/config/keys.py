"""What a config key declares: what it affects, what it does, which numbers it may have."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal, get_args

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
    words: tuple[str, ...] = ()

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
    """The metadata of a field of the schema, or of a key inside a group.

    Attributes:
        affects: what another value changes: what is trained, only how that is evaluated, or
            nothing of a run's outcome.
        help: what it does.
        range: the numbers it may have.
        off: the value at which it does nothing and is left out of the run key.
        part_of: another root key; where that is null, this one does nothing.
        inside: of a group, those of its keys that have a range or that do not always count.
        listed: whether ``--help`` shows it.
    """

    affects: Affects
    help: str
    range: Range | None = None
    off: object = NEVER
    part_of: str | None = None
    inside: Mapping[str, "Key"] = field(default_factory=dict)
    listed: bool = True

    def __post_init__(self) -> None:
        if self.affects not in get_args(Affects):
            raise TypeError(f"affects={self.affects}: is not one of {get_args(Affects)}")


def declared(kind: type) -> dict[str, Key]:
    """Return what each field of a schema declares.

    Args:
        kind: a dataclass.

    Raises:
        TypeError: for a field that does not say what it affects and what it does.
    """
    found: dict[str, Key] = {}
    for one in fields(kind):
        try:
            found[one.name] = Key(**one.metadata)
        except TypeError as error:
            raise TypeError(f"{kind.__name__}.{one.name}: {error}") from error
    return found
