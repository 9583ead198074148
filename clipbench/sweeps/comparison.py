"""The jobs of a comparison within a time budget, cheap ones first."""

import hashlib
import json
import math
import re
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipbench.core import cli, files, paths
from clipbench.core.config import compose
from clipbench.core.console import duration
from clipbench.core.errors import UserError
from clipbench.core.jobs import Job
from clipbench.reporting.page import page
from clipbench.results import store
from clipbench.strategies import about
from clipbench.sweeps import candidate_models, summary
from clipbench.sweeps.budget import LEAST, Budget, Training, shared
from clipbench.sweeps.launcher import launch, stop
from clipbench.sweeps.session import Session

AUTO = ("recipe=auto",)
WAYS = ("zero_shot", "linear_probe", "finetune")
MEASURED = 4  # steps of training, to see how long one takes


class Comparison:
    """A sweep whose jobs are chosen one after the other, by the time that earlier ones took.

    Args:
        data: a folder, or a dataset's name.
        models: see :func:`clipbench.sweeps.candidate_models.of`.
        minutes: the budget.
        words: overrides of every job.

    Raises:
        UserError: if ``data`` is neither, before any weights are looked for.
    """

    def __init__(self, data: str, models: str, minutes: float, words: Sequence[str]) -> None:
        self.dataset, own = _data(data)
        self.words = [*own, *words]
        text = json.dumps([self.dataset, self.words, models, minutes])
        name = re.sub(r"\W+", "_", Path(data).resolve().name if own else data)[:40]
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        self.session = Session()
        self.session.sweep = paths.outputs() / "sweeps" / f"compare-{name}-{digest}"
        self.plan: dict[str, Any] = {**page.plan(self.session.sweep)}
        if not self.plan:
            _look(self.job("clip_tiny", "finetune"))  # the overrides, before weights are looked for
            chosen = candidate_models.of(models)
            self.plan = {"models": list(chosen.models), "stand_ins": chosen.notice, "epochs": {}}
        self.budget = Budget(minutes)
        self.over, self.begun = False, set[tuple[str, str]]()

    def __call__(self) -> int:
        """Run what fits and write the report; return 1 if a job failed."""
        assert self.session.sweep is not None
        stop.install()
        self.session.sweep.mkdir(parents=True, exist_ok=True)
        alarm = threading.Timer(max(1.0, self.budget.left), self._end)
        alarm.daemon = True
        alarm.start()
        interrupted = False
        try:
            self._jobs()
        except KeyboardInterrupt:
            interrupted = True
        alarm.cancel()
        self.plan["left"] = self._not_started()
        self._note()
        try:
            place = page.write(self.session.sweep, self._page())
        except UserError as refused:
            cli.refusal(f"no report: {refused}", refused.details, paths.outputs())
            return 1
        print(f"\nthe report: {place}")
        if interrupted:
            print("the same command again goes on where it was")
        if interrupted and not self.over:
            return 128 + (stop.signal or signal.SIGINT)
        return int(any(end.status in ("failed", "diverged") for end in self.session.outcomes))

    def _page(self) -> Path:
        assert self.session.sweep is not None
        return paths.outputs() / "reports" / f"{self.session.sweep.name}.html"

    def _end(self) -> None:
        """End the running jobs, which save their state, since the budget is used up."""
        print("the budget is over", flush=True)
        self.over = True
        stop.now(signal.SIGTERM)

    def _jobs(self) -> None:
        for model in self.plan["models"]:
            if candidate_models.has_text(model):
                self._work(model, "zero_shot")
        around = {}
        for model in self.plan["models"]:
            self._work(model, "linear_probe")
            record = store.read(Path(self.session.outcomes[-1].folder or ""))
            around[model] = record.cost.seconds if record else 0.0
        epochs = self.plan["epochs"]
        undecided = [model for model in self.plan["models"] if model not in epochs]
        measured = (self._measured(model, around[model]) for model in undecided)
        trainings = [training for training in measured if training is not None]
        self.plan |= {"dropped": {}, "shortened": self.plan.get("shortened", {})}
        shares = shared(trainings, self.budget.left)
        for training in trainings:
            self._decide(training, *shares[training.model])
        self._note()
        needed = {t.model: t.seconds(epochs.get(t.model) or t.wanted) for t in trainings}
        for model in sorted(epochs, key=lambda name: needed.get(name, 0.0)):
            self._work(model, "finetune", *AUTO, *_epochs(epochs[model]))

    def _work(self, model: str, strategy: str, *more: str) -> None:
        self.begun.add((model, strategy))
        self.session.work([self.job(model, strategy, *more)], 1)

    def _not_started(self) -> dict[str, str]:
        """Return the jobs that did not start before the budget was used up."""
        meant = [(model, way) for way in WAYS for model in self.plan["models"]]
        return {
            f"{model} {way}": f"{model}, {about.label(way)}: the end came before it began."
            for model, way in meant
            if (model, way) not in self.begun
            and not (way == "finetune" and model in self.plan.get("dropped", {}))
            and (way != "zero_shot" or candidate_models.has_text(model))
        }

    def _decide(self, training: Training, epochs: int, seconds: float) -> None:
        name = f"{training.model}, {about.label('finetune')}"
        took = f"an epoch takes {duration(training.epoch)} here"
        if not epochs:
            self.plan["dropped"][training.model] = (
                f"{name}: {took}, a run of {LEAST} epochs {duration(training.seconds(LEAST))}; "
                f"it had {duration(seconds)} of the {self.budget.minutes:g} min."
            )
            return
        # None leaves the epochs to recipe=auto, so that the run is that of the plain command.
        self.plan["epochs"][training.model] = None if epochs == training.wanted else epochs
        if epochs < training.wanted:
            self.plan["shortened"][training.model] = (
                f"{name}, for longer: it has {epochs} epochs for the budget of "
                f"{self.budget.minutes:g} min, recipe=auto would take {training.wanted}; {took}."
            )

    def _measured(self, model: str, around: float) -> Training | None:
        """Measure the pace of a model by a short training that is not part of the sweep."""
        from clipbench.training.spec import resolve  # torch

        try:
            spec = resolve(self.job(model, "finetune", *AUTO))
        except UserError:
            self.plan["epochs"][model] = None  # so that it fails as a job
            return None
        print(f"\nmeasuring the pace of {model}", flush=True)
        few = (*AUTO, "epochs=1", f"trainer.limit_train_batches={MEASURED}", "logger=none")
        ended = launch(self.job(model, "finetune", *few))
        record = store.read(Path(ended.folder)) if ended.folder else None
        if stop.signal:
            raise KeyboardInterrupt
        if record is None or not record.completed:
            summary.job(ended)
            self.plan["epochs"][model] = None
            return None
        pace = float(record.cost.images_per_second or math.nan)
        data = spec.data.dataset
        wanted, val = spec.recipe.epochs, data.splits.get("val", ())
        return Training(model, wanted, around, len(data.epoch), len(val), pace)

    def job(self, model: str, strategy: str, *more: str) -> Job:
        """Return a job as ``clipbench.run`` would make it."""
        words = [f"model={model}", f"strategy={strategy}", *self.words, *more]
        choices = {"model": model, "dataset": self.dataset, "strategy": strategy}
        return Job(compose.compose(*words), choices, words, retry=True)

    def _note(self) -> None:
        assert self.session.sweep is not None
        text = json.dumps(self.plan, indent=1)
        files.write_text(self.session.sweep / "plan.json", text + "\n")


