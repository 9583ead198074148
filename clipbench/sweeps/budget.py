"""What fits into the time that there is: epochs for each training, by its measured pace."""

import time
from dataclasses import dataclass

MARGIN = 1.15  # a machine that does other work is slower than it was
RESERVE = 40.0  # seconds, for the last checkpoint of a job that is cut short, and for the report
LEAST = 3  # epochs: of fewer, with their warm-up, nothing can be said
FORWARD = 1 / 3  # of a training step's time: the pass back costs twice the one forth


class Budget:
    """Time, from now on.

    Args:
        minutes: in all.
    """

    def __init__(self, minutes: float) -> None:
        self.minutes, self.end = minutes, time.monotonic() + 60 * minutes

    @property
    def left(self) -> float:
        """Seconds for jobs, what the report needs taken off."""
        return self.end - RESERVE - time.monotonic()


@dataclass(frozen=True)
class Training:
    """What a training needs.

    Attributes:
        model: the option typed.
        wanted: epochs that ``recipe=auto`` would take.
        around: seconds for its start, and for every split once.
        pictures: that an epoch trains on.
        looked_at: that val has.
        pace: pictures trained on in a second.
    """

    model: str
    wanted: int
    around: float
    pictures: int
    looked_at: int
    pace: float

    @property
    def epoch(self) -> float:
        """Seconds of one epoch, with its look at val."""
        return (self.pictures + FORWARD * self.looked_at) / self.pace * MARGIN

    def seconds(self, epochs: int) -> float:
        """Of the whole run."""
        return self.around * MARGIN + epochs * self.epoch

    def fitting(self, seconds: float) -> int:
        """How many epochs fit into a time: those that are wanted at most; none if under three."""
        epochs = min(self.wanted, int((seconds - self.around * MARGIN) / self.epoch))
        return epochs if epochs >= min(LEAST, self.wanted) else 0


def shared(trainings: list[Training], seconds: float) -> dict[str, tuple[int, float]]:
    """Epochs of each model, and its share of the time: equal, but one leaves the rest to the next.

    Args:
        trainings: in any order.
        seconds: for all of them together.
    """
    found: dict[str, tuple[int, float]] = {}
    rest = sorted(trainings, key=lambda one: one.seconds(one.wanted))
    for number, one in enumerate(rest):
        own = max(0.0, seconds / (len(rest) - number))
        epochs = one.fitting(own)
        found[one.model] = epochs, own
        seconds -= one.seconds(epochs) if epochs else 0.0
    return found
