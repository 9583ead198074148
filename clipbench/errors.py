"""The one exception for what a user can put right: it is printed, never traced."""

from collections.abc import Sequence

SHOWN = 50


class Refused(Exception):
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
        super().__init__(summary.rpartition(f"{__name__}.Refused: ")[2].strip())
        self.details = list(details)
        self.status, self.signal = status, signal

    def __reduce__(self) -> tuple[type["Refused"], tuple[str, list[str], str, int | None]]:
        """Cross a process boundary whole, details included."""
        return Refused, (str(self), self.details, self.status, self.signal)
