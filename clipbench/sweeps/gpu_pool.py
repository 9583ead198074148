"""Which job has which GPUs."""

import contextlib
import os
import threading
from collections.abc import Iterator


class GPUs:
    """The GPUs of this machine, each lent to one job at a time.

    Args:
        count: how many there are; with none, jobs run without.
    """

    def __init__(self, count: int) -> None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        self.free = visible.split(",")[:count] if visible else [str(n) for n in range(count)]
        self.count, self._returned = len(self.free), threading.Condition()

    @contextlib.contextmanager
    def lend(self, wanted: int) -> Iterator[dict[str, str]]:
        """Yield the environment of a job that has some of the GPUs to itself."""
        if not 0 < wanted <= self.count:
            yield {}
            return
        with self._returned:
            self._returned.wait_for(lambda: len(self.free) >= wanted)
            mine, self.free = self.free[:wanted], self.free[wanted:]
        try:
            yield {"CUDA_VISIBLE_DEVICES": ",".join(mine)}
        finally:
            with self._returned:
                self.free += mine
                self._returned.notify_all()
