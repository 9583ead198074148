"""Each job in a fresh process, so that no run inherits another's seeds, memory or crash."""

import multiprocessing
import os
import signal
import threading
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from clipbench import paths


@dataclass(frozen=True)
class Job:
    """What the command line asked for, as plain data that crosses a process boundary.

    Attributes:
        config: the resolved config.
        choices: the option typed for each config group.
        overrides: the command line's own words.
        outputs: the outputs root; the fork server's environment may be older than this job.
    """

    config: dict[str, Any]
    choices: dict[str, str]
    overrides: list[str]
    outputs: Path = field(default_factory=paths.outputs)


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        status: ``completed``, ``failed``, ``interrupted`` or ``diverged``.
        key: of the run, or None if the job was refused before it had one.
        folder: the run's.
        error: the cause in one line.
        details: further lines, such as one for each bad picture.
        before: True if the run had been completed by an earlier command.
    """

    status: str
    key: str | None = None
    folder: str | None = None
    error: str | None = None
    details: list[str] = field(default_factory=list)
    before: bool = False


def _die_with_launcher() -> None:
    """End this process when the launcher is gone, however it went: nobody waits for its result."""
    launcher = multiprocessing.parent_process()
    assert launcher is not None

    def watch() -> None:
        wait([launcher.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _settle() -> None:
    _die_with_launcher()
    # A fork server's children would start their own that way, each worker of a loader importing
    # everything again: five seconds a worker and epoch. The platform's way instead, as torch's is.
    multiprocessing.set_start_method(None, force=True)


def _work(job: Job, sender: Connection) -> None:
    _settle()
    from clipbench.job import execute

    sender.send(execute(job))


def launch(job: Job) -> Outcome:
    """Run a job in a process of its own and wait for it.

    The fork server has the libraries loaded, so a job starts in half a second and yet shares
    nothing with the one before.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["clipbench.job"])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(job, sender))
    process.start()
    sender.close()
    outcome: Outcome | None = None
    try:
        outcome = receiver.recv()
    except EOFError:
        pass
    except KeyboardInterrupt:
        # The terminal sent the signal to the worker too, which is writing its record.
        outcome = Outcome("interrupted", error="interrupted")
    process.join()
    if outcome is None:
        code = process.exitcode or 0
        cause = f"signal {-code} (9: out of memory?)" if code < 0 else f"exit code {code}"
        outcome = Outcome("failed", error=f"the process of this job ended with {cause}")
    return outcome
