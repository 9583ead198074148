"""One process at a time in a folder, told by the kernel, which forgets a holder that dies."""

import os
import socket
import sys
from pathlib import Path

from clipbench.core.errors import UserError

if sys.platform != "win32":  # where no job runs, see launch.Stop.install
    import fcntl

LOCK = ".lock"


class Held(Exception):
    """Somebody else is in the folder; says who."""


class Lock:
    """Holds a folder until :meth:`release`, or until this process and its children are gone.

    Its file stays when it is released: one that came and went could be held twice, under the old
    name and the new.

    Args:
        folder: made if it is not there.

    Raises:
        Held: if another process holds it.
        UserError: if no file can be made there, or the disk has no locks.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = (folder / LOCK).open("a+")
        except OSError as error:
            why = f"{folder} takes no files: {error.strerror}"
            raise UserError(f"{why}; make it writable, or set CLIPBENCH_OUTPUTS") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().strip()
            self._file.close()
            raise Held(holder) from None
        except OSError as error:  # some network disks know no locks
            self._file.close()
            raise UserError(
                f"{folder} is on a disk that has no locks ({error.strerror}). Set "
                "CLIPBENCH_OUTPUTS to a folder on another disk"
            ) from error
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._file.flush()

    def release(self) -> None:
        """Let others in, though a child of this process have the file open."""
        fcntl.flock(self._file, fcntl.LOCK_UN)
        self._file.close()
