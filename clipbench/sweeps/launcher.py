"""Each job in new processes, so that no run inherits the seeds, memory or crash of another."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from clipbench.core.devices import devices
from clipbench.core.errors import UserError
from clipbench.core.jobs import Job, Outcome
from clipbench.results import store
from clipbench.sweeps.output import Streams


class Stop:
    """SIGINT, SIGTERM or SIGHUP for the launcher: the running jobs save their state and end.

    No other job starts. They have :data:`KEEPING` seconds; a second signal ends them at once.

    Attributes:
        signal: the one received; None before.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.working: set[Running] = set()

    def install(self) -> None:
        """Install the signal handlers.

        Raises:
            UserError: on Windows, which has neither these signals nor forked processes.
        """
        if sys.platform == "win32":
            raise UserError("clipbench runs on Linux and macOS. On Windows use WSL 2.")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup
                signal.signal(number, self._came)

    def _came(self, number: int, frame: Any) -> None:
        signal.signal(number, signal.SIG_DFL)
        idle = not self.working
        if not idle:
            reported = (
                f"{signal.Signals(number).name}: {KEEPING:.0f} s to keep where the jobs at work are"
            )
            os.write(2, f"{reported}; again, and they end at once\n".encode())
        self.now(number)
        if idle:
            raise KeyboardInterrupt

    def now(self, number: int) -> None:
        """End the running jobs."""
        self.signal = number
        for running in list(self.working):
            running.end()


stop = Stop()
GRACE = 5.0  # seconds that the other ranks have to end once one has failed
KEEPING = 25.0  # seconds that all have for a last checkpoint; a cluster kills after 30
_starting = threading.Lock()


def _check_nodes(job: Job) -> None:
    requested, present = (
        job.config["trainer"]["num_nodes"],
        1 if job.node is None else job.node.count,
    )
    if requested != present:
        raise UserError(
            f"trainer.num_nodes={requested} on {present} of SLURM: use hydra/launcher=slurm "
            f"hydra.launcher.nodes={requested}, or trainer.num_nodes={present}"
        )


class Running:
    """A running job.

    Args:
        job: to run.
        world: how many ranks it has.
        label: printed before each line of its output.
    """

    def __init__(self, job: Job, world: int, label: str) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["clipbench.training.run"])
        pipes = [context.Pipe(duplex=False) for _ in range(world + 1)]
        # The last is of the guard, which reports a rank that could not report itself.
        self.receivers = {receiver: rank for rank, (receiver, _) in enumerate(pipes)}
        self.world, self.limit = world, job.config["timeout"]
        self.deadline = time.monotonic() + (self.limit or 1e9)
        self.outcomes: list[tuple[int, Outcome]] = []
        self.started: Outcome | None = None
        self.streams = Streams(label)
        senders = [sender for _, sender in pipes]
        self.process = context.Process(target=_work, args=(job, senders, self.streams.ends))
        with _starting:
            self.process.start()
        for end in (*senders, *self.streams.ends):
            end.close()
        stop.working.add(self)
        if stop.signal:  # it came while this job started
            self.end()

    def end(self) -> None:
        """Let the ranks save their state and end."""
        self.deadline = min(self.deadline, time.monotonic() + KEEPING)
        self.process.terminate()  # the guard passes it on to the ranks

    def kill(self) -> None:
        """End every process of the job."""
        assert self.process.pid is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()  # if it has no process group yet

    def wait(self) -> Outcome:
        """Wait until the job has ended and none of its processes is left."""
        while (left := self.deadline - time.monotonic()) > 0 and self.process.is_alive():
            self._listen(min(left, 1.0), self.process.sentinel)  # a signal shortens the deadline
        self.kill()
        self.process.join()
        stop.working.discard(self)
        patience = time.monotonic() + 2  # for another program that holds the ends of our pipes
        while (self.receivers or self.streams.open) and time.monotonic() < patience:
            self._listen(0.1)
        if stop.signal:
            name = signal.Signals(stop.signal).name
            reported = next((end.error for _, end in self.outcomes if end.signal), name)
            return self._sealed(Outcome("interrupted", error=reported, signal=stop.signal))
        if left <= 0 and not self.outcomes:
            return self._sealed(Outcome("failed", error=f"no end after timeout={self.limit} s"))
        return self._sealed(self._cause())

    def _listen(self, timeout: float, *more: int) -> None:
        for source in wait([*self.receivers, *self.streams.open, *more], timeout):
            if source in self.streams.open:
                self.streams.read(source)
            elif source in self.receivers:
                self._hear(source)

    def _hear(self, receiver: Connection) -> None:
        try:
            outcome: Outcome = receiver.recv()
        except (EOFError, OSError):
            del self.receivers[receiver]
            return
        if outcome.status != "running":
            self.outcomes.append((self.receivers[receiver], outcome))
            if outcome.status != "completed":  # a rank that hangs ignores SIGTERM
                self.deadline = min(self.deadline, time.monotonic() + GRACE)
        elif outcome.folder and not self.started:
            self.started = outcome
            self.streams.keep(Path(outcome.folder))

    def _cause(self) -> Outcome:
        """Return the first error; that of a rank ended by a signal goes before the others."""
        wrong = [(rank, end) for rank, end in self.outcomes if end.status != "completed"]
        guards = [end for rank, end in wrong if rank == self.world]
        reported = [end for rank, end in wrong if rank != self.world]
        if guards and (guards[0].violent or not reported):
            return guards[0]
        if reported:
            return reported[0]
        if done := [end for rank, end in self.outcomes if rank == 0]:
            return done[0]
        from clipbench.sweeps.worker import from_exit_code

        return from_exit_code(0, self.process.exitcode or 0)

    def _sealed(self, outcome: Outcome) -> Outcome:
        """Write the end to the record if the run could not do so itself."""
        if self.started is None:
            return outcome
        assert self.started.folder is not None
        folder = Path(self.started.folder)
        record = store.read(folder)
        if record is not None and record.completed:
            return replace(self.started, status="completed")
        self.streams.write(f"{outcome.status}: {outcome.error}\n".encode())
        if record is not None:
            store.write(folder, replace(record, status=outcome.status, error=outcome.error))
        return replace(outcome, key=self.started.key, folder=self.started.folder)


def _work(job: Job, senders: Sequence[Connection], ends: Sequence[Connection]) -> None:
    from clipbench.sweeps.worker import guard

    guard(job, senders, ends)


def launch(job: Job, label: str = "") -> Outcome:
    """Run a job in new processes and wait for it.

    The fork server has the libraries loaded, so a job starts in half a second and yet shares
    nothing with an earlier one. If a job finds an image that cannot be decoded, and such images are
    skipped, it starts again once, after all images have been decoded; its result is then the same
    as if the damage had been known before.

    Args:
        job: to run.
        label: printed before each line of its output, if several jobs run at once.
    """
    try:
        world = devices(job.config["trainer"])
        _check_nodes(job)
    except UserError as refused:
        return Outcome("failed", error=str(refused))
    outcome = Running(job, world, label).wait()
    if not outcome.again or job.node is not None or stop.signal:
        return outcome
    print(f"{outcome.error}\nevery image is decoded now, and the run starts again", flush=True)
    return Running(job, world, label).wait()
