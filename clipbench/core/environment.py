"""What a run ran on: versions, commit, device, memory."""

import logging
import os
import platform
import resource
import subprocess
import sys
import warnings
from importlib.metadata import version
from typing import TYPE_CHECKING, TypedDict

from clipbench import __version__
from clipbench.core import paths
from clipbench.core.config.option_files import Config

if TYPE_CHECKING:
    import torch

_PACKAGES = (
    *("torch", "torchvision", "open_clip_torch", "timm", "pytorch-lightning", "numpy"),
    "pillow",  # decoded pixels may change with it
)
_PRECISIONS = {"16": "16-mixed", "bf16": "bf16-mixed", "32": "32-true", "64": "64-true"}


class DeviceUse(TypedDict):
    """What a record's cost says of the device."""

    peak_memory_bytes: int
    device: str


def versions() -> dict[str, str]:
    """Return the versions of Python, of clipbench and of the packages that compute."""
    packages = {name: version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), "clipbench": __version__, **packages}


def git() -> dict[str, str | bool] | None:
    """Return the commit and whether there are uncommitted changes; None for an installed wheel."""

    def ask(*words: str) -> str:
        command = ["git", "-C", str(paths.ROOT), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    if not (paths.ROOT / ".git").exists():
        return None
    try:
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None


def cores() -> int:
    """Return how many CPU cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def threads() -> int:
    """Return how many threads a CPU operation uses; its last bits depend on them."""
    import torch

    return torch.get_num_threads()


def share_threads(ranks: int) -> None:
    """Give each rank of a job its share of the cores.

    The share does not depend on how many jobs run at once, so that a run is bitwise the same with
    any launcher.
    """
    import torch

    share = max(1, cores() // ranks)
    if share < torch.get_num_threads():
        torch.set_num_threads(share)


def resolved(trainer: Config, world: int) -> dict[str, str | int]:
    """Return the accelerator, devices and precision of a run in place of words such as ``auto``.

    Args:
        trainer: the config's node, with ``accelerator``, ``devices`` and ``precision``.
        world: how many ranks the run has, over all machines.
    """
    import torch

    accelerator, precision = trainer["accelerator"], str(trainer["precision"] or "32-true")
    if accelerator in ("auto", "gpu"):
        gpu = "mps" if torch.backends.mps.is_available() else "cuda"
        none = gpu == "cuda" and not torch.cuda.is_available()
        accelerator = gpu if not none else "cpu" if accelerator == "auto" else accelerator
    precision = _PRECISIONS.get(precision, precision)
    if (accelerator, precision) == ("cpu", "16-mixed"):  # a CPU has no float16 autocast
        precision = "bf16-mixed"
    devices = world // int(trainer["num_nodes"] or 1)
    return {"accelerator": accelerator, "devices": devices, "precision": precision}


def of(trainer: Config, world: int) -> dict[str, str | int]:
    """Return what a record stores of the hardware: :func:`resolved` and the threads."""
    return {**resolved(trainer, world), "threads": threads()}


def device(used: "torch.device") -> DeviceUse:
    """Return the device's name and the peak memory of this process on it, in bytes."""
    if used.type == "cuda":
        import torch

        peak = torch.cuda.max_memory_allocated(used)
        return {"peak_memory_bytes": peak, "device": torch.cuda.get_device_name(used)}
    # ru_maxrss is in KiB on Linux, in bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    name = f"{used.type}, {threads()} threads"
    return {"peak_memory_bytes": peak, "device": name}


def quiet() -> None:
    """Silence warnings of libraries that clipbench prints itself or that no user can act on."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    for message in (
        ".*does not have many workers.*",  # dataset.workers is the user's to choose
        ".*number of training batches.*logging interval.*",  # small datasets are common here
        ".*LeafSpec.*is deprecated.*",  # Lightning 2.6 on torch 2.14
        ".*in eval mode at the start of training.*",  # frozen statistics, as intended
        ".*Checkpoint directory.*exists.*",
        ".*`srun` command is available.*",  # a job of ours is one task, whatever its ranks
        ".*checkpoint that ended before the epoch ended.*",  # the sampler begins where it must
        ".*recommended to use `self.log.*sync_dist=True.*",  # every rank sees whole splits
    ):
        warnings.filterwarnings("ignore", message)
