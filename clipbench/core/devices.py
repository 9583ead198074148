"""How many devices there are, and how many a run takes."""

from clipbench.core.errors import UserError
from clipbench.core.jobs import Config


def devices(trainer: Config) -> int:
    """Return how many ranks a job has: one per device.

    Raises:
        UserError: if ``devices`` is not a number of devices.
    """
    asked = trainer["devices"]
    if isinstance(asked, list):
        return len(asked)
    if isinstance(asked, str) and "," in asked:
        return len(asked.strip(",").split(","))
    if asked in ("auto", -1, "-1"):
        return 1 if trainer["accelerator"] in ("cpu", "mps") else max(1, gpus())
    try:
        number = int(asked)
    except (TypeError, ValueError):
        number = 0
    if number < 1:
        raise UserError(
            f"trainer.devices={asked} is not a number of devices. Use 1 or more, or auto."
        )
    return number


def gpus() -> int:
    """Return how many CUDA devices this process sees."""
    import torch

    return torch.cuda.device_count()
