"""A campaign: a sweep killed again and again comes to the table of the one that never was.

Each kill is a SIGKILL, of the process group of the job at work or of the launcher, at a random
moment of its progress or while it is held at a place in validation, saving or recording; then the
same command is given again. The same against Lightning's own checkpoints must be seen to fail.

Run: make faults, or make faults-quick
"""

import contextlib
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

from tests.conftest import result_jsons
from tests.faults import Sweep, alive, descendants

# Twelve jobs; losses in the table, so that it tells the last bit.
WORDS = (
    *("seed=1,2,3", "freeze_depth=0,all", "ema=null,0.5", "lr=1e-2", "monitor=loss"),
    *("dataset.subset=4", "dataset.shots=null", "batch_size=8", "augment=crop_flip"),
    *("dataset.workers=1", "ckpt.every_steps=2", "callbacks=none", "logger=none"),
)
JOBS = 12
PHASES = ("training", "validation", "saving", "recording")
_WRITING = ("half", "before replace", "after replace", "before fsync", "begins")
PLACES = [
    place
    for where in _WRITING
    for place in ("validation", "training", f"saving {where}", f"recording {where}")
]


@dataclass(frozen=True)
class Kill:
    """A SIGKILL to be: of whom, after how many lines of progress, where, or else how much later."""

    whom: str
    after: int
    place: str | None
    delay: float


def plan(count, random_share=0.3, seed=0):
    """Kills of both kinds, at random moments and at every place in turn."""
    draw = random.Random(seed)
    at_random = round(count * random_share)
    places = [None] * at_random + [PLACES[n % len(PLACES)] for n in range(count - at_random)]
    draw.shuffle(places)
    return [
        Kill(whom, draw.randint(2, 20), place, draw.uniform(0, 0.3))
        for whom, place in zip(["job", "launcher", "job"] * count, places, strict=False)
    ]


