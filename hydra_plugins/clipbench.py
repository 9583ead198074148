"""Hydra's way to the jobs of a sweep; it makes launchers of this namespace only.

Hydra reads this file whenever it starts, so it imports nothing that takes time.
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
        at_once: how many jobs work at a time; ``auto``: one a GPU, else one for four cores.
    """

    def __init__(self, at_once: int | str = 1) -> None:
        self.at_once, self.told = at_once, False

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Called by Hydra."""
        self.loader, self.config = hydra_context.config_loader, config
        self.session: Any = task_function

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        """Called by Hydra, with the jobs of a whole grid or of a search's next step."""
        jobs = self.jobs(job_overrides, initial_job_idx)
        return returned(self.session.grid(jobs, self.at_once, not self.told))

    def jobs(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[Any]:
        """What each asks for, composed."""
        setup_globals()
        jobs = []
        for number, overrides in enumerate(job_overrides, start=initial_job_idx):
            config = self.loader.load_sweep_config(self.config, list(overrides))
            with open_dict(config):
                config.hydra.job.id = config.hydra.job.num = number
            jobs.append(self.session.job(config))
        return jobs


def returned(values: Sequence[float | None]) -> list[JobReturn]:
    """For Hydra: a search is to go on where a job has failed; how it ended is in the record."""
    return [JobReturn(status=JobStatus.COMPLETED, _return_value=value) for value in values]
