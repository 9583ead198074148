"""What a command and the processes of its jobs exchange: plain data."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from clipbench.core import paths
from clipbench.core.config.option_files import Config


@dataclass(frozen=True)
class Node:
    """One of the machines of a job.

    Attributes:
        rank: from 0.
        count: how many there are.
        meeting: host and port of the first machine.
    """

    rank: int
    count: int
    meeting: str


@dataclass(frozen=True)
class Job:
    """What the command line asked for, as plain data that crosses a process boundary.

    Attributes:
        config: the resolved config.
        choices: the option typed for each config group.
        overrides: as typed.
        outputs: the outputs root; the fork server's environment may be older than this job.
        retry: whether to run what failed before.
        at_once: how many jobs run at once on the machine.
        environment: variables of this job, such as its GPU.
        node: which of several machines this is; None for a single one.
        asked: when the job was requested, in seconds since the epoch.
    """

    config: Config
    choices: dict[str, str]
    overrides: list[str]
    outputs: Path = field(default_factory=paths.outputs)
    retry: bool = True
    at_once: int = 1
    environment: dict[str, str] = field(default_factory=dict)
    node: Node | None = None
    asked: float = field(default_factory=time.time)


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        status: ``completed``, ``failed``, ``interrupted`` or ``diverged``; ``elsewhere`` while
            another launcher runs it.
        key: of the run, or None if the job was refused before it had one.
        folder: the run's.
        error: the cause in one line.
        details: further lines, such as one for each bad image.
        before: True if the run ended so in an earlier command.
        signal: the one that interrupted it.
        violent: whether a signal ended one of its processes.
        note: in what the run of an earlier command differs from this one; None if in nothing.
        again: whether to start again at once, without an image that could not be decoded.
    """

    status: str
    key: str | None = None
    folder: str | None = None
    error: str | None = None
    details: list[str] = field(default_factory=list)
    before: bool = False
    signal: int | None = None
    violent: bool = False
    note: str | None = None
    again: bool = False

    @property
    def code(self) -> int:
        """The exit code: 0, 1, or 128 plus the signal's number."""
        return 128 + self.signal if self.signal else int(self.status != "completed")
