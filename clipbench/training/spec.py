"""What a run is going to do: a job's config, resolved step by step into a frozen RunSpec."""

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

from clipbench.core import distributed, environment
from clipbench.core.config.instantiate import build
from clipbench.core.config.option_files import Config
from clipbench.core.errors import UserError
from clipbench.core.jobs import Job
from clipbench.loading import decoded
from clipbench.loading.prompts import Prompts
from clipbench.models import hub
from clipbench.results import identity as identity_module
from clipbench.results.record import SplitRecord
from clipbench.strategies.base import Strategy
from clipbench.strategies.recipe import Recipe, values_of
from clipbench.training import recommendations, sanity_checks, schedule
from clipbench.training.batch_plan import BatchPlan
from clipbench.training.evaluator import Data
from clipbench.training.robustness import wise_ft
from clipbench.training.robustness.auxiliary_dataset import AuxiliaryDataset
from clipbench.training.robustness.replay import Replay
from clipbench.training.robustness.retention import Retention
from clipbench.transforms.augment import Augment


@dataclass(frozen=True)
class TrainingData:
    """The dataset of a run, and those that are mixed into each batch or measure forgetting."""

    dataset: Data
    prompts: list[list[str]]
    mixed: Replay | None
    retention: Retention | None

    @property
    def others(self) -> dict[str, AuxiliaryDataset]:
        """The other datasets, by the key that names them."""
        named = {"retention": self.retention, "mix": self.mixed}
        return {name: data for name, data in named.items() if data is not None}


@dataclass(frozen=True)
class RunSpec:
    """All that is decided about a run before any weights are loaded.

    Attributes:
        config: of the job, with the recipe's nulls filled in.
        reasons: of each number that was chosen by rule, a line to print.
        metric: what the best epoch is chosen by, ``val/<name>``.
        identity: all that can change the outcome.
        started: when the job began, by ``time.perf_counter``.
    """

    job: Job
    config: Config
    strategy: Strategy
    augment: Augment
    data: TrainingData
    recipe: Recipe
    facts: recommendations.Facts
    reasons: list[str]
    batch: BatchPlan
    schedule: schedule.Schedule
    metric: str
    merge: wise_ft.Merge | None
    splits: dict[str, SplitRecord]
    identity: identity_module.Identity
    started: float

    @property
    def key(self) -> str:
        """The hash of the identity."""
        return identity_module.key(self.identity)

    @property
    def training_key(self) -> str:
        """The hash of what the weights depend on: runs that share it have the same weights."""
        return identity_module.key(identity_module.of_training(self.identity))

    @property
    def folder(self) -> Path:
        """Where the run leaves its files."""
        choices = self.job.choices
        name = "-".join((choices["model"], choices["strategy"], self.key))
        return self.job.outputs / "runs" / choices["dataset"] / name

    def check(self) -> None:
        """Refuse what cannot give a right number, before any weights are looked for.

        Raises:
            UserError: for no steps, an endless warm-up, or labels or batches that do not fit.
        """
        if self.augment.mixes and not self.strategy.soft_labels:
            raise UserError(
                f"strategy={self.job.choices['strategy']} cannot use mixed labels: its loss is of "
                "captions, or it sees no images while it trains; use augment.mixup=0 "
                "augment.cutmix=0, or strategy=finetune"
            )
        self.batch.check()
        sanity_checks.pairs(self.strategy, self.recipe.batch_size, len(self.batch.epoch))
        if self.strategy.trains:
            allowed = self.config["allow_unfinished_warmup"]
            sanity_checks.warmup(self.schedule, self.recipe, allowed=allowed)

    def distrust_images(self) -> bool:
        """Have the next run decode every image; return whether unreadable ones are skipped."""
        datasets = [self.data.dataset, *(other.data for other in self.data.others.values())]
        for dataset in datasets:
            decoded.distrust(dataset.root)
        return any(dataset.bad_images == "skip" for dataset in datasets)


