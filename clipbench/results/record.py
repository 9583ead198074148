"""What a run writes of itself."""

import math
from collections.abc import Mapping
from typing import Any

SCHEMA = 1
LOG = "log.txt"  # what a run prints


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it: tuples as lists, a number that is not finite as null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value
