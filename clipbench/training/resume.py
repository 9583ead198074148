"""Where an interrupted run goes on, to the bit: its whole state, kept apart from the best.

What is random is a function of the seed and of where the run is (see
:mod:`clipbench.loading.dataset`), so no generator's state is kept.
"""

import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from clipbench.core import distributed, paths
from clipbench.core.config.option_files import Node
from clipbench.core.console import console, warn
from clipbench.core.errors import UserError
from clipbench.core.locking import LOCK
from clipbench.reporting.tensorboard import events
from clipbench.results import identity as identity_module
from clipbench.results import store
from clipbench.results.identity import Identity
from clipbench.results.record import RunRecord
from clipbench.training import checkpoint_io, lightning_internals

_KEPT = 2
_DATA = {"data": "sha256", "content": "content"}  # of an identity, in a record


@dataclass(frozen=True)
class ResumePoint:
    """Where in a run its state was kept.

    Attributes:
        key: of the run.
        step: optimiser steps taken.
        epoch: that comes next, or goes on; the first is 0.
        batch: of that epoch, that comes next.
        ended: whether training had come to its end there, as by early stopping.
        seconds: that the run had taken.
        shown: how far TensorBoard's files had been written.
    """

    key: str
    step: int
    epoch: int
    batch: int
    ended: bool
    seconds: float
    shown: events.Mark | None = None

    def path(self, folder: Path) -> Path:
        """Its file in a run's folder."""
        return folder / "checkpoints" / f"resume-{self.step:08d}.ckpt"


