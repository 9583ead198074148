"""Which runs a sweep asked for."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from clipbench.core.jobs import Outcome
from clipbench.results import store
from clipbench.results.record import Row, RunRecord


def sweep_runs(sweep: Path) -> tuple[list[tuple[Path, RunRecord]], list[Row]]:
    """Return the runs that a sweep's ``jobs.jsonl`` lists, each once, and jobs without a result.

    A record of a run gets what its job typed, as ``typed``.
    """
    lines = (sweep / "jobs.jsonl").read_text().splitlines()
    jobs = {json.dumps(job["overrides"]): job for job in map(json.loads, lines)}
    done = {job["folder"]: job for job in jobs.values() if job["status"] == "completed"}
    read = [(Path(folder), store.read(Path(folder)), job) for folder, job in done.items()]
    # One that was completed by other words, as by retry=failed, has not failed.
    rest = [job for job in jobs.values() if job["status"] != "completed"]
    failed = [job for job in rest if job.get("folder") not in done]
    return [
        (folder, replace(record, typed=dict(w.split("=", 1) for w in job["overrides"] if "=" in w)))
        for folder, record, job in read
        if record is not None
    ], failed


def append(sweep: Path, outcome: Outcome, overrides: Sequence[str]) -> None:
    """Add the outcome of a job to a sweep's ``jobs.jsonl``.

    Args:
        sweep: its folder.
        outcome: of the job.
        overrides: as typed.
    """
    line = {
        **{"key": outcome.key, "status": outcome.status, "folder": outcome.folder},
        **{"error": outcome.error, "overrides": [*overrides], "code": outcome.code},
    }
    with (sweep / "jobs.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
