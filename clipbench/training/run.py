"""One run, whole: from a job to how it ended."""

import contextlib
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from clipbench.core import distributed, environment
from clipbench.core.errors import Damaged, UserError
from clipbench.core.jobs import Job, Outcome
from clipbench.training.build import Training
from clipbench.training.spec import Run


def execute(job: Job, tell: Callable[[Outcome], Any] = lambda _: None) -> Outcome:
    """Run a job to its end, whatever that is; in several ranks at once if it has several.

    Args:
        job: what to do.
        tell: given a word as soon as the run has its folder.
    """
    environment.quiet()
    run: Run | None = None
    status, error, details = "failed", "", list[str]()
    number: int | None = None
    again = False
    try:
        run = distributed.first_goes_first(lambda: Run(job))
        distributed.agree("config", run.key)
        if (before := distributed.from_first(run.decide)) is not None:
            return before
        done = Outcome("completed", key=run.key, folder=str(run.folder))
        run.open()
        tell(replace(done, status="running"))
        Training(run)()
        run.close()
        return done
    except UserError as refused:
        status, error, details = refused.status, str(refused), refused.details
        number = refused.signal
        again = isinstance(refused, Damaged) and run is not None and run.distrust()
    except SystemExit as left:
        error = f"something called sys.exit({left.code})"
    except Exception as bug:
        traceback.print_exc()
        error = f"{type(bug).__name__}: {bug}"
    if run is None or not run.record:
        return Outcome(status, error=error, details=details)
    run.record |= {"status": status, "error": error}
    with contextlib.suppress(UserError):  # a disk that is full has the record as it was before
        run.write()
    run.close()
    ended = Outcome(status, key=run.key, folder=str(run.folder), error=error, details=details)
    return replace(ended, signal=number, again=again)
