"""TensorBoard's event files of a resumed run, cut back to where its checkpoint was saved.

Events after the checkpoint are logged again, and TensorBoard would show both. Events before it
that are not on disk yet would be lost with the process.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from pytorch_lightning.loggers import Logger

Mark = tuple[str, int]
_FILES = "events.out.tfevents.*"  # followed by the time of creation


def mark(folder: Path, loggers: Iterable[Logger]) -> Mark | None:
    """Flush the loggers and return the newest event file's name and size, or None."""
    for logger in loggers:
        logger.save()
    newest = max(folder.glob(_FILES), default=None)
    return None if newest is None else (newest.name, newest.stat().st_size)


def back_to(folder: Path, to: Mark | None) -> None:
    """Remove the events that were written after a mark."""
    newest, size = to or ("", 0)
    for path in folder.glob(_FILES):
        if path.name > newest:
            path.unlink()
        elif path.name == newest and path.stat().st_size > size:
            os.truncate(path, size)
