"""Hydra's launcher for sweeps on this machine; Hydra finds launchers in this namespace only.

Hydra imports this file whenever it starts, so the file imports nothing slow.
"""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


class Local(Launcher):
    """Hydra's launcher on this machine: ``hydra/launcher=local`` or ``parallel``.

    Args:
        at_once: how many jobs run at a time; ``auto``: one per GPU, else one per four cores.
    """

    def __init__(self, at_once: int | str = 1) -> None:
        self.at_once, self.announced = at_once, False

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra hands to a launcher."""
        self.loader, self.config = hydra_context.config_loader, config
        self.session: Any = task_function

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        """Run the jobs of a whole grid or of a search's next step."""
        jobs = self.jobs(job_overrides, initial_job_idx)
        return returned(self.session.grid(jobs, self.at_once, not self.announced))

    def jobs(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[Any]:
        """Compose the config of each job."""
        setup_globals()
        jobs = []
        for number, overrides in enumerate(job_overrides, start=initial_job_idx):
            config = self.loader.load_sweep_config(self.config, list(overrides))
            with open_dict(config):
                config.hydra.job.id = config.hydra.job.num = number
            jobs.append(self.session.job(config))
        return jobs


def returned(values: Sequence[float | None]) -> list[JobReturn]:
    """Return the values as Hydra expects them; a failed job must not end a search."""
    return [JobReturn(status=JobStatus.COMPLETED, _return_value=value) for value in values]
