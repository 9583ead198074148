"""A campaign: a run stopped at each of its steps, and gone on with, is the run that never stopped.

What a SIGKILL leaves is what is in the run's folder then, so one run is copied after each of its
steps, and each copy gone on with. Some stops are a SIGKILL of every rank, just after the state of
a step was kept or in the midst of keeping it. Compared to the bit: the record but for its cost,
the weights of the chosen epoch, and of the last step weights, average, optimiser and schedule.

Run: make faults-resume
"""

import copy
import functools
import gc
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

import sklearn.metrics  # noqa: F401  # by every run, so once before they are forked
import torch
from safetensors.torch import load_file

from clipbench.core import distributed, files, paths
from clipbench.core.config import schema
from clipbench.core.config.compose import compose
from clipbench.core.jobs import Job
from clipbench.loading.samplers import KeyedSampler
from clipbench.sweeps import worker
from clipbench.training import resume
from clipbench.training.callbacks import Recorder
from clipbench.training.run import execute
from tests.conftest import FEW, TINY, result_jsons

CHOICES = {"model": "timm", "dataset": "shapes", "strategy": "finetune"}
# Three epochs of four batches; BatchNorm, blocks that are dropped, an average of the weights,
# pictures that are cropped and mixed.
WORDS = (
    *(*TINY, *FEW, "dataset.shots=null", "dataset.subset=4", "batch_size=8", "epochs=3"),
    *("lr=1e-2", "ema=0.5", "augment=crop_flip", "augment.mixup=0.2", "logger=none"),
    *("callbacks=none", "ckpt.every_steps=1", "+model.options.drop_path_rate=0.3"),
)
STEPS = 12
PRECISIONS = ("32-true", "bf16-mixed")


class Killed(BaseException):
    """In place of SIGKILL, where the process is still needed."""


def die():
    """The end of a process that nothing can be done about."""
    os.kill(os.getpid(), signal.SIGKILL)


def stop(patch, step, place="step", end=die):
    """Have a run stopped.

    Args:
        patch: given an owner, a name and a value, sets it.
        step: after which.
        place: ``step``, when its state has been kept; ``saving``, before that is in its place;
            ``before``, when the callbacks have not seen the step.
        end: how.
    """
    plain_save, plain_end = resume.Resume._save, os.fsync
    plain_step = Recorder.on_train_batch_end
    reached = []

    def fsync(number):
        if reached and place == "saving":
            end()
        plain_end(number)

    def save(self, trainer, *rest):
        if trainer.global_step == step:
            reached.append(step)
        plain_save(self, trainer, *rest)
        if reached:
            end()

    def before(self, trainer, *rest):
        if trainer.global_step == step:
            end()
        plain_step(self, trainer, *rest)

    if place == "before":
        patch(Recorder, "on_train_batch_end", before)
    else:
        patch(resume.Resume, "_save", save)
        patch(files.os, "fsync", fsync)


def copies(patch, outputs, target):
    """Have a run copied each time that its state has been kept.

    Args:
        patch: see :func:`stop`.
        outputs: its outputs root.
        target: has a folder for each step then.
    """
    plain = resume.Resume._save

    def save(self, trainer, *rest):
        plain(self, trainer, *rest)
        if distributed.here.first:
            shutil.copytree(outputs, target / str(trainer.global_step))

    patch(resume.Resume, "_save", save)


def stock(patch):
    """As Lightning alone would go on: nobody tells the sampler where."""
    patch(KeyedSampler, "begin", lambda self, epoch, row: None)


def left(outputs):
    """All of a completed run that must be the same, by name; of another its error."""
    ((folder, record),) = result_jsons(outputs)
    if record["status"] != "completed":
        return {"record": record["error"]}
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    names = ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers")
    files = sorted(p.name for p in (folder / "checkpoints").iterdir())
    kept = {k: v for k, v in record.items() if k not in ("cost", "sha256", "git")}
    return {
        "record": json.dumps(kept),
        "files": files,
        "weights": load_file(folder / "model.safetensors"),
        "curve": (folder / "curve.csv").read_bytes(),
        **{name: last[name] for name in names if name in last},
    }


