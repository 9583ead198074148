"""A campaign: every way for one of two ranks to go, wherever it is; the next job must run.

Run: make faults-ranks
"""

import itertools
import json
import sys
import tempfile
import time
from pathlib import Path

from tests.conftest import result_jsons
from tests.faults import CAUSES, Sweep, alive

TIMEOUT = 20  # seconds for which a rank waits for another
SLACK = 20  # and what a loaded machine takes to notice
CASES = list(
    itertools.product(
        *(("raise", "kill", "hang"), (0, 1), ("start", "training", "validation", "saving"))
    )
)


def watch(sweep, last):
    """When each job of a sweep was over, by seed, and who was left of it two seconds later."""
    ended, left = {}, {}
    while sweep.process.poll() is None and len(ended) < last:
        lines = [
            line
            for path in sweep.outputs.glob("sweeps/*/jobs.jsonl")
            for line in path.read_text().splitlines()
        ]
        for line in lines[len(ended) :]:
            seed = next(w for w in json.loads(line)["overrides"] if w.startswith("seed="))
            seed = int(seed.removeprefix("seed="))
            ended[seed] = time.time()
            pids = {note["pid"] for note in sweep.notes() if note["seed"] == seed}
            time.sleep(2)
            left[seed] = sorted(filter(alive, pids))
        time.sleep(0.1)
    return ended, left


def main():
    """Print each case and how it ended; exit 1 if any was not as it must be."""
    with tempfile.TemporaryDirectory() as folder:
        outputs, good = Path(folder), len(CASES) + 1
        seeds = ",".join(str(seed) for seed in range(1, good + 1))
        words = (f"seed={seeds}", "trainer.devices=2", f"rank_timeout={TIMEOUT}")
        sweep = Sweep(outputs, *words, faults=dict(enumerate(CASES, start=1)), shown=sys.stderr)
        ended, left = watch(sweep, good)
        sweep.wait()
        injected = {note["seed"]: note["time"] for note in sweep.notes() if "fault" in note}
        found = {record["seed"]: record for _, record in result_jsons(outputs)}
        right = 0
        for seed, (kind, rank, place) in enumerate(CASES, start=1):
            took = ended.get(seed, float("inf")) - injected.get(seed, float("-inf"))
            record = found.get(seed, {"status": "no record", "error": ""})
            cause = kind == "hang" or place == "start" or CAUSES[kind] in record["error"]
            fine = took < TIMEOUT + SLACK and not left[seed] and cause
            fine &= record["status"] != "completed"
            right += fine
            print(
                f"{'ok  ' if fine else 'FAIL'} {kind:5} rank {rank} {place:10} "
                f"ended after {took:4.1f} s, {len(left.get(seed, []))} left, "
                f"{record['status']}: {record['error']}"
            )
        completed = found.get(good, {}).get("status") == "completed"
        print(f"{len(injected)} injected, {right} as they must be; the job after: {completed}")
        return 0 if completed and right == len(injected) == len(CASES) else 1


if __name__ == "__main__":
    sys.exit(main())
