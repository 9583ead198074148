"""TensorBoard's files of a run that goes on: as they were when its state was kept.

What was told after that is told again, and TensorBoard would show both; what was told before but
not yet written would be lost with the process.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from pytorch_lightning.loggers import Logger

Mark = tuple[str, int]
_FILES = "events.out.tfevents.*"  # followed by when they were begun


def mark(folder: Path, loggers: Iterable[Logger]) -> Mark | None:
    """How far they have been written: the newest and its size; None where there is none."""
    for logger in loggers:
        logger.save()
    newest = max(folder.glob(_FILES), default=None)
    return None if newest is None else (newest.name, newest.stat().st_size)


def back_to(folder: Path, to: Mark | None) -> None:
    """Take out what was written later."""
    newest, size = to or ("", 0)
    for path in folder.glob(_FILES):
        if path.name > newest:
            path.unlink()
        elif path.name == newest and path.stat().st_size > size:
            os.truncate(path, size)
