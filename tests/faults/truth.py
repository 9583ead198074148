"""A campaign: silent faults are planted, each of which must be refused, recorded or harmless.

Each case of tests/faults/planted/ runs twice, in a process of its own: as the project is, where it
must pass, and blind, with what finds its fault taken out, where it must fail.

Run: make faults-truth, or python -m tests.faults.truth [words of a fault's name]
"""

import contextlib
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path

import pytest

from clipbench.core import environment, paths
from clipbench.core.config import schema
from tests.faults.planted import Case, cases

LIMIT = 60.0  # seconds that a case may take
_PASSED, _FAILED, _BROKEN = "passed", "failed", "broken"


def _work(case: Case, blind: bool, place: Path, output: Path, end: Connection) -> None:
    """Run a case in this process, which ends with it, and say how that went."""
    with output.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ["CLIPBENCH_OUTPUTS"] = str(place / "outputs")
    patch = pytest.MonkeyPatch()
    for target, replacement in case.blind.items() if blind else ():
        patch.setattr(target, replacement)
    try:
        case.check(place)
        end.send((_PASSED, ""))
    except (AssertionError, pytest.fail.Exception) as failure:
        end.send((_FAILED, str(failure) or traceback.format_exc()))
    except BaseException:
        end.send((_BROKEN, traceback.format_exc()))


class Trial:
    """A case at work, in a process forked from this one, which has imported everything.

    Args:
        case: what to plant and to assert.
        blind: whether what finds the fault is taken out.
        place: a folder to make.
    """

    def __init__(self, case: Case, blind: bool, place: Path) -> None:
        self.case, self.blind = case, blind
        self.output, self.deadline = place.with_suffix(".txt"), time.monotonic() + LIMIT
        place.mkdir()
        context = get_context("fork")  # while no thread runs here
        self.receiver, sender = context.Pipe(duplex=False)
        work = (case, blind, place, self.output, sender)
        self.process = context.Process(target=_work, args=work)
        self.process.start()
        sender.close()

    def end(self) -> str | None:
        """End it, and return what is wrong with it, if anything is."""
        how, why = _BROKEN, "no answer"
        with contextlib.suppress(EOFError):
            if self.receiver.poll():
                how, why = self.receiver.recv()
        self.process.kill()
        self.process.join()
        self.receiver.close()
        if how == _BROKEN or (how == _FAILED and not self.blind):
            return f"{why}\n{self.output.read_text()[-2000:]}"
        return "its check passes blind, so it can't fail" if self.blind and how == _PASSED else None


def judged(tasks: Sequence[tuple[Case, bool]], folder: Path) -> Iterator[tuple[Trial, str | None]]:
    """Run cases, two at a time, and yield each with what is wrong with it."""
    left, working = list(enumerate(tasks)), list[Trial]()
    while left or working:
        while left and len(working) < 2:
            number, (case, blind) = left.pop(0)
            working.append(Trial(case, blind, folder / str(number)))
        remaining = min(trial.deadline for trial in working) - time.monotonic()
        ready = wait([trial.receiver for trial in working], max(0, remaining))
        for trial in list(working):
            if trial.receiver in ready or time.monotonic() > trial.deadline:
                working.remove(trial)
                yield trial, trial.end()


def main(words: Sequence[str]) -> int:
    """Print how each case went; return 1 if any is not as it must be."""
    environment.quiet()
    paths.register()
    schema.register()
    wanted = [case for case in cases() if all(word in case.fault for word in words)]
    tasks = [(case, blind) for case in wanted for blind in (False, True)]
    wrong, started = 0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for trial, fault in judged(tasks, Path(folder)):
            name = f"{trial.case.fault}{', blind' if trial.blind else ''}"
            print(f"  ok   {name}" if fault is None else f"WRONG  {name}: {fault}", flush=True)
            wrong += fault is not None
    seconds = time.monotonic() - started
    print(f"{len(wanted)} faults planted, each also blind: {wrong} wrong, {seconds:.0f} s")
    return 1 if wrong or not wanted else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
