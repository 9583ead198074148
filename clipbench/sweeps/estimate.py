"""How long a sweep will take."""

from collections.abc import Sequence

from clipbench.core.console import duration
from clipbench.core.jobs import Job
from clipbench.results import identity, store


def headline(jobs: Sequence[Job], at_once: int | None) -> str:
    """Return how many jobs there are and are done, and how long the others may take."""
    known = [record for _, record in store.records(jobs[0].outputs)]
    known = [r for r in known if r.completed and identity.current(r)]
    done = [
        next((r for r in known if identity.answers(r, job.config)), None)
        for job in jobs
        if job.config["ckpt"]["resume"] is not None
    ]
    seconds = [record.cost.seconds for record in done if record is not None]
    return expected("jobs", len(jobs), seconds, at_once)


def expected(what: str, total: int, seconds: Sequence[float], at_once: int | None) -> str:
    """Return how many there are and are done, and the time that the others may take.

    Args:
        what: is counted, such as ``jobs``.
        total: how many.
        seconds: that each finished one took.
        at_once: how many run at a time; None if unknown, as on a cluster.
    """
    left, text = total - len(seconds), f"{total} {what}, {len(seconds)} of them done"
    if not seconds or left <= 0:
        return text
    mean = sum(seconds) / len(seconds)
    if at_once is None:
        return f"{text}; {duration(mean)} for each of the others, if it takes as long"
    rounds = -(-left // at_once)
    return f"{text}; {duration(rounds * mean)} for the others, if they take as long"
