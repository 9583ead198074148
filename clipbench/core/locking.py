"""Locks between processes; the kernel releases those of a process that dies."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from clipbench.core.errors import UserError

if sys.platform != "win32":  # where no job runs, see launcher.Stop.install
    import fcntl

LOCK = ".lock"


@contextmanager
def wait_for_lock(path: Path) -> Iterator[bool]:
    """Hold a lock file, which is made if it does not exist; wait while another process holds it.

    Yields:
        False on a disk without locks, where several processes may enter.
    """
    # Not by a marker file, which a process that is killed leaves behind for all who wait.
    lock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire()
    except (NotImplementedError, OSError):
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


class Held(Exception):
    """Another process holds the folder; says which."""


class Lock:
    """Hold a run's folder until :meth:`release`, or until this process and its children are gone.

    filelock does not fit here: its locks do not pass to forked children, which write to the folder
    too, do not say who holds them, and on a disk without locks fall back to a marker file, which a
    process that is killed leaves behind. The lock file stays after the release: were it removed,
    two processes could hold one name, each on a file of its own.

    Args:
        folder: made if it does not exist.

    Raises:
        Held: if another process holds it.
        UserError: if the folder is not writable, or its disk has no locks.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = (folder / LOCK).open("a+")
        except OSError as error:
            why = f"{folder} is not writable: {error.strerror}"
            raise UserError(f"{why}. Make it writable, or set CLIPBENCH_OUTPUTS.") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().strip()
            self._file.close()
            raise Held(holder) from None
        except OSError as error:  # some network disks have no locks
            self._file.close()
            raise UserError(
                f"{folder} is on a disk that has no locks ({error.strerror}). Set "
                "CLIPBENCH_OUTPUTS to a folder on another disk."
            ) from error
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._file.flush()

    def release(self) -> None:
        """Release the folder, even while a child of this process has the file open."""
        fcntl.flock(self._file, fcntl.LOCK_UN)
        self._file.close()