def same(one, other):
    """Whether two things are equal to the bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def here(outputs, words):
    """The job in this process."""
    os.environ["CLIPBENCH_OUTPUTS"] = str(outputs)
    gc.collect()  # the lock of a run that was stopped
    torch.manual_seed(0)  # a fresh process's random weights
    return execute(Job(copy.deepcopy(_composed(words)), CHOICES, list(words)))


@functools.cache
def _composed(words):
    return compose(*words)


def _rank(rank, world, port, outputs, words, hooks):
    os.register_at_fork(after_in_child=worker._die_with_parent)  # as a job's guard does
    if world > 1:
        place = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": world}
        place |= {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "LOCAL_WORLD_SIZE": world}
        os.environ.update({name: str(value) for name, value in place.items()})
        os.environ["TORCHELASTIC_RUN_ID"] = "resume"
        distributed.join(rank, world, 60)
    log = os.open(Path(outputs) / f"log-{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for hook, options in hooks:
        hook(setattr, **options)
    here(outputs, words)


def run(outputs, words, world, *hooks):
    """The job in processes of its own, and whether they were killed."""
    outputs.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    _composed(words)
    context = multiprocessing.get_context("fork")  # nothing is computed here, so that one may
    given = (outputs, words, hooks)
    started = [context.Process(target=_rank, args=(r, world, port, *given)) for r in range(world)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    return any(process.exitcode == -signal.SIGKILL for process in started)


def stopped(folder, words, world, step, place, *more):
    """What a run has left that was killed and gone on with, or None if it was not."""
    if not run(folder, words, world, (stop, {"step": step, "place": place}), *more):
        return None
    run(folder, words, world, *more)
    return left(folder)


def case(folder, words, world):
    """One run, gone on with from each of its steps; how many stops there were, and the bad ones."""
    copying = (copies, {"outputs": folder / "whole", "target": folder})
    run(folder / "whole", words, world, copying)
    whole, bad = left(folder / "whole"), {}
    steps = sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())
    assert steps == [*range(1, STEPS + 1)], steps
    for step in steps:
        run(folder / str(step), words, world)
        bad[f"step {step}"] = apart(whole, left(folder / str(step)))
    for step, place in ((5, "step"), (4, "saving"), (7, "saving")):
        found = stopped(folder / f"{place}{step}", words, world, step, place)
        bad[f"killed at {place} {step}"] = ["not killed"] if found is None else apart(whole, found)
    return len(bad), {name: parts for name, parts in bad.items() if parts}


def apart(whole, found):
    """The names of what is not the same, or why there is nothing."""
    if found.keys() < whole.keys():
        return [found["record"]]
    return [name for name in whole if not same(whole[name], found[name])]


def teeth(folder):
    """Whether it is seen when nobody tells the sampler where a run goes on, of three stops each."""
    words = (*WORDS, "dataset.workers=2")
    run(folder / "whole", words, 1)
    whole = left(folder / "whole")
    ways = [stopped(folder / str(k), words, 1, k, "step", (stock, {})) for k in (3, 6, 9)]
    return [not same(whole, found) for found in ways]


def main():
    """Print each case that is not as it must be, and the counts; exit 1 if there is any."""
    paths.register()
    schema.register()
    gc.freeze()
    stops = wrong = 0
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for world, loading, precision in itertools.product((1, 2), (0, 2), PRECISIONS):
            words = (*WORDS, f"dataset.workers={loading}", f"trainer.precision={precision}")
            name = f"{world} ranks, {loading} workers, {precision}"
            place = Path(folder) / name.replace(" ", "")
            count, bad = case(place, (*words, f"trainer.devices={world}"), world)
            stops, wrong = stops + count, wrong + len(bad)
            seconds = time.monotonic() - started
            print(f"{name}: {count - len(bad)} of {count} equal, {seconds:.0f} s", flush=True)
            for stop_name, parts in bad.items():
                print(f"  FAIL {stop_name}: {parts}", flush=True)
            shutil.rmtree(place)
        seen = teeth(Path(folder) / "teeth")
    print(f"{stops} stops, {stops - wrong} gone on with to the bit")
    print(f"as Lightning alone goes on: {sum(seen)} of {len(seen)} differ, as they must")
    return 0 if stops and not wrong and all(seen) else 1


if __name__ == "__main__":
    sys.exit(main())