def _look(job: Job) -> None:
    """Check the data once, before the jobs do.

    Raises:
        UserError: for data that no job could use.
    """
    from clipbench.core.config.instantiate import build
    from clipbench.datamodules.base_classification import ClassificationDataModule
    from clipbench.loading import leaks
    from clipbench.loading.validation import check_names

    data = build(job.config["dataset"])
    if not isinstance(data, ClassificationDataModule):
        raise UserError(
            f"{job.choices['dataset']} has captions but no classes. compare needs classes."
        )
    data.prepare(job.config["seed"])
    check_names(data.classes, data.templates, data.homonyms)
    data.look()  # the jobs reuse what it finds
    leaks.check(data.splits, job.config["leaks"])


def _epochs(chosen: int | None) -> list[str]:
    return [] if chosen is None else [f"epochs={chosen}"]


def _data(given: str) -> tuple[str, list[str]]:
    """Return the dataset's option, and the overrides that choose it."""
    options = sorted(path.stem for path in (paths.CONF / "dataset").glob("*.yaml"))
    place = paths.expanded(given)
    if place.is_dir() or (place.is_file() and given not in options):  # a table of labels, or a tar
        return "imagefolder", ["dataset=imagefolder", f"dataset.root={place.resolve()}"]
    if given not in options:
        near = cli.near(given, options)
        raise UserError(
            f"data={given} is neither a folder nor a dataset{near or '.'} Name your folder."
        )
    return given, [f"dataset={given}"]
