"""What decoders written in C complain of and yet go on."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def captured_warnings() -> Iterator[Callable[[], list[str]]]:
    """Yield a function that returns what C libraries printed since its last call.

    What goes to file handle 2 meanwhile is not shown.
    """
    with tempfile.TemporaryFile(buffering=0) as file:

        def lines() -> list[str]:
            file.seek(0)
            printed = file.read(1 << 16).decode(errors="replace").splitlines()
            file.seek(0)
            file.truncate()
            # libtiff warns of each tag that it does not know, which does no harm.
            return [line for line in printed if line.strip() and "Warning, " not in line]

        shown = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(shown, 2)
            os.close(shown)