class Resume(Checkpoint):
    """Keeps the whole state after each epoch and every so many steps, and when SIGTERM comes.

    It is the last of the callbacks, as Lightning has it: the others have done what they do at a
    step, or at an epoch's end, and their state is kept with the rest.

    Args:
        folder: the run's.
        key: likewise.
        started: when the run began, by ``time.perf_counter``.
        every_steps: null for epochs alone.
        begin: where this run goes on.
    """

    def __init__(
        self,
        folder: Path,
        key: str,
        started: float,
        every_steps: int | None = None,
        begin: ResumePoint | None = None,
    ) -> None:
        self.folder, self.key, self.started = folder, key, started
        self.every_steps, self.begin = every_steps, begin
        self.signal: int | None = None
        self._before: Any = None

    def on_load_checkpoint(self, trainer: Trainer, module: Any, checkpoint: Any) -> None:
        """Not to train on after an early end, which Lightning forgets."""
        trainer.should_stop = self.begin is not None and self.begin.ended

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on SIGTERM waits for the end of a step."""
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._came)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """To here."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
            self._before = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: Any) -> None:
        """To here; a loader's worker that a cluster has ended too is no fault of the run."""
        self.teardown(trainer, pl_module, "fit")
        if self.signal is not None and not isinstance(exception, UserError):
            raise self._interrupted(trainer, self.signal, "in the step after") from exception

    def _came(self, number: int, frame: Any) -> None:
        self.signal = number

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """In the midst of an epoch; its end has a hook of its own, after validation."""
        last = trainer.is_last_batch or trainer.global_step == pl_module.last_step
        if last or trainer.should_stop:
            return
        stop = distributed.any_of(self.signal is not None)
        due = self.every_steps is not None and trainer.global_step % self.every_steps == 0
        if due or stop:
            batch = lightning_internals.batches_seen(trainer)
            self._save(trainer, trainer.current_epoch, batch)
        self._end(trainer, stop)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Between two epochs."""
        self._save(trainer, trainer.current_epoch + 1, 0)
        self._end(trainer, distributed.any_of(self.signal is not None))

    def _end(self, trainer: Trainer, stop: bool) -> None:
        if stop:
            raise self._interrupted(trainer, self.signal or signal.SIGTERM, "after")

    def _interrupted(self, trainer: Trainer, number: int, when: str) -> UserError:
        name, step = signal.Signals(number).name, trainer.global_step
        going = "there" if when == "after" else "where its state was last kept"
        return UserError(
            f"{name} {when} step {step}; the same command goes on from {going}",
            status="interrupted",
            signal=number,
        )

    def _save(self, trainer: Trainer, epoch: int, batch: int) -> None:
        seconds = time.perf_counter() - self.started
        step, ended = trainer.global_step, trainer.should_stop
        shown = events.mark(self.folder, trainer.loggers) if distributed.here.first else None
        point = ResumePoint(self.key, step, epoch, batch, ended, seconds, shown)
        trainer.save_checkpoint(point.path(self.folder), storage_options=asdict(point))
        if distributed.here.first:
            for path in _newest_first(self.folder)[_KEPT:]:
                path.unlink(missing_ok=True)


def _newest_first(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoints").glob("resume-*.ckpt"), reverse=True)


def clear(folder: Path) -> None:
    """Of a run that is completed nothing will go on."""
    for path in _newest_first(folder):
        path.unlink(missing_ok=True)


def prepare(
    folder: Path, key: str, identity: Identity, requested: str | None
) -> ResumePoint | None:
    """Return where to go on, which an unfinished run has left here or elsewhere.

    Args:
        folder: of this run; emptied where there is no such place.
        key: likewise.
        identity: likewise.
        requested: ``ckpt.resume``: ``auto``, None, or a run's folder or file to go on from.

    Raises:
        UserError: see :func:`bring`.
    """
    point, record = None, store.read(folder)
    if requested is not None and (record is None or record.status == "interrupted"):
        point = newest(folder, key)
    if point is None and requested not in (None, "auto"):
        point = bring(requested, folder, key, identity)
    if point is None:
        _empty(folder)
    else:
        at = f"epoch {point.epoch}, step {point.step}"
        events.back_to(folder, point.shown)
        console.print(f"going on where it was interrupted: {at}", highlight=False)
    for place in (folder, folder / "checkpoints"):
        checkpoint_io.sweep(place)
    return point


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def newest(folder: Path, key: str) -> ResumePoint | None:
    """Where a run can go on; what is damaged, or another run's, is passed over and named.

    Args:
        folder: the run's.
        key: likewise.
    """
    paths = _newest_first(folder)
    for path in paths:
        try:
            point = ResumePoint(**checkpoint_io.verified(path))
            if point.key != key:
                raise checkpoint_io.Damaged(f"it is of another run, {point.key}")
            return point
        except (checkpoint_io.Damaged, TypeError) as why:
            _say(f"{path} is passed over: {why}")
    if paths:
        _say("no checkpoint is left to go on from; the run begins anew")
    return None


def _say(text: str) -> None:
    warn(text)


def bring(source: str, folder: Path, key: str, identity: Identity) -> ResumePoint:
    """Go on here with what a run left elsewhere: ``ckpt.resume=PATH``.

    Args:
        source: the folder of a run, or one of its ``checkpoints/resume-*.ckpt``.
        folder: of this run.
        key: likewise.
        identity: likewise.

    Raises:
        UserError: if there is nothing to go on from, or it is a run that differs in anything that
            can change a result.
    """
    path = paths.expanded(source)
    run = path.parent.parent if path.is_file() else path
    found = [path] if path.is_file() else _newest_first(path)
    if not found:
        raise UserError(
            f"ckpt.resume={source} has no checkpoints/resume-*.ckpt; use a run's folder"
        )
    keys = set()
    for checkpoint in found:
        try:
            keys.add(ResumePoint(**checkpoint_io.verified(checkpoint)).key)
        except (checkpoint_io.Damaged, TypeError) as why:
            _say(f"{checkpoint} is passed over: {why}")
    if not keys:
        raise UserError(f"ckpt.resume={source} has no checkpoint that is whole")
    if keys != {key}:
        told = ", ".join(_differing(store.read(run), identity)) or f"its key is {min(keys)}"
        raise UserError(
            f"ckpt.resume={source} is another run: {told}; go on with the same values, or use "
            "model.pretrained= for its weights alone"
        )
    target = folder / "checkpoints"
    if run.resolve() != folder.resolve():
        _empty(folder)
        target.mkdir()
        for other in run.glob("checkpoints/*.ckpt"):
            if other in found or not other.name.startswith("resume-"):
                shutil.copyfile(other, target / other.name)
    point = newest(folder, key)
    assert point is not None
    return point


def _differing(record: RunRecord | None, identity: Identity) -> Iterator[str]:
    """Yield what of another run's identity is not as it is here."""
    if record is None:
        return
    config, devices = record.config, record.environment
    resolved = {name: devices.get(name, own) for name, own in config["trainer"].items()}
    known = identity_module.identity({**config, "trainer": resolved})["config"]
    theirs, ours = (dict(_flat(node)) for node in (known, identity["config"]))
    # What a strategy ignores is in a config alone; a file of weights counts by its content.
    for name in sorted(theirs.keys() & ours.keys() - {"model.pretrained"}):
        if theirs[name] != ours[name]:
            yield f"{name}={theirs[name]} there and {ours[name]} here"
    for what, key in (("labels", "data"), ("images", "content")):
        here = identity.get(key, {})
        there = {name: getattr(split, _DATA[key]) for name, split in record.data.items()}
        others = [name for name in here if there.get(name) != here[name]]
        if others:
            yield f"the {what} of {', '.join(others)} are not those here"


def _flat(node: Node, above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield above + name, value
