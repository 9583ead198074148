"""The exception for what a user can fix: its message is printed, without a traceback."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

SHOWN = 50
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def printable(path: str | Path) -> str:
    r"""Return a path as text on one line that can be written anywhere.

    Bytes that are not UTF-8 are shown as ``\xe9``, and control characters as ``\n``.
    """
    text = _writable(os.fspath(path))
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _writable(text: str) -> str:
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return text.encode("utf-8", "backslashreplace").decode()


class UserError(Exception):
    """A run that cannot start (or go on), with its cause and its fix in one line.

    Attributes:
        details: further lines, such as one ``path: reason`` for each bad image.
        status: for the run's record: ``failed``, ``diverged`` or ``interrupted``.
        signal: the one that interrupted it.
    """

    def __init__(
        self,
        summary: str,
        details: Sequence[str] = (),
        status: str = "failed",
        signal: int | None = None,
    ) -> None:
        # A DataLoader's worker passes it on as a formatted traceback that ends with it.
        message = summary.rpartition(f"{__name__}.{type(self).__name__}: ")[2].strip()
        super().__init__(_writable(message))
        self.details = [printable(line) for line in details]
        self.status, self.signal = status, signal

    def __reduce__(self) -> tuple[type["UserError"], tuple[str, list[str], str, int | None]]:
        """Cross a process boundary whole, details included."""
        return type(self), (str(self), self.details, self.status, self.signal)


class Damaged(UserError):
    """An image that could not be decoded in training, though it passed the checks before.

    If unreadable images are skipped, the run starts again without it.
    """
