"""How many devices there are, and how many a run takes."""

from clipbench.core.config.option_files import Config
from clipbench.core.errors import UserError


def devices(trainer: Config) -> int:
    """Return how many ranks a job has: one per device.

    Raises:
        UserError: if ``devices`` is not a number of devices.
    """
    requested = trainer["devices"]
    if isinstance(requested, list):
        return len(requested)
    if isinstance(requested, str) and "," in requested:
        return len(requested.strip(",").split(","))
    if requested in ("auto", -1, "-1"):
        return 1 if trainer["accelerator"] in ("cpu", "mps") else max(1, gpus())
    try:
        number = int(requested)
    except (TypeError, ValueError):
        number = 0
    if number < 1:
        raise UserError(
            f"trainer.devices={requested} is not a number of devices. Use 1 or more, or auto."
        )
    return number


def gpus() -> int:
    """Return how many CUDA devices this process sees."""
    import torch

    return torch.cuda.device_count()
