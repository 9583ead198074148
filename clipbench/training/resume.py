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

_NEWEST = 2  # files that are kept
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


@dataclass(eq=False)
class Resume(Checkpoint):
    """Keeps the whole state after each epoch and every so many steps, and when SIGTERM comes.

    It is the last of the callbacks, as Lightning has it: the others have done what they do at a
    step, or at an epoch's end, and their state is kept with the rest. It joins them after Hydra has
    built the Trainer, since Hydra would take a dataclass for a config.

    Attributes:
        started: when the run began, by ``time.perf_counter``.
        every_steps: None for epochs alone.
        resumed: where this run goes on.
        signal: that has come during a step.
    """

    folder: Path
    key: str
    started: float
    every_steps: int | None = None
    resumed: ResumePoint | None = None
    signal: int | None = None
    _before: Any = None

    def on_load_checkpoint(self, trainer: Trainer, module: Any, checkpoint: Any) -> None:
        """Train no further after an early end, which Lightning forgets."""
        trainer.should_stop = self.resumed is not None and self.resumed.ended

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let SIGTERM wait for the end of a step from here on."""
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._came)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let SIGTERM end the process again."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
            self._before = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: Any) -> None:
        """Do the same; a loader's worker that a cluster ended too is not the run's fault."""
        self.teardown(trainer, pl_module, "fit")
        if self.signal is not None and not isinstance(exception, UserError):
            raise self._interrupted(trainer, self.signal, "in the step after") from exception

    def _came(self, number: int, frame: Any) -> None:
        self.signal = number

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Save inside an epoch; its end has its own hook, after validation."""
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
        """Save between two epochs."""
        self._save(trainer, trainer.current_epoch + 1, 0)
        self._end(trainer, distributed.any_of(self.signal is not None))

    def _end(self, trainer: Trainer, stop: bool) -> None:
        if stop:
            raise self._interrupted(trainer, self.signal or signal.SIGTERM, "after")

    def _interrupted(self, trainer: Trainer, number: int, when: str) -> UserError:
        name, step = signal.Signals(number).name, trainer.global_step
        place = "there" if when == "after" else "where its state was last kept"
        message = f"{name} {when} step {step}; the same command goes on from {place}"
        return UserError(message, status="interrupted", signal=number)

    def _save(self, trainer: Trainer, epoch: int, batch: int) -> None:
        seconds = time.perf_counter() - self.started
        step, ended = trainer.global_step, trainer.should_stop
        shown = events.mark(self.folder, trainer.loggers) if distributed.here.first else None
        point = ResumePoint(self.key, step, epoch, batch, ended, seconds, shown)
        trainer.save_checkpoint(point.path(self.folder), storage_options=asdict(point))
        if distributed.here.first:
            for path in _newest_first(self.folder)[_NEWEST:]:
                path.unlink(missing_ok=True)


def _newest_first(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoints").glob("resume-*.ckpt"), reverse=True)


def clear(folder: Path) -> None:
    """Remove what only an unfinished run goes on from."""
    for path in _newest_first(folder):
        path.unlink(missing_ok=True)


def prepare(
    folder: Path, key: str, identity: Identity, requested: str | None
) -> ResumePoint | None:
    """Return where to go on, which an unfinished run has left here or elsewhere.

    Args:
        folder: of this run; emptied where there is no such place.
        key: of this run.
        identity: of this run.
        requested: ``ckpt.resume``: ``auto``, None, or a run's folder or file to go on from.
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
    """Return where a run can go on; warn of files that are damaged or another run's."""
    files = _newest_first(folder)
    for path in files:
        if (point := _intact(path, key)) is not None:
            return point
    if files:
        warn("no checkpoint is left to go on from; the run begins anew")
    return None


def _intact(path: Path, key: str | None = None) -> ResumePoint | None:
    """Return what a checkpoint is of; warn if it is damaged, or of another run than ``key``."""
    try:
        point = ResumePoint(**checkpoint_io.verified(path))
    except (checkpoint_io.Damaged, TypeError) as why:
        warn(f"{path} is passed over: {why}")
        return None
    if key in (None, point.key):
        return point
    warn(f"{path} is passed over: it is of another run, {point.key}")
    return None


def bring(source: str, folder: Path, key: str, identity: Identity) -> ResumePoint:
    """Go on here with what a run left elsewhere: ``ckpt.resume=PATH``.

    Raises:
        UserError: if there is nothing to go on from, or it is a run that differs in anything that
            can change a result.
    """
    path = paths.expanded(source)
    run = path.parent.parent if path.is_file() else path
    files = [path] if path.is_file() else _newest_first(path)
    if not files:
        raise UserError(
            f"ckpt.resume={source} has no checkpoints/resume-*.ckpt; use a run's folder"
        )
    keys = {point.key for point in map(_intact, files) if point is not None}
    if not keys:
        raise UserError(f"ckpt.resume={source} has no checkpoint that is whole")
    if keys != {key}:
        differing = ", ".join(_differing(store.read(run), identity)) or f"its key is {min(keys)}"
        raise UserError(
            f"ckpt.resume={source} is another run: {differing}; go on with the same values, or use "
            "model.pretrained= for its weights alone"
        )
    target = folder / "checkpoints"
    if run.resolve() != folder.resolve():
        _empty(folder)
        target.mkdir()
        for file in run.glob("checkpoints/*.ckpt"):
            if file in files or not file.name.startswith("resume-"):
                shutil.copyfile(file, target / file.name)
    point = newest(folder, key)
    assert point is not None
    return point


def _differing(record: RunRecord | None, identity: Identity) -> Iterator[str]:
    """Yield what of another run's identity is not as it is here."""
    if record is None:
        return
    config, devices = record.config, record.environment
    resolved = {name: devices.get(name, value) for name, value in config["trainer"].items()}
    there = identity_module.identity({**config, "trainer": resolved})["config"]
    theirs, ours = (dict(_flat(node)) for node in (there, identity["config"]))
    # What a strategy ignores is in a config alone; a file of weights counts by its content.
    for name in sorted(theirs.keys() & ours.keys() - {"model.pretrained"}):
        if theirs[name] != ours[name]:
            yield f"{name}={theirs[name]} there and {ours[name]} here"
    for what, key in (("labels", "data"), ("images", "content")):
        here = identity.get(key, {})
        hashes = {name: getattr(split, _DATA[key]) for name, split in record.data.items()}
        if changed := [name for name in here if hashes.get(name) != here[name]]:
            yield f"the {what} of {', '.join(changed)} are not those here"


def _flat(node: Node, above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield above + name, value
