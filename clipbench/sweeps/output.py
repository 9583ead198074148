"""What the processes of a job print: shown as it comes, and kept in the run's folder."""

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

# A bar draws itself anew by moving the cursor; such lines are for eyes only.
_FRAME = re.compile(rb"\r|\x1b\[[0-9;?]*[A-HJKSTfhln]")
_COLOUR = re.compile(rb"\x1b\[[0-9;]*m")


def _terminal(like: int) -> tuple[Connection, Connection]:
    """A terminal of the same size, so that what is drawn for one is drawn."""
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
        label: what each line is marked with; with one, lines are shown whole.

    Attributes:
        source: to be read from when there is something.
        end: for the processes to write to.
    """

    def __init__(self, shown: TextIO, label: str) -> None:
        self.shown, self.label = shown, label
        pair = _terminal(shown.fileno()) if shown.isatty() and not label else Pipe(duplex=False)
        self.source, self.end = pair
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._line = b""

    def read(self) -> tuple[bool, bytes]:
        """Show what there is.

        Returns:
            Whether there may be more, and the whole lines for a log.
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
        told = [_COLOUR.sub(b"", line) + b"\n" for line in lines if not _FRAME.search(line)]
        return bool(chunk), b"".join(told)


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
        """Log to a run's folder, beginning with what came before it was known."""
        self._path = folder / LOG
        self.write(self._before or b"")
        self._before = None

    def write(self, lines: bytes) -> None:
        """Add to the log alone."""
        if self._path is None:
            self._before = (self._before or b"") + lines
        elif lines:
            with self._path.open("ab") as file:
                file.write(lines)

    def read(self, source: Connection) -> None:
        """Pass on what has come."""
        stream = self.open[source]
        more, lines = stream.read()
        self.write(lines)
        if not more:
            del self.open[source]
            stream.source.close()
