"""Breaks runs: Python reads this file as it starts, where PYTHONPATH has this folder.

Nothing in the product knows of it. $CLIPBENCH_FAULTS says by the seed of a run what goes wrong, as
JSON: {"3": ["raise", 0, "training"]} is an exception in rank 0 of the run with seed=3 at its first
training step. What was done is noted in $CLIPBENCH_FAULTS_LOG, line by line: a fault that was not
injected proves nothing.
"""

import ctypes
import json
import os
import signal
import sys
import time

KINDS = {
    "raise": lambda: _raise(RuntimeError("a fault of the test")),
    "exit": lambda: sys.exit(3),
    "memory": lambda: _raise(MemoryError("no memory left")),
    "segfault": lambda: ctypes.string_at(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "term": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "hang": lambda: time.sleep(1e6),
}


def _raise(error):
    raise error


def note(**words):
    """A line in the log; short enough to be written in one."""
    with open(os.environ["CLIPBENCH_FAULTS_LOG"], "a") as file:  # noqa: PTH123
        file.write(json.dumps({**words, "pid": os.getpid(), "time": time.time()}) + "\n")


def install():
    """Wrap what a run goes through."""
    from pytorch_lightning import Trainer

    from clipbench.core import distributed
    from clipbench.training import run as training_run
    from clipbench.training.callbacks import Recorder
    from clipbench.training.checkpoint_io import AtomicCheckpointIO

    faults = json.loads(os.environ["CLIPBENCH_FAULTS"])
    run = {"seed": None}

    def reach(place):
        kind, rank, where = faults.get(str(run["seed"]), ("", 0, ""))
        if (rank, where) == (distributed.here.rank, place):
            note(seed=run["seed"], rank=rank, place=place, fault=kind)
            KINDS[kind]()

    def before(owner, name, act):
        plain = getattr(owner, name)

        def wrapped(self, *args, **kwargs):
            act(self, *args)
            return plain(self, *args, **kwargs)

        setattr(owner, name, wrapped)

    plain_resolve = training_run.resolve

    def resolve(job):
        run["seed"] = job.config["seed"]
        note(seed=run["seed"], rank=distributed.here.rank, place="begun")
        reach("start")
        return plain_resolve(job)

    def trains(self, trainer, module, outputs, batch, number):
        seen = [int(i) for i in batch["index"]]
        note(
            **{"seed": run["seed"], "rank": distributed.here.rank, "world": distributed.here.world},
            **{"epoch": trainer.current_epoch, "batch": number, "index": seen},
        )
        reach("training")

    def saves(self, *args):
        if not distributed.here.first:
            reach("saving")

    training_run.resolve = resolve
    before(Recorder, "on_train_batch_end", trains)
    before(Recorder, "on_validation_start", lambda *args: reach("validation"))
    before(Trainer, "save_checkpoint", saves)
    before(AtomicCheckpointIO, "save_checkpoint", lambda *args: reach("saving"))


if "CLIPBENCH_KEEPING" in os.environ:  # so that no test waits for long
    from clipbench.sweeps import launcher

    launcher.KEEPING = float(os.environ["CLIPBENCH_KEEPING"])

# Only in the process that the jobs are forked from.
if any("forkserver" in word for word in sys.orig_argv):
    if "CLIPBENCH_HOLD" in os.environ:
        import holding
        import stock

        holding.install()
        if "CLIPBENCH_STOCK" in os.environ:
            stock.install()
    elif "CLIPBENCH_FAULTS" in os.environ:
        install()
