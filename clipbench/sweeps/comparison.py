"""The jobs of a comparison within a budget, cheap ones first, and what was decided about them."""

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
    """A sweep whose jobs are chosen as it goes, by what the ones before have taken.

    Args:
        data: a folder, or a dataset's name.
        models: see :func:`clipbench.sweeps.candidate_models.of`.
        minutes: of the budget.
        words: for every job.

    Raises:
        UserError: for data that is neither, before anything is looked for.
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
            _look(self.job("clip_tiny", "finetune"))  # what is typed, before weights are looked for
            chosen = candidate_models.of(models)
            self.plan = {"models": list(chosen.models), "stand_ins": chosen.notice, "epochs": {}}
        self.budget = Budget(minutes)
        self.over, self.begun = False, set[tuple[str, str]]()

    def __call__(self) -> int:
        """Run what fits, write the report; 1 if a job failed."""
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
        self.plan["left"] = self._left()
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
        """The budget is over: what is at work keeps where it is."""
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
        open_ones = [model for model in self.plan["models"] if model not in epochs]
        trainings = [one for model in open_ones if (one := self._measured(model, around[model]))]
        self.plan |= {"dropped": {}, "shortened": self.plan.get("shortened", {})}
        found = shared(trainings, self.budget.left)
        for one in trainings:
            self._decide(one, *found[one.model])
        self._note()
        needed = {one.model: one.seconds(epochs.get(one.model) or one.wanted) for one in trainings}
        for model in sorted(epochs, key=lambda name: needed.get(name, 0.0)):
            self._work(model, "finetune", *AUTO, *_epochs(epochs[model]))

    def _work(self, model: str, strategy: str, *more: str) -> None:
        self.begun.add((model, strategy))
        self.session.work([self.job(model, strategy, *more)], 1)

    def _left(self) -> dict[str, str]:
        """What the end came before."""
        meant = [(model, way) for way in WAYS for model in self.plan["models"]]
        return {
            f"{model} {way}": f"{model}, {about.label(way)}: the end came before it began."
            for model, way in meant
            if (model, way) not in self.begun
            and not (way == "finetune" and model in self.plan.get("dropped", {}))
            and (way != "zero_shot" or candidate_models.has_text(model))
        }

    def _decide(self, one: Training, epochs: int, seconds: float) -> None:
        name = f"{one.model}, {about.label('finetune')}"
        took = f"an epoch takes {duration(one.epoch)} here"
        if not epochs:
            self.plan["dropped"][one.model] = (
                f"{name}: {took}, a run of {LEAST} epochs {duration(one.seconds(LEAST))}; it had "
                f"{duration(seconds)} of the {self.budget.minutes:g} min."
            )
            return
        # None is what recipe=auto chooses, so that the run is the one that anybody would get.
        self.plan["epochs"][one.model] = None if epochs == one.wanted else epochs
        if epochs < one.wanted:
            self.plan["shortened"][one.model] = (
                f"{name}, for longer: it has {epochs} epochs for the budget of "
                f"{self.budget.minutes:g} min, recipe=auto would take {one.wanted}; {took}."
            )

    def _measured(self, model: str, around: float) -> Training | None:
        """The pace of a model, by a short training that is no part of the sweep."""
        from clipbench.training.spec import resolve  # torch

        try:
            spec = resolve(self.job(model, "finetune", *AUTO))
        except UserError:
            self.plan["epochs"][model] = None  # to fail as a job does
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
        """An ordinary job, as ``clipbench.run`` would make it."""
        words = [f"model={model}", f"strategy={strategy}", *self.words, *more]
        choices = {"model": model, "dataset": self.dataset, "strategy": strategy}
        return Job(compose.compose(*words), choices, words, retry=True)

    def _note(self) -> None:
        assert self.session.sweep is not None
        text = json.dumps(self.plan, indent=1)
        files.write_text(self.session.sweep / "plan.json", text + "\n")


def _look(job: Job) -> None:
    """Refuse data that no job could take, once and not by each of them."""
    from clipbench.core.config.instantiate import build
    from clipbench.datamodules.base_classification import ClassificationDataModule
    from clipbench.loading import leaks
    from clipbench.loading.validation import check_names

    data = build(job.config["dataset"])
    if not isinstance(data, ClassificationDataModule):
        raise UserError(
            f"{job.choices['dataset']} has captions and no classes; compare needs these"
        )
    data.prepare(job.config["seed"])
    check_names(data.classes, data.templates, data.homonyms)
    data.look()  # which is kept for the jobs
    leaks.check(data.splits, job.config["leaks"])


def _epochs(chosen: int | None) -> list[str]:
    return [] if chosen is None else [f"epochs={chosen}"]


def _data(given: str) -> tuple[str, list[str]]:
    """The dataset's option, and the words that choose it."""
    options = sorted(path.stem for path in (paths.CONF / "dataset").glob("*.yaml"))
    place = paths.expanded(given)
    if place.is_dir() or (place.is_file() and given not in options):  # a table of labels, or a tar
        return "imagefolder", ["dataset=imagefolder", f"dataset.root={place.resolve()}"]
    if given not in options:
        near = cli.near(given, options)
        raise UserError(f"data={given} is no folder here, and no dataset{near}; name your folder")
    return given, [f"dataset={given}"]