def resolve(job: Job) -> RunSpec:
    """Return what a job asks for, with its data read and every open value chosen.

    Raises:
        UserError: for a config that cannot be run, or data that is not there.
    """
    started = time.perf_counter()
    sanity_checks.config(job.config)
    dataset: Data = build(job.config["dataset"])
    strategy: Strategy = build(job.config["strategy"])
    augment: Augment = build(job.config["augment"])
    data = load_data(job, dataset, strategy)
    facts = recommendations.Facts.of(job.config, strategy, dataset)
    values, reasons = recommendations.chosen(values_of(job.config), facts)
    config = {**job.config, **values}
    recipe = Recipe.of(config)
    batch = plan_batch(config, recipe, dataset)
    recipe, steps = plan_schedule(recipe, batch, strategy)
    metric = choose_metric(config["monitor"], dataset)
    merge = wise_ft.requested(config)
    splits = dataset.record()
    return RunSpec(
        job=job,
        config=config,
        strategy=strategy,
        augment=augment,
        data=data,
        recipe=recipe,
        facts=facts,
        reasons=reasons,
        batch=batch,
        schedule=steps,
        metric=metric,
        merge=merge,
        splits=splits,
        identity=identify(config, strategy, data, splits),
        started=started,
    )


def load_data(job: Job, dataset: Data, strategy: Strategy) -> TrainingData:
    """Read the splits of a run's datasets, and make the prompts of their classes."""
    config, seed = job.config, job.config["seed"]
    sanity_checks.captions(config, strategy, dataset, job.choices)
    dataset.prepare(seed)
    prompts = build_prompts(job, dataset, strategy)
    dataset.arrange(every_pair=strategy.every_pair, full_batches=strategy.full_batches)
    mix, retention = config["mix"], config["retention"]
    return TrainingData(
        dataset,
        prompts,
        mixed=None if mix is None else Replay(mix, seed, config["mix_weight"]),
        retention=None if retention is None else Retention(retention, seed),
    )


def build_prompts(job: Job, dataset: Data, strategy: Strategy) -> list[list[str]]:
    """Return the prompts of each class, which a strategy that reads captions is given too.

    Raises:
        UserError: for prompts that are drawn step by step, and a strategy that reads none.
    """
    source: Prompts = build(job.config["prompts"])
    if source.use == "sampled" and not strategy.reads_captions:
        name = job.choices["strategy"]
        raise UserError(f"strategy={name} reads no text in a step; use prompts.use=ensemble")
    prompts = source.of(dataset.classes, dataset.templates, dataset.keys)
    if strategy.reads_captions:
        dataset.caption(prompts)
    return prompts


def plan_batch(config: Config, recipe: Recipe, dataset: Data) -> BatchPlan:
    """Return how the batch is divided among the ranks of this run."""
    return BatchPlan(
        size=recipe.batch_size,
        mix_fraction=None if config["mix"] is None else config["mix_fraction"],
        micro_batch=config["micro_batch"],
        devices=distributed.here.world,
        epoch=dataset.epoch,
        limit=config["trainer"]["limit_train_batches"],
    )


def plan_schedule(
    recipe: Recipe, batch: BatchPlan, strategy: Strategy
) -> tuple[Recipe, schedule.Schedule]:
    """Return the schedule, and the recipe with the epochs that its steps take."""
    planned = schedule.plan(recipe, batch.steps_per_epoch if strategy.trains else 0)
    if recipe.steps is not None:  # the last epoch may be a part of one
        epochs = math.ceil(recipe.steps / max(1, batch.steps_per_epoch))
        recipe = replace(recipe, epochs=epochs)
    return recipe, planned


def choose_metric(requested: str | None, dataset: Data) -> str:
    """Return the metric that the best epoch is chosen by; None requests the dataset's first.

    Raises:
        UserError: for a metric that is not measured on val.
    """
    names = ["loss", *dataset.measured]
    name = dataset.metrics[0] if requested is None else requested.removeprefix("val/")
    if name not in names:
        raise UserError(f"val has no monitor={requested}; use one of {', '.join(names)}")
    return f"val/{name}"


def identify(
    config: Config, strategy: Strategy, data: TrainingData, splits: dict[str, SplitRecord]
) -> identity_module.Identity:
    """Return all that can change the outcome of a run, whose hash is its key."""
    return identity_module.of(
        {k: v for k, v in config.items() if k not in strategy.ignores},
        weights=hub.weights(config["model"].get("pretrained")),
        data=splits,
        prompts=data.prompts,
        others={name: other.identity() for name, other in data.others.items()},
        devices=environment.resolved(config["trainer"], distributed.here.world),
    )
