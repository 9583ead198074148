"""Loaders of batches, and the check of the memory that their workers share."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from clipbench.core import distributed
from clipbench.core.errors import UserError
from clipbench.loading.dataset import ImageDataset, collate
from clipbench.transforms.mixup import Batch

SHARED = Path("/dev/shm")  # where Linux keeps what processes share
AHEAD = 2  # batches that each worker of a DataLoader makes in advance


def loader(
    images: ImageDataset,
    side: int,
    order: Iterable[Any],
    rows: int,
    *,
    workers: int,
    persistent: bool = False,
) -> DataLoader[Batch]:
    """Return a loader of this rank's rows, in their order.

    A batch has ``rows`` images over all ranks, of ``side`` pixels each way.
    """
    refuse_small_shared_memory(workers, rows, side)
    return DataLoader(
        images,
        batch_size=rows // distributed.here.world,
        sampler=order,
        num_workers=workers,
        persistent_workers=persistent and workers > 0,
        collate_fn=collate,
    )


def refuse_small_shared_memory(workers: int, rows: int, side: int) -> None:
    """Refuse workers whose batches are more than ``/dev/shm`` can take, where it exists.

    Containers have 64 MB of it by default, and a worker would end in a bus error in mid-epoch.
    """
    needed = workers * AHEAD * rows * 3 * side * side * 4  # float32
    if needed and SHARED.is_dir() and needed > (free := shutil.disk_usage(SHARED).free):
        raise UserError(
            f"dataset.workers={workers}: their batches take {needed / 1e6:,.0f} MB of shared "
            f"memory and {SHARED} has {free / 1e6:,.0f} MB free. Use dataset.workers=0 or fewer, a "
            "smaller batch_size, or start the container with --shm-size=8g or --ipc=host"
        )
