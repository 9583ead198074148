"""One run, from a job to how it ended; read it from the top."""

import traceback
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Any

from clipbench.core import distributed, environment
from clipbench.core.errors import Damaged, UserError
from clipbench.core.jobs import Job, Outcome
from clipbench.training.artifacts import write_artifacts
from clipbench.training.build import build
from clipbench.training.evaluation import evaluate
from clipbench.training.fit import fit
from clipbench.training.run_folder import RunFolder
from clipbench.training.spec import RunSpec, resolve


def execute(job: Job, notify: Callable[[Outcome], Any] = lambda _: None) -> Outcome:
    """Run a job, and return how it ended, whatever goes wrong; every rank of a job calls this.

    ``notify`` is called with the outcome ``running`` as soon as the run has its folder.
    """
    environment.quiet()
    with Attempt() as attempt:
        with distributed.rank_zero_first():
            attempt.spec = spec = resolve(job)
        distributed.check_agreement("config", spec.key)
        folder = RunFolder.claim(spec)
        if isinstance(folder, Outcome):  # completed before, or another process is at it
            return folder
        attempt.folder = folder
        record, resume_from = folder.open()
        notify(folder.outcome("running"))
        parts = build(spec, folder, resume_from)
        fitted = fit(parts, record, resume_from)
        evaluation = evaluate(parts, record, fitted)
        write_artifacts(parts, record, fitted, evaluation)
        return folder.complete()
    return attempt.failure


class Attempt:
    """What is known of a run, so that whatever ends it is recorded and becomes its outcome.

    ``failure`` is the outcome after an exception.
    """

    def __init__(self) -> None:
        self.spec: RunSpec | None = None
        self.folder: RunFolder | None = None

    def __enter__(self) -> "Attempt":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        """Turn an exception into the outcome; let pass what is meant for the process."""
        if isinstance(error, UserError):
            again = isinstance(error, Damaged) and self.spec and self.spec.distrust_images()
            ended = self._ended(error.status, str(error))
            self.failure = replace(ended, details=error.details)
            if ended.folder is not None:
                self.failure = replace(self.failure, signal=error.signal, again=bool(again))
        elif isinstance(error, SystemExit):
            self.failure = self._ended("failed", f"something called sys.exit({error.code})")
        elif isinstance(error, Exception):
            traceback.print_exception(error)
            self.failure = self._ended("failed", f"{kind.__name__}: {error}" if kind else "")
        else:
            return False
        return True

    def _ended(self, status: str, error: str) -> Outcome:
        if self.folder is None or not self.folder.record.key:
            return Outcome(status, error=error)
        return self.folder.fail(status, error)
