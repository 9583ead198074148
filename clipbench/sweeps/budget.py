"""How many epochs of each training fit into a time budget, by its measured pace."""

import time
from dataclasses import dataclass

MARGIN = 1.15  # a machine that also does other work is slower than measured
RESERVE = 40.0  # seconds, for the last checkpoint of a job that is stopped, and for the report
LEAST = 3  # epochs: fewer, with their warm-up, say nothing
FORWARD = 1 / 3  # of a training step's time: the backward pass costs twice the forward pass


class Budget:
    """A time limit that starts now.

    Args:
        minutes: in total.
    """

    def __init__(self, minutes: float) -> None:
        self.minutes, self.end = minutes, time.monotonic() + 60 * minutes

    @property
    def left(self) -> float:
        """Seconds left for jobs, without what the report needs."""
        return self.end - RESERVE - time.monotonic()


@dataclass(frozen=True)
class Training:
    """What a training costs.

    Attributes:
        model: the option typed.
        wanted: the epochs of ``recipe=auto``.
        around: seconds to start, and to evaluate every split once.
        images: in an epoch of training.
        val_images: in val.
        pace: training images per second.
    """

    model: str
    wanted: int
    around: float
    images: int
    val_images: int
    pace: float

    @property
    def epoch(self) -> float:
        """Seconds of one epoch, with its evaluation of val."""
        return (self.images + FORWARD * self.val_images) / self.pace * MARGIN

    def seconds(self, epochs: int) -> float:
        """Return the seconds of a whole run."""
        return self.around * MARGIN + epochs * self.epoch

    def fitting(self, seconds: float) -> int:
        """Return how many of the wanted epochs fit into a time; 0 if fewer than three."""
        epochs = min(self.wanted, int((seconds - self.around * MARGIN) / self.epoch))
        return epochs if epochs >= min(LEAST, self.wanted) else 0


def shared(trainings: list[Training], seconds: float) -> dict[str, tuple[int, float]]:
    """Return the epochs of each model and its share of the time.

    The shares are equal; what a model does not need goes to the next.

    Args:
        trainings: in any order.
        seconds: for all of them together.
    """
    shares: dict[str, tuple[int, float]] = {}
    shortest_first = sorted(trainings, key=lambda training: training.seconds(training.wanted))
    for number, training in enumerate(shortest_first):
        share = max(0.0, seconds / (len(trainings) - number))
        epochs = training.fitting(share)
        shares[training.model] = epochs, share
        seconds -= training.seconds(epochs) if epochs else 0.0
    return shares
