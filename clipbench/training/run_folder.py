"""The folder of a run: who holds it, where in it the run goes on, and the record in it."""

import contextlib
from dataclasses import replace

from omegaconf import OmegaConf

from clipbench.core import distributed, environment
from clipbench.core.config import overrides
from clipbench.core.console import warn
from clipbench.core.errors import UserError
from clipbench.core.jobs import Outcome
from clipbench.core.locking import Held, Lock
from clipbench.loading import leaks
from clipbench.results import identity, reuse, store
from clipbench.results.record import Batch, Row, RunRecord, Selection, Steps
from clipbench.training import resume
from clipbench.training.resume import ResumePoint
from clipbench.training.spec import RunSpec


class RunFolder:
    """A run's folder, which the first of its ranks holds and writes.

    Attributes:
        record: of the run; empty until :meth:`open`.
        started: when the run began, by ``time.perf_counter``, as if it had never been interrupted.
    """

    def __init__(self, spec: RunSpec) -> None:
        self.spec, self.path = spec, spec.folder
        self.started = spec.started
        self.record = RunRecord()
        self._lock: Lock | None = None
        self._leaks: list[str] = []

    @classmethod
    def claim(cls, spec: RunSpec) -> "RunFolder | Outcome":
        """Lock the folder of a run; or return how it ended, or that another process is at it.

        Raises:
            UserError: for a run that cannot give a right number, or splits that share images.
        """
        folder = cls(spec)
        return distributed.broadcast(folder._claim() if distributed.here.first else None) or folder

    def _claim(self) -> Outcome | None:
        # Before a completed run is looked for, which may have been allowed to go on with them.
        auxiliary = self.spec.data.others.items()
        splits = {name: next(iter(dataset.data.splits.values())) for name, dataset in auxiliary}
        splits = {**self.spec.data.dataset.splits, **splits}
        self._leaks = leaks.check(splits, self.spec.config["leaks"])
        if (ended := self._earlier_end()) is not None and ended.status == "completed":
            resume.clear(self.path)  # of a run that was killed before it could
            return ended
        self.spec.check()
        try:
            self._lock = Lock(self.path)
        except Held as holder:
            return self.outcome("elsewhere", error=str(holder))
        if (ended := self._earlier_end()) is not None:
            self.release()
        return ended

    def _earlier_end(self) -> Outcome | None:
        """Return how an earlier command has ended this very run, if that is to stay."""
        job, config = self.spec.job, self.spec.config
        if (retry := config["retry"]) not in reuse.RETRY:
            raise UserError(f"retry={retry}: is not one of failed, versions. Use one, or null.")
        before = store.read(self.path)
        if before is None:
            return None
        ended = replace(self.outcome(before.status, error=before.error), before=True)
        if before.completed:
            again = reuse.again(self.path, before, config, job.asked)
            return None if again else replace(ended, note=reuse.difference(before))
        return None if before.status == "interrupted" or job.retry else ended

    def open(self) -> tuple[RunRecord, ResumePoint | None]:
        """Find where the run goes on, or empty the folder, and write down what the run is.

        Raises:
            UserError: for a ``ckpt.resume=`` from which this run cannot go on.
        """
        spec, before = self.spec, store.read(self.path)
        requested, point = spec.config["ckpt"]["resume"], None
        if distributed.here.first:
            point = resume.prepare(self.path, spec.key, spec.identity, requested)
            self._write_config()
        point = distributed.broadcast(point)
        if point is not None:
            self.started -= point.seconds
        self.record = _new_record(spec)
        for warning in self._leaks:
            self.warn(warning)
        if before and point and (note := reuse.difference(before, "ckpt.resume=null")):
            self.warn(f"what came before it was interrupted was {note}")
        self.save()
        return self.record, point

    def _write_config(self) -> None:
        (self.path / ".hydra").mkdir(exist_ok=True)
        hydra = {"config": self.spec.config, "overrides": self.spec.job.overrides}
        for name, content in overrides.escaped(hydra).items():
            OmegaConf.save(OmegaConf.create(content), self.path / ".hydra" / f"{name}.yaml")

    def warn(self, message: str) -> None:
        """Print a warning, and keep it in the record."""
        warn(message)
        self.record.warnings.append(message)

    def save(self) -> None:
        """Write ``result.json``, in the first rank."""
        if distributed.here.first:
            store.write(self.path, self.record)

    def save_curve(self, curve: list[Row], best: Row | None) -> None:
        """Bring the record up to date after an epoch."""
        self.record.curve = curve
        self.record.selection.epoch = best["epoch"] if best else None
        self.save()

    def complete(self) -> Outcome:
        """Seal the record, once every rank has come this far, and leave the folder to others."""
        distributed.check_agreement("end", "reached")
        self.record.status = "completed"
        self.save()
        if distributed.here.first:
            resume.clear(self.path)
        self.release()
        return self.outcome("completed")

    def fail(self, status: str, error: str) -> Outcome:
        """Record that the run did not come to its end, and leave the folder to others."""
        self.record.status, self.record.error = status, error
        with contextlib.suppress(UserError):  # on a full disk the record stays as it was
            self.save()
        self.release()
        return self.outcome(status, error=error)

    def release(self) -> None:
        """Leave the folder to others."""
        if self._lock is not None:
            self._lock.release()

    def outcome(self, status: str, error: str | None = None) -> Outcome:
        """Return an outcome of this run."""
        return Outcome(status, key=self.spec.key, folder=str(self.path), error=error)


def _new_record(spec: RunSpec) -> RunRecord:
    """Return the record of a run that has just begun."""
    config, choices, recipe = spec.config, spec.job.choices, spec.recipe
    schedule, batch, strategy = spec.schedule, spec.batch, spec.strategy
    auxiliary = {name: dataset.record() for name, dataset in spec.data.others.items()}
    return RunRecord(
        key=spec.key,
        training=spec.training_key,
        # Sealed as completed at the end: a run that is killed has already said what it is.
        status="interrupted",
        model=choices["model"],
        dataset=choices["dataset"],
        strategy=choices["strategy"],
        lr=recipe.lr,
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        freeze_depth=config["freeze_depth"],
        seed=config["seed"],
        **identity.of_seed(spec.identity, strategy.random, bool(strategy.fits_head)),
        config=config,
        versions=environment.versions(),
        environment=environment.of(config["trainer"], distributed.here.world),
        git=environment.git(),
        data={**spec.splits, **auxiliary},
        steps=Steps(
            total=schedule.total,
            warmup=schedule.warmup,
            peak_lr=recipe.lr * schedule.peak if schedule.total else 0.0,
        ),
        batch=Batch(batch.devices, batch.per_device, batch.accumulation),
        selection=Selection(spec.metric),
        advice=spec.reasons,
    )