def stock_plan(count):
    """Kills of jobs at work in the midst of an epoch, which is all that Lightning needs."""
    return [Kill("job", 9 + n % 3, "training", 0.0) for n in range(max(3, count // 5))]


def settled(outputs):
    """Of each completed job its record's time, place on disk and content."""
    found = {}
    for folder, record in result_jsons(outputs):
        if record["status"] == "completed":
            path = folder / "result.json"
            about = path.stat()
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found[record["key"]] = (about.st_mtime_ns, about.st_ino, digest)
    return found


class Campaign:
    """A sweep in a folder, and what was done to it.

    Args:
        outputs: the outputs root.
        epochs: of each job.
        stock: with Lightning's own checkpoints.
    """

    def __init__(self, outputs, epochs, stock=False):
        self.outputs, self.words = outputs, (*WORDS, f"epochs={epochs}")
        outputs.mkdir(parents=True)
        self.log, self.hold = outputs / "faults.jsonl", outputs / "hold.txt"
        self.hold.write_text("")
        self.env = {"CLIPBENCH_HOLD": str(self.hold), **({"CLIPBENCH_STOCK": "1"} if stock else {})}
        self.killed, self.wrong, self.done, self.jobs = [], [], {}, set()
        self.commands = 0

    def run(self, kills=(), *more):
        """Give the command again and again, until there is nothing to kill nor to do.

        Args:
            kills: one after the other.
            more: words of the command.
        """
        left, struck, code = list(kills), True, None
        while code != 0 and struck:  # one that was left alone has ended as it will
            self.commands += 1
            before = len(left)
            with (self.outputs / f"said-{self.commands}.txt").open("w") as said:
                sweep = Sweep(self.outputs, *self.words, *more, shown=said, **self.env)
                while left and self._strike(sweep.process, left[0]):
                    left.pop(0)
                code = sweep.process.wait(900)
            struck = len(left) < before
            self._look(code)
        if left:
            self.wrong.append(f"{len(left)} kills were left over")
        if code != 0:
            self.wrong.append(f"the last command ended with {code}")

    def struck(self):
        """The keys of the jobs that were killed."""
        lines = [
            json.loads(line)
            for path in self.outputs.glob("sweeps/*/jobs.jsonl")
            for line in path.read_text().splitlines()
        ]
        return {line["key"] for line in lines if " ".join(line["overrides"]) in self.jobs}

    def _strike(self, launcher, kill):
        """Kill when it is time; False if the command has ended before."""
        begun = self.log.stat().st_size if self.log.is_file() else 0
        while (note := self._reached(kill, self.notes(begun))) is None:
            if launcher.poll() is not None:
                self.hold.write_text("")
                return False
            time.sleep(0.02)
        if kill.place is None:
            time.sleep(kill.delay)
        group = _group(note["pid"])
        if group is None:  # it has just ended
            return self._strike(launcher, kill)
        family = descendants(launcher.pid)
        job = [pid for pid in family if _group(pid) == group]
        if kill.whom == "launcher":
            launcher.kill()
            launcher.wait()
        else:
            family = job
            os.killpg(group, signal.SIGKILL)
        self.hold.write_text("")
        # The fork server takes down all libraries when the last of its children has gone.
        for command in (*_outlive(job, 5), *_outlive(family, 30)):
            self.wrong.append(f"{command} outlives {kill}")
        last = [n for n in self.notes(begun) if n["pid"] == note["pid"]][-1]
        self.killed.append((kill, last["phase"]))
        self.jobs.add(last["seed"])
        self._look()
        return True

    def _reached(self, kill, notes):
        """The line of progress at which to kill; None before."""
        late = len(notes) >= kill.after
        if kill.place is None:
            return notes[-1] if late else None
        if late and not self.hold.read_text():
            self.hold.write_text(kill.place)
        return next((note for note in notes if note.get("held") == kill.place), None)

    def notes(self, begun=0):
        """The lines of progress since the log had a size."""
        if not self.log.is_file():
            return []
        with self.log.open("rb") as file:
            file.seek(begun)
            whole = file.read().rpartition(b"\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def _look(self, code=None):
        """Whether what was completed is as it was, and the command's exit code is right."""
        now = settled(self.outputs)
        changed = [key for key, about in self.done.items() if now.get(key) != about]
        self.wrong += [f"{key} was completed and has changed" for key in changed]
        self.done = now | self.done
        right = {None, 0 if len(now) == JOBS else 128 + signal.SIGKILL, -signal.SIGKILL}
        if code not in right:
            self.wrong.append(f"command {self.commands} ended with {code}")


def _group(pid):
    with contextlib.suppress(ProcessLookupError):
        return os.getpgid(pid)
    return None


def _outlive(family, seconds):
    """What processes are there so much later."""
    deadline = time.monotonic() + seconds
    while any(map(alive, family)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return [_command(pid) for pid in family if alive(pid)]


def _command(pid):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:100]
    return "what has just ended"


def left(outputs):
    """The last table, and of each job all that must be the same, by name."""
    last = max(path.name for path in outputs.glob("sweeps/*"))
    paths = sorted((outputs / "tables").glob(f"sweep_{last}*"))
    found = {
        path.name.replace(last, ""): path.read_bytes()
        for path in paths
        if path.suffix in (".csv", ".md", ".tex") and "_cost" not in path.name
    }
    for folder, record in result_jsons(outputs):
        kept = {k: v for k, v in record.items() if k not in ("cost", "sha256", "git")}
        name = record["key"]
        files = [
            str(p.relative_to(folder)) for p in folder.rglob("*") if "stock" not in p.parts[-2:]
        ]
        found[f"record of {name}"] = json.dumps(kept)
        found[f"files of {name}"] = sorted(files)
        if record["status"] != "completed":  # as Lightning's may not
            continue
        for file in ("logits.npy", "predictions.parquet", "curve.csv"):
            found[f"{file} of {name}"] = (folder / file).read_bytes()
        with safe_open(folder / "model.safetensors", "np") as weights:
            parts = {part: weights.get_tensor(part).tobytes() for part in weights.keys()}  # noqa: SIM118
        found[f"weights of {name}"] = parts
    return found


def differing(whole, found):
    """The names of what is not the same, or not there."""
    return sorted(n for n in whole.keys() | found.keys() if whole.get(n) != found.get(n))


def told(campaign, whole, seconds):
    """Print how a campaign ended; what is not as in the sweep that was left alone."""
    found = left(campaign.outputs)
    rows = found["sweep_.csv"].decode().splitlines()[1:]
    keys = {row.rpartition(",")[2] for row in rows}
    if not len(rows) == len(keys) == JOBS:
        campaign.wrong.append(f"{len(keys)} jobs in {len(rows)} rows")
    for number, (kill, phase) in enumerate(campaign.killed, start=1):
        print(f"  {number}: {kill.whom}, {kill.place or 'at random'}: in {phase}")
    phases = Counter(phase for _, phase in campaign.killed)
    whom = Counter(kill.whom for kill, _ in campaign.killed)
    counts = [f"{n} {what}" for part in (whom, phases) for what, n in sorted(part.items())]
    print(f"{campaign.outputs.name}: {len(campaign.killed)} kills, {campaign.commands} commands")
    print(f"  {', '.join(counts)}")
    steps = [(n["seed"], n["step"]) for n in campaign.notes() if "step" in n]
    print(f"  {len(steps)} steps, {len(steps) - len(set(steps))} of them taken again")
    print(f"  {seconds:.0f} s, table {hashlib.sha256(found['sweep_.csv']).hexdigest()[:16]}")
    for fault in campaign.wrong:
        print(f"  {fault}")
    return differing(whole, found)


def main(count):
    """Print what was done and how it ended; exit 1 if it was not as it must be."""
    epochs = 3 if count < 50 else 8
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        alone = Campaign(Path(folder) / "alone", epochs)
        alone.run((), "hydra/launcher=parallel", "hydra.launcher.at_once=2")
        whole = left(alone.outputs)
        told(alone, whole, time.monotonic() - started)
        ours = Campaign(Path(folder) / "killed", epochs)
        theirs = Campaign(Path(folder) / "stock", epochs, stock=True)
        started = time.monotonic()
        ours.run(plan(count))
        apart = told(ours, whole, time.monotonic() - started)
        for name in apart:
            print(f"  not the same: {name}")
        started = time.monotonic()
        theirs.run(stock_plan(count))
        seen = told(theirs, whole, time.monotonic() - started)
        unlike = {name.rpartition(" ")[2] for name in seen if " of " in name}
        blamed = unlike <= theirs.struck() and "sweep_.csv" in seen
        print(f"with Lightning's checkpoints: {len(unlike)} jobs of {JOBS} differ, as they must")
    phases = Counter(phase for _, phase in ours.killed)
    enough = len(ours.killed) == count and min(phases[p] for p in PHASES) >= count // 10
    return 0 if enough and not (alone.wrong or ours.wrong or apart) and blamed else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
