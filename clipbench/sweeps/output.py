"""What the processes of a job print: shown as it comes, and logged in the run's folder."""

import codecs
import contextlib
import os
import re
import sys
import termios
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TextIO

from clipbench.results.record import LOG

# A progress bar moves the cursor; such lines do not belong in a log.
_FRAME = re.compile(rb"\r|\x1b\[[0-9;?]*[A-HJKSTfhln]")
_COLOUR = re.compile(rb"\x1b\[[0-9;]*m")


def _terminal(like: int) -> tuple[Connection, Connection]:
    """Return a pseudo-terminal of the same size, so that progress bars are drawn."""
    reader, writer = os.openpty()
    mode = termios.tcgetattr(writer)
    mode[1] &= ~termios.OPOST  # the real one will do that
    termios.tcsetattr(writer, termios.TCSANOW, mode)
    termios.tcsetwinsize(writer, termios.tcgetwinsize(like))
    return Connection(reader, writable=False), Connection(writer, readable=False)


class Stream:
    """One output of a job's processes.

    Args:
        shown: where it is shown.
        label: printed before each line; with a label, only whole lines are shown.

    Attributes:
        source: to read from.
        end: that the processes write to.
    """

    def __init__(self, shown: TextIO, label: str) -> None:
        self.shown, self.label = shown, label
        pair = _terminal(shown.fileno()) if shown.isatty() and not label else Pipe(duplex=False)
        self.source, self.end = pair
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._line = b""

    def read(self) -> tuple[bool, bytes]:
        """Show what has arrived.

        Returns:
            Whether more may come, and the whole lines for the log.
        """
        chunk = b""
        with contextlib.suppress(OSError):  # EIO is how a terminal ends
            chunk = os.read(self.source.fileno(), 1 << 16)
        *lines, self._line = (self._line + chunk).split(b"\n")
        if not chunk and self._line:
            lines, self._line = [self._line], b""
        if self.label:
            text = "".join(f"{self.label}{line.decode(errors='replace')}\n" for line in lines)
        else:
            text = self._decode(chunk)
        self.shown.write(text)
        self.shown.flush()
        logged = [_COLOUR.sub(b"", line) + b"\n" for line in lines if not _FRAME.search(line)]
        return bool(chunk), b"".join(logged)


class Streams:
    """Standard output and error of a job, and its log.

    Args:
        label: see :class:`Stream`.
    """

    def __init__(self, label: str = "") -> None:
        both = Stream(sys.stdout, label), Stream(sys.stderr, label)
        self.open = {stream.source: stream for stream in both}
        self.ends = [stream.end for stream in both]
        self._before: bytes | None = b""
        self._path: Path | None = None

    def keep(self, folder: Path) -> None:
        """Log to a run's folder, starting with what came before the folder was known."""
        self._path = folder / LOG
        self.write(self._before or b"")
        self._before = None

    def write(self, lines: bytes) -> None:
        """Write to the log only."""
        if self._path is None:
            self._before = (self._before or b"") + lines
        elif lines:
            with self._path.open("ab") as file:
                file.write(lines)

    def read(self, source: Connection) -> None:
        """Pass on what has arrived."""
        stream = self.open[source]
        more, lines = stream.read()
        self.write(lines)
        if not more:
            del self.open[source]
            stream.source.close()
