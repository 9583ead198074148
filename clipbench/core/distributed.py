"""The ranks of a run: which one this process is, and how they exchange values."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor, nn

Value = TypeVar("Value")


@dataclass
class Place:
    """This process among those of its run.

    Attributes:
        rank: from 0; rank 0 writes the files of the run.
        world: how many there are.
    """

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes files."""
        return self.rank == 0


here = Place()


def join(rank: int, world: int, timeout: float) -> None:
    """Join the process group, at the address that the environment names.

    Args:
        rank: of this process.
        world: how many there are.
        timeout: seconds after which waiting for another rank is an error.
    """
    import torch.distributed
    from lightning_utilities.core.rank_zero import rank_zero_only

    gpus = torch.cuda.is_available()
    torch.distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=timedelta(seconds=timeout)
    )
    here.rank, here.world = rank, world
    # Lightning was imported before the ranks existed, and took every process for the first.
    rank_zero_only.rank = rank  # type: ignore[attr-defined]


def check_agreement(name: str, value: str) -> None:
    """Check that every rank has the same value.

    Args:
        name: of the value, for the message.
        value: of this rank.

    Raises:
        RuntimeError: with the value of each rank, if they differ.
    """
    values = gathered(value)
    if len(set(values)) > 1:
        listed = ", ".join(f"rank {rank} has {value}" for rank, value in enumerate(values))
        raise RuntimeError(f"the ranks of one job do not agree on its {name}: {listed}")


def broadcast(value: Value) -> Value:
    """Return the first rank's value in every rank; that of the others is ignored."""
    if here.world == 1:
        return value
    import torch.distributed

    box = [value if here.first else None]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]  # type: ignore[return-value]


def gathered(value: Value) -> list[Value]:
    """Return the values of all ranks, in the order of the ranks."""
    if here.world == 1:
        return [value]
    import torch.distributed

    values: list[Value | None] = [None] * here.world
    torch.distributed.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def mean(value: float) -> float:
    """Return the mean over the ranks."""
    return sum(gathered(value)) / here.world


def any_of(value: bool) -> bool:
    """Return whether the value is true on any rank."""
    if here.world == 1:
        return value
    import torch.distributed

    flag = torch.tensor(int(value))
    torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
    return bool(flag)


@contextmanager
def rank_zero_first() -> Iterator[None]:
    """Run a block in the first rank, then in the others, which find what the first has fetched."""
    if here.world > 1 and not here.first:
        _barrier()
    yield
    if here.world > 1 and here.first:
        _barrier()


def _barrier() -> None:
    import torch.distributed

    torch.distributed.barrier()


def shares(batches: Iterable[list[Value]]) -> Iterator[Value]:
    """Yield this rank's rows of each global batch; all ranks have the same number.

    A batch that does not divide by the ranks, such as the last of an epoch, is filled up with its
    first rows: each rank must take the same steps, with equal weight.
    """
    for batch in batches:
        share = -(-len(batch) // here.world)
        filled = batch * here.world if len(batch) < here.world else batch + batch[: here.world]
        yield from filled[here.rank * share : (here.rank + 1) * share]


def own(length: int) -> range:
    """Return the positions of a split that this rank evaluates: every ``world``-th, no padding.

    If there are fewer positions than ranks, a rank without any takes the first, so that its loader
    is not empty; :func:`whole` leaves it out.
    """
    return range(here.rank, length, here.world) or range(min(1, length))


def whole(rows: "Tensor", positions: "Tensor") -> "Tensor":
    """Return the rows of all ranks, in the order in which a single rank would have them.

    Args:
        rows: of this rank, (b, ...), on the CPU.
        positions: of each in the split, (b,); rows of one position stay in their order.
    """
    if here.world == 1:
        return rows
    import torch

    mine = positions % here.world == here.rank
    parts = gathered((positions[mine], rows[mine]))
    order = torch.cat([places for places, _ in parts]).argsort(stable=True)
    return torch.cat([values for _, values in parts])[order]


def same_buffers(module: "nn.Module") -> None:
    """Copy the first rank's running statistics to every rank, since each has seen only its rows."""
    if here.world == 1:
        return
    import torch.distributed

    for buffer in module.buffers():
        torch.distributed.broadcast(buffer, 0)
