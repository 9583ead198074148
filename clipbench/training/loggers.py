"""Loggers of others that need a little help in a job's own process."""

from multiprocessing import util
from typing import Any

from pytorch_lightning.loggers import WandbLogger


class Wandb(WandbLogger):
    """Lightning's, ended with the process.

    wandb writes what it holds as Python exits; a job's process, started by ``multiprocessing``,
    ends without that, and an offline run would be left empty.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        import wandb  # which Lightning does without until here

        util.Finalize(None, wandb.finish, exitpriority=1)
