"""Hydra's launchers for sweeps on a cluster: ``hydra/launcher=slurm`` and ``ray``.

What crosses to another machine is a :class:`clipbench.core.jobs.Job`, plain data, and its outcome.
The machines share the file system of the outputs.

Hydra imports this file whenever it starts, so the file imports nothing slow.
"""

import multiprocessing
import os
import signal
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing import forkserver
from typing import Any

from hydra.core.utils import JobReturn
from hydra.errors import HydraException

from hydra_plugins.clipbench import Local, returned

# submitit's parameters for any cluster; the others are for SLURM.
_ANY = {"name", "timeout_min", "nodes", "tasks_per_node", "cpus_per_task", "gpus_per_node"}
_ANY |= {"mem_gb", "stderr_to_stdout"}


class Cluster(Local):
    """A launcher of jobs on other machines."""

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        """Run the jobs of a whole grid or of a search's next step."""
        jobs = self.jobs(job_overrides, initial_job_idx)
        return returned(self.session.cluster(jobs, self.outcomes, not self.announced))

    @abstractmethod
    def outcomes(self, jobs: Sequence[Any]) -> Iterator[Any]:
        """Yield the outcome of each job once it has ended, in order."""


class Slurm(Cluster):
    """A SLURM job for each job, by submitit, which queues it again after a preemption.

    Args:
        folder: for submitit's files and logs.
        max_num_timeout: how often a job that runs out of time is queued again.
        parameters: of sbatch, by submitit's names.
    """

    def __init__(self, folder: str, max_num_timeout: int, **parameters: Any) -> None:
        super().__init__()
        self.folder, self.max_num_timeout, self.parameters = folder, max_num_timeout, parameters

    def outcomes(self, jobs: Sequence[Any]) -> Iterator[Any]:
        """Queue all jobs, and yield the outcome of each once it has ended, in order."""
        from clipbench.core.jobs import Outcome
        from clipbench.sweeps.launcher import stop

        submitit = _library("submitit", "slurm")
        named = {k if k in _ANY else f"slurm_{k}": v for k, v in self.parameters.items()}
        try:
            executor = submitit.AutoExecutor(
                self.folder, cluster="slurm", slurm_max_num_timeout=self.max_num_timeout
            )
            executor.update_parameters(**named)
            with executor.batch():
                queued = [executor.submit(OnSlurm(), _moved(job)) for job in jobs]
        except (RuntimeError, ValueError, NameError) as error:
            raise HydraException(f"hydra/launcher=slurm: {error}") from error
        try:
            for one in queued:
                try:
                    ends = one.results()
                    # The other machines of a job only report that they lost one.
                    yield next((end for end in ends if end.violent), ends[0])
                except (submitit.core.utils.UncompletedJobError, OSError):
                    message = f"SLURM's job {one.job_id} left no result: {one.paths.stderr}"
                    yield Outcome("interrupted", error=message, signal=signal.SIGTERM)
        finally:
            for one in queued:
                # Jobs outlive the terminal from which they were queued.
                if stop.signal != signal.SIGHUP and not one.done():
                    one.cancel(check=False)


class OnSlurm:
    """Run a job in a process that SLURM started."""

    def __call__(self, job: Any) -> Any:
        """Run the job on this machine, and on others if it has several."""
        import submitit

        from clipbench.core.jobs import Node
        from clipbench.sweeps.launcher import launch

        here = submitit.JobEnvironment()
        if here.num_tasks > 1:
            port = 10_000 + int(os.environ["SLURM_JOB_ID"]) % 20_000
            meeting = f"{here.hostnames[0]}:{port}"
            job = replace(job, node=Node(here.global_rank, here.num_tasks, meeting))
        _start_server()
        return launch(job)

    def checkpoint(self, job: Any) -> Any:
        """Queue the job again, before a preemption or at the end of its time.

        The run saves its state first.
        """
        import submitit

        from clipbench.sweeps.launcher import KEEPING, stop

        for running in list(stop.working):
            running.end()
            running.process.join(KEEPING)
        return submitit.helpers.DelayedSubmission(self, job)


def _start_server() -> None:
    """Start the fork server so that ranks ignore the signals that submitit handles.

    SLURM sends them to every process of a job, which would end before it has saved its state.
    """
    numbers = (signal.SIGUSR1, signal.SIGUSR2)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    multiprocessing.get_context("forkserver").set_forkserver_preload(["clipbench.training.run"])
    forkserver.ensure_running()
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


class Ray(Cluster):
    """A Ray task for each job, on this machine or on a cluster.

    Args:
        init: of ``ray.init``, such as ``address``.
        remote: resources of a task, by the names of ``ray.remote``: ``num_cpus``, ``num_gpus``.
    """

    def __init__(self, init: Any, remote: Any) -> None:
        super().__init__()
        self.init, self.remote = init, remote

    def outcomes(self, jobs: Sequence[Any]) -> Iterator[Any]:
        """Submit all jobs to Ray, and yield the outcome of each once it has ended, in order."""
        from clipbench.core.jobs import Outcome
        from clipbench.sweeps.launcher import stop

        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray = _library("ray", "ray")
        if not ray.is_initialized():
            ray.init(**self.init)
            stop.install()  # again: Ray replaces the handlers
        # If a machine fails, its task moves to another, which resumes the run.
        task = ray.remote(**self.remote)(on_ray)
        handed = [task.remote(_moved(job)) for job in jobs]
        try:
            for one in handed:
                try:
                    yield ray.get(one)
                except ray.exceptions.RayError as error:
                    message = f"Ray's task left no result: {type(error).__name__}"
                    yield Outcome("interrupted", error=message, signal=signal.SIGTERM)
        finally:
            for one in handed:
                ray.cancel(one, force=True)


def on_ray(job: Any) -> Any:
    """Run a job in a Ray process, which may have had the GPUs of another job before."""
    from clipbench.sweeps.launcher import launch

    mine = {k: v for k, v in os.environ.items() if k in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")}
    return launch(replace(job, environment=job.environment | mine))


def _moved(job: Any) -> Any:
    """Return the job with what the environment of this machine says."""
    return replace(job, environment={"CLIPBENCH_OUTPUTS": str(job.outputs)})


def _library(name: str, extra: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        words = f'{name} is not installed; pip install "clipbench[{extra}]"'
        raise HydraException(words) from None
