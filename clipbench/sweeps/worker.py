"""The processes of one job: a guard, and the ranks, which end with it.

All are one process group, which the launcher ends when the job has ended.
"""

import ctypes
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from clipbench.core.jobs import Job, Node, Outcome

_OUTSIDE = {
    *(signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP),
    *(signal.SIGUSR1, signal.SIGUSR2),  # how a cluster preempts
}
_FAILED = 97  # the exit code of a rank that has sent its outcome
_ELASTIC = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID")


def _die_with_parent() -> None:
    """Let the kernel end this process when its parent ends (on Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _die_with_launcher() -> None:
    """End the process group when the launcher is gone, since nothing waits for its result."""
    launcher = multiprocessing.parent_process()
    assert launcher is not None

    def watch() -> None:
        wait([launcher.sentinel])
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def settle(ends: Sequence[Connection]) -> None:
    """Make this process the guard of a job.

    Args:
        ends: for its output and its errors.
    """
    os.setpgid(0, 0)
    _die_with_launcher()
    # Forked processes, loader workers included, end even if all their parents are killed.
    os.register_at_fork(after_in_child=_die_with_parent)
    for number, end in enumerate(ends, start=1):
        os.dup2(end.fileno(), number)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    # With the fork server, each loader worker would import everything again: five seconds per
    # worker and epoch. The platform's default instead, as torch uses.
    multiprocessing.set_start_method(None, force=True)
    for name in _ELASTIC:  # of a launcher that torchrun started itself
        os.environ.pop(name, None)
    signal.signal(signal.SIGTERM, _pass_on)


def _pass_on(number: int, frame: Any) -> None:
    """Pass SIGTERM to the ranks, not to loader workers, which they need to finish their step."""
    for rank in multiprocessing.active_children():
        rank.terminate()


def guard(job: Job, senders: Sequence[Connection], ends: Sequence[Connection]) -> None:
    """Run the ranks of a job; this process computes nothing, so that it always responds.

    Args:
        job: for the ranks.
        senders: one for the outcome of each rank, and one for that of the guard.
        ends: see :func:`settle`.
    """
    settle(ends)
    # So that what the job caches and looks up is where its runs are.
    os.environ.update(job.environment, CLIPBENCH_OUTPUTS=str(job.outputs))
    *rank_senders, guard_sender = senders
    alone = len(rank_senders) == 1 and job.node is None
    ended = _one(job, rank_senders) if alone else _several(job, rank_senders)
    if ended is not None:
        guard_sender.send(from_exit_code(*ended))


def from_exit_code(rank: int, code: int) -> Outcome:
    """Return what the exit code of a rank means that sent no outcome."""
    if code == 255:  # what multiprocessing returns if the fork server was ended, as by a cluster
        error = "the processes of the job were ended from outside"
        return Outcome("interrupted", error=error, signal=signal.SIGTERM)
    if code >= 0:
        return Outcome("failed", error=f"the process of rank {rank} ended with exit code {code}")
    name = signal.Signals(-code).name
    ending = "; out of memory?" if -code == signal.SIGKILL else ""
    error = f"the process of rank {rank} was ended by {name}{ending}"
    # Those are sent from outside; any other comes from a bug, which would occur again.
    if -code in _OUTSIDE:
        return Outcome("interrupted", error=error, signal=-code, violent=True)
    return Outcome("failed", error=error, violent=True)


def _one(job: Job, senders: Sequence[Connection]) -> tuple[int, int] | None:
    process = multiprocessing.get_context("fork").Process(target=_rank, args=(job, senders))
    process.start()
    process.join()
    assert process.exitcode is not None
    return (0, process.exitcode) if process.exitcode else None


def _several(job: Job, senders: Sequence[Connection]) -> tuple[int, int] | None:
    """Run the ranks with torch's elastic launcher, which ends the others when one fails."""
    # Count GPUs without initialising CUDA, which forked ranks could not use then.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    node = job.node or Node(0, 1, "localhost:0")
    for name in ("torch.distributed.elastic", "torch.multiprocessing"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    launched = elastic_launch(
        LaunchConfig(
            min_nodes=node.count,
            max_nodes=node.count,
            nproc_per_node=len(senders),
            run_id="clipbench",
            rdzv_backend="c10d",
            rdzv_endpoint=node.meeting,
            rdzv_configs={"is_host": node.rank == 0},
            local_addr=None if job.node else "localhost",
            max_restarts=0,
            start_method="fork",
            logs_specs=DefaultLogsSpecs(log_dir=os.devnull),
            shutdown_timeout=1,
            signals_to_handle="SIGQUIT",  # of others it gives the ranks only that second
        ),
        _rank,
    )
    try:
        launched(job, senders)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        return rank, failure.exitcode
    return None


def _rank(job: Job, senders: Sequence[Connection]) -> None:
    """Run one rank of a job."""
    from clipbench.core import allocator, distributed, environment
    from clipbench.core.console import console
    from clipbench.training.run import execute

    allocator.keep()
    for number in (signal.SIGTERM, signal.SIGINT):  # the elastic launcher's own
        signal.signal(number, signal.SIG_DFL)
    names = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1}
    rank, local, world = (int(os.environ.get(name, alone)) for name, alone in names.items())
    environment.share_threads(len(senders))
    console.quiet = rank > 0
    if world > 1:
        distributed.join(rank, world, job.config["rank_timeout"])
    outcome = execute(job, senders[local].send)
    senders[local].send(outcome)
    if world > 1 and outcome.status != "completed":
        # At once: a clean exit would wait for the others, which wait for this rank.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_FAILED)
