"""How many images a run trains on in a second."""

import time


class Throughput:
    """A clock that runs while training does, and counts the images.

    Attributes:
        train_seconds: spent in training epochs, evaluation left out.
        images: trained on, each as often as it was seen.
    """

    def __init__(self) -> None:
        self.train_seconds, self.images = 0.0, 0
        self._started: float | None = None

    def start(self) -> None:
        """Start the clock, unless it runs."""
        if self._started is None:
            self._started = time.perf_counter()

    def stop(self) -> None:
        """Stop the clock."""
        self.train_seconds, self._started = self.elapsed, None

    @property
    def elapsed(self) -> float:
        """Seconds of training up to now."""
        running = 0.0 if self._started is None else time.perf_counter() - self._started
        return self.train_seconds + running

    @property
    def images_per_second(self) -> float | None:
        """The mean over the run; None if nothing was trained."""
        return self.images / self.train_seconds if self.images else None
