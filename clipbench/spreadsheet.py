"""CSV that a spreadsheet reads as text, whatever a file or a class is called."""

import csv
from collections.abc import Iterable, Sequence
from typing import IO, Any

# What makes a spreadsheet take a cell for a formula (OWASP, "CSV Injection").
_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n")


def safe(value: Any) -> Any:
    """Text that would be a formula, with an apostrophe before it; all else as it is."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULAS) else value


def unsafe(text: str) -> str:
    """What :func:`safe` was given."""
    return text[1:] if text.startswith(tuple(f"'{sign}" for sign in _FORMULAS)) else text


def write(file: IO[str], columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table as CSV, its text made safe.

    Args:
        file: opened with ``newline=""``.
        columns: the header.
        rows: a cell for each column; None is left empty.
    """
    table = csv.writer(file, lineterminator="\n")
    table.writerow(map(safe, columns))
    table.writerows(map(safe, row) for row in rows)
