"""Holds a run still where it is to be killed, and notes how far it has come, for the campaign.

Read by sitecustomize.py where $CLIPBENCH_HOLD names a file: a run that comes to the place written
in there notes so and waits for its end.
"""

import os
import stat
import time
from contextlib import contextmanager
from pathlib import Path

from sitecustomize import note


class Progress:
    """What a run is doing, told line by line, and where it is held."""

    def __init__(self):
        self.hold, self.seed, self.phase = Path(os.environ["CLIPBENCH_HOLD"]), None, "begun"

    def tell(self, phase, **more):
        self.phase = phase
        note(seed=self.seed, phase=phase, **more)

    def reach(self, place, first=lambda: None):
        """Wait for the end if this is the place; what is done before that."""
        if self.hold.read_text() == place:
            first()
            note(seed=self.seed, phase=self.phase, held=place)
            time.sleep(1e6)

    @contextmanager
    def within(self, phase):
        before = self.phase
        self.tell(phase)
        self.reach(f"{phase} begins")
        yield
        self.tell(before)


def install():
    """Wrap what a run goes through."""
    from clipbench.results import store
    from clipbench.training import checkpoint_io
    from clipbench.training import run as training_run
    from clipbench.training.callbacks import Recorder
    from clipbench.training.module import FineTuningModule

    run = Progress()
    plain_fsync, plain_replace = os.fsync, Path.replace
    plain_resolve, plain_look = training_run.resolve, FineTuningModule.validation_step
    plain_step = Recorder.on_train_batch_end

    def resolve(job):
        run.seed, run.phase = " ".join(job.overrides), "begun"
        run.tell("begun")
        return plain_resolve(job)

    def steps(self, trainer, *rest):
        plain_step(self, trainer, *rest)
        run.tell("training", step=trainer.global_step)
        run.reach("training")

    def looks(self, *rest):
        run.tell("validation")
        run.reach("validation")
        plain_look(self, *rest)

    def fsync(number):
        about = os.fstat(number)
        if run.phase in ("saving", "recording") and stat.S_ISREG(about.st_mode):
            # What a write leaves that was killed halfway.
            run.reach(f"{run.phase} half", lambda: os.ftruncate(number, about.st_size // 2))
            run.reach(f"{run.phase} before fsync")
        plain_fsync(number)

    def replace(self, target):
        run.reach(f"{run.phase} before replace")
        found = plain_replace(self, target)
        run.reach(f"{run.phase} after replace")
        return found

    def during(owner, name, phase):
        plain = getattr(owner, name)

        def wrapped(*args, **kwargs):
            with run.within(phase):
                return plain(*args, **kwargs)

        setattr(owner, name, wrapped)

    during(checkpoint_io, "write", "saving")
    during(store, "write", "recording")
    training_run.resolve, FineTuningModule.validation_step = resolve, looks
    Recorder.on_train_batch_end = steps
    os.fsync, Path.replace = fsync, replace
