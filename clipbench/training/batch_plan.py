"""How a global batch is divided: between datasets, among devices, into micro-batches."""

from dataclasses import dataclass

from clipbench.core.errors import UserError
from clipbench.loading.samplers import EpochPlan
from clipbench.training.robustness import replay


@dataclass(frozen=True)
class BatchPlan:
    """The rows of a batch and of an epoch.

    Attributes:
        size: rows of a global batch.
        mix_fraction: share of the rows that another dataset has; None without one.
        micro_batch: rows that a device takes at once; None for all of its share.
        devices: how many share a batch.
        epoch: the rows of train.
        limit: batches of an epoch, or their share, that are taken; None for all.
    """

    size: int
    mix_fraction: float | None
    micro_batch: int | None
    devices: int
    epoch: EpochPlan
    limit: int | float | None = None

    def split(self, size: int) -> tuple[int, int]:
        """Return the rows of the dataset and those of the mixed-in one in a batch of some size."""
        return (size, 0) if self.mix_fraction is None else replay.rows(size, self.mix_fraction)

    @property
    def rows(self) -> tuple[int, int]:
        """The rows of the dataset and those of the mixed-in one."""
        return self.split(self.size)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch."""
        batches = self.epoch.batches(self.rows[0])
        if isinstance(self.limit, int):
            return min(batches, self.limit)
        return batches if self.limit is None else int(batches * self.limit)

    @property
    def per_device(self) -> int:
        """Rows of a batch that each device has."""
        return sum(size // self.devices for size in self.rows)

    @property
    def accumulation(self) -> int:
        """In how many parts a device takes its rows."""
        shares = [size // self.devices for size in self.rows]
        return sum(-(-share // (self.micro_batch or share)) for share in shares if share)

    def smallest_part(self, size: int) -> int:
        """Return the fewest images that a device takes at once; 0 if ``size`` does not divide."""
        rows, _ = self.split(size)
        return 0 if rows % self.devices else self.epoch.fewest(rows, self.devices, self.micro_batch)

    def check(self) -> None:
        """Raise a UserError with the nearest sizes if the devices cannot share a batch equally."""
        for size in self.rows:
            if size % self.devices:
                whole = size // self.devices
                near = " or ".join(str(n * self.devices) for n in (whole, whole + 1) if n)
                fault = f"a batch of {size} does not divide among {self.devices} devices"
                raise UserError(f"{fault}; use one of {near}")
