"""The one exception for what a user can put right: it is printed, never traced."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

SHOWN = 50
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def printable(path: str | Path) -> str:
    r"""Return a path as text on one line that can be written anywhere.

    Bytes that are no UTF-8 are shown as ``\xe9``, and line ends and their like as ``\n``.
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
        details: further lines, such as one ``path: reason`` for each bad picture.
        status: what the run's record says of it, ``failed``, ``diverged`` or ``interrupted``.
        signal: that interrupted it.
    """

    def __init__(
        self,
        summary: str,
        details: Sequence[str] = (),
        status: str = "failed",
        signal: int | None = None,
    ) -> None:
        # Out of a DataLoader's worker it comes as a formatted traceback that ends with it.
        own = summary.rpartition(f"{__name__}.{type(self).__name__}: ")[2].strip()
        super().__init__(_writable(own))
        self.details = [printable(line) for line in details]
        self.status, self.signal = status, signal

    def __reduce__(self) -> tuple[type["UserError"], tuple[str, list[str], str, int | None]]:
        """Cross a process boundary whole, details included."""
        return type(self), (str(self), self.details, self.status, self.signal)


class Damaged(UserError):
    """An image that could not be decoded when it was used, though nothing was wrong with it before.

    Where images that cannot be read are skipped, the run begins again without it.
    """
