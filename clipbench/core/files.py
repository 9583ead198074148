"""Files written whole or not at all."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from clipbench.core.errors import UserError

TEMPORARY = ".tmp-"  # how the name of a file begins until it is whole


def write_text(path: Path, text: str) -> None:
    """Write a text file as :func:`replacing` does."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file as :func:`replacing` does."""
    with replacing(path) as file:
        file.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that replaces ``path`` when the block ends without an error.

    A reader, or a crash, sees the old file or the new one, never a part of one. The folder is
    made if it does not exist.

    Raises:
        UserError: with status ``interrupted`` if the disk is full or the folder is not writable;
            the old file is unchanged.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=TEMPORARY, delete=False) as file:
            temporary = Path(file.name)
            yield file
            file.flush()
            os.fsync(file.fileno())
        # NamedTemporaryFile makes private files; a record is for every reader the folder allows.
        temporary.chmod(0o644)
        temporary.replace(path)
        sync_folder(path.parent)
    except Exception as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise UserError(
            f"{path} could not be written: {error.strerror or error}. Fix that and run the same "
            "command again, which continues from the last state that was saved.",
            status="interrupted",
        ) from error


def sync_folder(folder: Path) -> None:
    """Flush a folder's new names to disk, so that they outlast a power cut."""
    if sys.platform != "win32":
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
