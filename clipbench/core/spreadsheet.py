"""CSV that a spreadsheet reads as text, whatever a file or a class is called."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

# What makes a spreadsheet take a cell for a formula (OWASP, "CSV Injection").
_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n")


def safe(value: Any) -> Any:
    """Return text that would be a formula with an apostrophe before it, other values unchanged."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULAS) else value


def unsafe(text: str) -> str:
    """Return the text that :func:`safe` was given."""
    return text[1:] if text.startswith(tuple(f"'{sign}" for sign in _FORMULAS)) else text


def write(file: IO[str], columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table as CSV, with its text made safe.

    Args:
        file: opened with ``newline=""``.
        columns: the header.
        rows: a cell for each column; None is left empty.
    """
    table = csv.writer(file, lineterminator="\n")
    table.writerow(map(safe, columns))
    table.writerows(map(safe, row) for row in rows)


def read(path: Path, words: Sequence[str]) -> "pd.DataFrame":
    """Return a table that :func:`write` wrote; text columns may contain "NaN" or "null".

    Args:
        path: the CSV.
        words: the columns of text; those that the table does not have are ignored.
    """
    import pandas as pd

    table = pd.read_csv(path, keep_default_na=False, dtype=dict.fromkeys(words, str))
    for column in table.columns.intersection([*words]):
        table[column] = table[column].map(unsafe)
    return table
