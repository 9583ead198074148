"""Files written whole or not at all."""

import os
import tempfile
from pathlib import Path

from clipbench.core.errors import UserError


def write_text(path: Path, text: str) -> None:
    """Write a text file as :func:`write_bytes` does."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old one or the new one, never a part.

    Raises:
        UserError: with status ``interrupted`` if there is no room, or the folder takes no files;
            what was there before is as it was.
    """
    temporary: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".tmp-", delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # NamedTemporaryFile makes private files; a record is for every reader the folder allows.
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        why = f"{path} could not be written: {error.strerror or error}"
        fix = "put that right and give the same command again"
        raise UserError(f"{why}; {fix}", status="interrupted") from error
