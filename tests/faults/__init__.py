"""Sweeps whose jobs are broken from outside, through the real command line."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

from clipbench.core import paths
from tests.command_server import Command
from tests.conftest import FEW, TINY

HERE = Path(__file__).parent
CAUSES = {
    "raise": "RuntimeError: a fault of the test",
    "exit": "something called sys.exit(3)",
    "memory": "MemoryError: no memory left",
    "segfault": "was ended by SIGSEGV",
    "kill": "was ended by SIGKILL",
    "term": "SIGTERM",
}


class Sweep:
    """One command in a process of its own, with faults by seed.

    Args:
        outputs: the outputs root.
        words: the command's, besides those that make its jobs small.
        faults: of each seed ``(kind, rank, place)``.
        model: the words that choose it.
        shown: where its output goes; by default to :meth:`wait`.
        forked: from this test session's server, which is quick; else started as by a user.
        more: variables of its environment.
    """

    def __init__(
        self, outputs, *words, faults=None, model=TINY, shown=subprocess.PIPE, forked=False, **more
    ):
        self.outputs, self.log = outputs, outputs / "faults.jsonl"
        outputs.mkdir(parents=True, exist_ok=True)
        # This checkout's package, too: it is imported before there is a working directory.
        found = [str(HERE), str(paths.ROOT), os.environ.get("PYTHONPATH")]
        env = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "CLIPBENCH_OUTPUTS": str(outputs),
            "CLIPBENCH_FAULTS": json.dumps(faults or {}),
            "CLIPBENCH_FAULTS_LOG": str(self.log),
            "PYTHONPATH": os.pathsep.join(filter(None, found)),
            **more,
        }
        command = ["clipbench.run", "-m", *model, *FEW, *words]
        if forked:
            self.process = Command(command, env, outputs / "said.txt", prepare=_break)
            return
        self.process = subprocess.Popen(
            [sys.executable, "-m", *command],
            env=env,
            stdout=shown,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=paths.ROOT,
        )

    def wait(self, timeout=900):
        """Its exit code and what it said."""
        said, _ = self.process.communicate(timeout=timeout)
        return self.process.returncode, said

    def notes(self):
        """What the jobs' processes noted of themselves."""
        if not self.log.is_file():
            return []
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def _break():
    from tests.faults import sitecustomize  # noqa: F401  # as Python does where it starts anew


def descendants(pid):
    """Every process below one, by /proc."""
    words = []
    for task in Path(f"/proc/{pid}/task").glob("*"):  # any thread may have started them
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            words += (task / "children").read_text().split()
    return [found for child in map(int, words) for found in (child, *descendants(child))]


def alive(pid):
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
