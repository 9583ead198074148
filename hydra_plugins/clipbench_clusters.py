"""Hydra's way to the jobs of a sweep on a cluster: ``hydra/launcher=slurm`` and ``ray``.

What crosses to another machine is a :class:`clipbench.core.jobs.Job`, plain data, and its outcome.
The machines share the file system that the outputs are on.

Hydra reads this file whenever it starts, so it imports nothing that takes time.
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

# Of submitit's words those that it has for any cluster; the others are SLURM's.
_ANY = {"name", "timeout_min", "nodes", "tasks_per_node", "cpus_per_task", "gpus_per_node"}
_ANY |= {"mem_gb", "stderr_to_stdout"}


class Cluster(Local):
    """A launcher of jobs that others carry out."""

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        """Called by Hydra."""
        jobs = self.jobs(job_overrides, initial_job_idx)
        return returned(self.session.cluster(jobs, self.outcomes, not self.told))

    @abstractmethod
    def outcomes(self, jobs: Sequence[Any]) -> Iterator[Any]:
        """The outcome of each job when it has come, in their order."""


class Slurm(Cluster):
    """A SLURM job for each job, by submitit, which queues it again when it is preempted.

    Args:
        folder: for submitit's files, the logs among them.
        max_num_timeout: how often a job may run out of its time, and be queued again.
        parameters: of sbatch, by submitit's names.
    """

    def __init__(self, folder: str, max_num_timeout: int, **parameters: Any) -> None:
        super().__init__()
        self.folder, self.max_num_timeout, self.parameters = folder, max_num_timeout, parameters

    def outcomes(self, jobs: Sequence[Any]) -> Iterator[Any]:
        """Queue them all; the outcome of each when it has come, in their order."""
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
                    # The others of several machines only say that they lost one.
                    yield next((end for end in ends if end.violent), ends[0])
                except (submitit.core.utils.UncompletedJobError, OSError):
                    said = f"SLURM's job {one.job_id} left no result: {one.paths.stderr}"
                    yield Outcome("interrupted", error=said, signal=signal.SIGTERM)
        finally:
            for one in queued:
                # They outlive the terminal that they were queued from.
                if stop.signal != signal.SIGHUP and not one.done():
                    one.cancel(check=False)


class OnSlurm:
    """A job in a process that SLURM has started."""

    def __call__(self, job: Any) -> Any:
        """Run it to its end, on this machine, and on others if it has several."""
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
        """Called by submitit before a preemption, or at the end of the job's time: queue it again.

        The run keeps where it is first.
        """
        import submitit

        from clipbench.sweeps.launcher import KEEPING, stop

        for running in list(stop.working):
            running.end()
            running.process.join(KEEPING)
        return submitit.helpers.DelayedSubmission(self, job)


def _start_server() -> None:
    """Start what ranks are forked from so that they let pass what submitit listens to.

    SLURM sends it to every process of a job: they would end before their state is kept.
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
        remote: what a task takes, by the names of ``ray.remote``: ``num_cpus``, ``num_gpus``.
    """

    def __init__(self, init: Any, remote: Any) -> None:
        super().__init__()
        self.init, self.remote = init, remote

    def outcomes(self, jobs: Sequence[Any]) -> Iterator[Any]:
        """Hand all to Ray; the outcome of each when it has come, in their order."""
        from clipbench.core.jobs import Outcome
        from clipbench.sweeps.launcher import stop

        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray = _library("ray", "ray")
        if not ray.is_initialized():
            ray.init(**self.init)
            stop.install()  # again: Ray has put handlers of its own in its place
        # A machine that goes takes its task along: another one goes on with the run.
        task = ray.remote(**self.remote)(on_ray)
        handed = [task.remote(_moved(job)) for job in jobs]
        try:
            for one in handed:
                try:
                    yield ray.get(one)
                except ray.exceptions.RayError as error:
                    said = f"Ray's task left no result: {type(error).__name__}"
                    yield Outcome("interrupted", error=said, signal=signal.SIGTERM)
        finally:
            for one in handed:
                ray.cancel(one, force=True)


def on_ray(job: Any) -> Any:
    """A job in a process of Ray's, which may have had another job's GPUs before."""
    from clipbench.sweeps.launcher import launch

    mine = {k: v for k, v in os.environ.items() if k in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")}
    return launch(replace(job, environment=job.environment | mine))


def _moved(job: Any) -> Any:
    """With what it would find in the environment of this machine."""
    return replace(job, environment={"CLIPBENCH_OUTPUTS": str(job.outputs)})


def _library(name: str, extra: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        words = f'{name} is not installed; pip install "clipbench[{extra}]"'
        raise HydraException(words) from None
