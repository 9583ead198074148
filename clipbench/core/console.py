"""What a run prints: progress bars on a terminal, plain lines in a log."""

import sys
from collections.abc import Iterable, Sequence, Sized
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track as rich_track
from rich.table import Table
from rich.text import Text

Item = TypeVar("Item")

# A log has no width of its own, and rich's 80 columns break every cell of a sweep's table. No text
# is markup: of a folder "a [x]" rich would print "a ", and of ":cat:" an animal.
console = Console(
    soft_wrap=True, width=None if sys.stdout.isatty() else 140, markup=False, emoji=False
)


def marked(mark: str, text: str, style: str = "yellow") -> None:
    """Print a line that begins with a coloured word, such as ``warning:``."""
    console.print(Text.assemble((mark, style), f" {text}" if text else ""))


def warn(text: str) -> None:
    """Print a warning."""
    marked("warning:", text)


def duration(seconds: float) -> str:
    """Return a time in seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def track(items: Iterable[Item], what: str, total: int | None = None) -> Iterable[Item]:
    """Yield the items, with a progress bar if the output is a terminal."""
    if not console.is_terminal:
        return items
    total = len(items) if isinstance(items, Sized) else total
    return rich_track(items, what, total=total, console=console, transient=True)


def cell(value: Any) -> str:
    """Return a value as a table shows it: floats to four digits, None and NaN as an empty cell."""
    if value is None or value != value:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(cell, row))
    console.print(table)
