"""One run: config -> datamodule, model -> strategy -> module -> Trainer -> one result.json."""

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from clipbench.core import distributed, environment
from clipbench.core.config import overrides
from clipbench.core.config.instantiate import build
from clipbench.core.console import marked
from clipbench.core.errors import UserError
from clipbench.core.jobs import Job, Outcome
from clipbench.core.locking import Held, Lock
from clipbench.datamodules.base_captions import CaptionDataModule
from clipbench.datamodules.base_classification import ClassificationDataModule
from clipbench.loading import decoded, leaks
from clipbench.loading.prompts import Prompts
from clipbench.models import hub
from clipbench.results import identity, record, reuse, store
from clipbench.results.record import LOG
from clipbench.strategies.base import Strategy
from clipbench.training import recommendations, resume, sanity_checks, schedule
from clipbench.training.robustness import wise_ft
from clipbench.training.robustness.auxiliary_dataset import AuxiliaryDataset
from clipbench.training.robustness.replay import Replay, rows
from clipbench.training.robustness.retention import Retention
from clipbench.transforms.augment import Augment


class Run:
    """The parts of a run in the order in which they come to be.

    Args:
        job: see :class:`Job`.
    """

    def __init__(self, job: Job) -> None:
        self.job, self.config = job, job.config
        self.started = time.perf_counter()
        sanity_checks.config(self.config)
        data = build(self.config["dataset"])
        self.data: ClassificationDataModule | CaptionDataModule = data
        # The root's axes stand for the recipe's values of the same name.
        root = {k: v for k, v in self.config.items() if k in self.config["recipe"]}
        self.recipe: dict[str, Any] = {**self.config["recipe"], **root}
        self.strategy: Strategy = build(self.config["strategy"])
        self.augment: Augment = build(self.config["augment"])
        sanity_checks.captions(self.config, self.strategy, self.data, job.choices)
        self.data.prepare(self.config["seed"])
        self.prompts = self._prompts()
        self.data.arrange(
            every_pair=self.strategy.every_pair, full_batches=self.strategy.full_batches
        )
        self.facts = recommendations.facts(self.config, self.strategy, self.data)
        values, self.reasons = recommendations.chosen(self.recipe, self.facts)
        self.recipe |= values
        self.config = {**self.config, **values}
        self.mixed: Replay | None = None
        if (mix := self.config["mix"]) is not None:
            self.mixed = Replay(mix, self.config["seed"], self.config["mix_weight"])
        asked = ("epochs", "steps", "warmup", "warmup_steps", "lr", "min_lr")
        self.schedule = schedule.plan(
            batches=self._batches() if self.strategy.trains else 0,
            **{name: self.recipe[name] for name in asked},
        )
        if self.recipe["steps"] is not None:  # the last epoch may be a part of one
            self.recipe["epochs"] = math.ceil(self.recipe["steps"] / max(1, self._batches()))
        self.metric = self._metric()
        self.merge = wise_ft.asked(self.config)
        other = self.config["retention"]
        self.retention = None if other is None else Retention(other, self.config["seed"])
        self.splits = self.data.record()
        self.devices = environment.resolved(self.config["trainer"], distributed.here.world)
        self.identity = self._identity()
        self.key = identity.key(self.identity)
        self.training = identity.key(identity.of_training(self.identity))
        names = (job.choices["model"], job.choices["strategy"], self.key)
        self.folder = job.outputs / "runs" / job.choices["dataset"] / "-".join(names)
        self.record: dict[str, Any] = {}
        self.begin: resume.ResumePoint | None = None
        self.lock: Lock | None = None
        self.leaks: list[str] = []

    @property
    def rows(self) -> tuple[int, int]:
        """How many pictures of a batch are the dataset's, and of another that is mixed in."""
        return self._rows(self.recipe["batch_size"])

    def _rows(self, size: int) -> tuple[int, int]:
        return (size, 0) if self.mixed is None else rows(size, self.config["mix_fraction"])

    @property
    def shares(self) -> dict[str, int]:
        """How a batch is shared out: rows of each device, and in how many parts it takes them."""
        own = [size // distributed.here.world for size in self.rows]
        micro: int | None = self.config["micro_batch"]
        parts = sum(-(-size // (micro or size)) for size in own if size)
        return {"devices": distributed.here.world, "per_device": sum(own), "accumulation": parts}

    def fewest(self, size: int) -> int:
        """The least pictures a device takes at once with a ``batch_size``; 0: no fair share."""
        (own, _), world = self._rows(size), distributed.here.world
        micro = self.config["micro_batch"]
        return 0 if own % world else self.data.epoch.fewest(own, world, micro)

    def _batches(self) -> int:
        whole = self.data.epoch.batches(self.rows[0])
        limit: int | float | None = self.config["trainer"]["limit_train_batches"]
        if limit is None:
            return whole
        return min(whole, limit) if isinstance(limit, int) else int(whole * limit)

    def _prompts(self) -> list[list[str]]:
        prompts: Prompts = build(self.config["prompts"])
        if prompts.use == "sampled" and not self.strategy.reads_captions:
            name = self.job.choices["strategy"]
            raise UserError(f"strategy={name} reads no text in a step; use prompts.use=ensemble")
        said = prompts.of(self.data.classes, self.data.templates, self.data.keys)
        if self.strategy.reads_captions:
            self.data.caption(said)
        return said

    def _metric(self) -> str:
        asked, known = self.config["monitor"], ["loss", *self.data.measured]
        name = self.data.metrics[0] if asked is None else asked.removeprefix("val/")
        if name not in known:
            raise UserError(f"val has no monitor={asked}; use one of {', '.join(known)}")
        return f"val/{name}"

    def _identity(self) -> dict[str, Any]:
        return identity.of(
            {k: v for k, v in self.config.items() if k not in self.strategy.ignores},
            weights=hub.weights(self.config["model"].get("pretrained")),
            data=self.splits,
            prompts=self.prompts,
            others={name: other.identity() for name, other in self.others.items()},
            devices=self.devices,
        )

    @property
    def others(self) -> dict[str, AuxiliaryDataset]:
        """The other datasets of the run by what they are for."""
        others = {"retention": self.retention, "mix": self.mixed}
        return {name: other for name, other in others.items() if other is not None}

    def distrust(self) -> bool:
        """Have the next run decode every image; whether those that cannot be are skipped."""
        modules = [self.data, *(other.data for other in self.others.values())]
        for data in modules:
            decoded.distrust(data.root)
        return any(data.bad_images == "skip" for data in modules)

    def same_training(self) -> Path | None:
        """Return a run to take the weights from, see :func:`clipbench.results.identity.twin`."""
        if not self.strategy.trains or self.training == self.key:
            return None
        return reuse.twin(self.folder, self.training, self.config)

    def guard(self) -> None:
        """Refuse what cannot give a right number, before any weights are looked for.

        Raises:
            UserError: for no steps, a warm-up that never ends, mixed labels for a strategy that
                takes none, or a batch that the devices cannot share.
        """
        if self.augment.mixes and not self.strategy.soft_labels:
            raise UserError(
                f"strategy={self.job.choices['strategy']} has no use for mixed labels: its loss is "
                "of captions, or it sees no pictures while it trains; use augment.mixup=0 "
                "augment.cutmix=0, or strategy=finetune"
            )
        self._guard_ranks(distributed.here.world)
        sanity_checks.pairs(self.strategy, self.recipe["batch_size"], len(self.data.epoch))
        if self.strategy.trains:
            allowed, known = self.config["allow_unfinished_warmup"], self.recipe
            sanity_checks.warmup(
                self.schedule, lr=known["lr"], epochs=known["epochs"], allowed=allowed
            )

    def _guard_ranks(self, world: int) -> None:
        for size in self.rows:
            if size % world:
                near = " or ".join(str(n * world) for n in (size // world, size // world + 1) if n)
                raise UserError(
                    f"a batch of {size} does not divide among {world} devices; use one of {near}"
                )

    def decide(self) -> Outcome | None:
        """Whether there is anything to do; if so, the folder is locked.

        Returns:
            How the run has ended before, or that it is at work elsewhere; None to go on.
        """
        # Before a completed run is looked for, which may have been allowed to go on with them.
        other = {name: next(iter(one.data.splits.values())) for name, one in self.others.items()}
        self.leaks = leaks.check({**self.data.splits, **other}, self.config["leaks"])
        if (done := self._before()) is not None and done.status == "completed":
            resume.clear(self.folder)  # of a run that was killed before it could
            return done
        self.guard()
        try:
            self.lock = Lock(self.folder)
        except Held as holder:
            return Outcome("elsewhere", key=self.key, folder=str(self.folder), error=str(holder))
        if (done := self._before()) is not None:
            self.close()
        return done

    def _before(self) -> Outcome | None:
        """Return how an earlier command has ended this very run, if that is to stay."""
        if (retry := self.config["retry"]) not in reuse.RETRY:
            raise UserError(f"retry={retry}: is not one of failed, versions. Use one, or null.")
        record = store.read(self.folder) or {}
        status, error = record.get("status", ""), record.get("error")
        ended = Outcome(status, key=self.key, folder=str(self.folder), error=error, before=True)
        if status == "completed":
            again = reuse.again(self.folder, record, self.config, self.job.asked)
            return None if again else replace(ended, note=reuse.difference(record))
        return None if status in ("", "interrupted") or self.job.retry else ended

    def open(self) -> None:
        """Find where to go on, or empty the folder, and write down what this run is.

        Only the first rank writes.

        Raises:
            UserError: for a place to go on from that is none, or another run's.
        """
        asked, before = self.config["ckpt"]["resume"], store.read(self.folder) or {}
        self.begin = distributed.from_first(
            lambda: resume.begin(self.folder, self.key, self.identity, asked)
        )
        if self.begin is not None:
            self.started -= self.begin.seconds
        if distributed.here.first:
            (self.folder / ".hydra").mkdir(exist_ok=True)
            hydra: dict[str, Any] = {"config": self.config, "overrides": self.job.overrides}
            for name, content in overrides.escaped(hydra).items():
                OmegaConf.save(OmegaConf.create(content), self.folder / ".hydra" / f"{name}.yaml")
        choices, recipe = self.job.choices, self.recipe
        self.record = {
            "schema": record.SCHEMA,
            "key": self.key,
            # Runs that share it have the same weights: they differ in what comes after.
            "training": self.training,
            "weights_from": None,
            # Sealed as completed at the end: a run that is killed has already said what it is.
            "status": "interrupted",
            "error": None,
            "log": LOG,
            **{name: choices[name] for name in ("model", "dataset", "strategy")},
            **{name: recipe[name] for name in ("lr", "batch_size", "epochs")},
            "freeze_depth": self.config["freeze_depth"],
            "seed": self.config["seed"],
            **identity.of_seed(self.identity, self.strategy.random, bool(self.strategy.fits_head)),
            "config": self.config,
            "versions": environment.versions(),
            "environment": environment.of(self.config["trainer"], distributed.here.world),
            "git": environment.git(),
            "data": {**self.splits, **{k: v.record() for k, v in self.others.items()}},
            "steps": {
                "total": self.schedule.total,
                "warmup": self.schedule.warmup,
                "peak_lr": recipe["lr"] * self.schedule.peak if self.schedule.total else 0.0,
            },
            "batch": self.shares,
            "parameters": {},
            "curve": [],
            "final": {},
            "selection": {"metric": self.metric, "epoch": None, "alpha": None},
            "alpha_curve": [],
            "temperature": None,
            "cost": {},
            "advice": self.reasons,
            "warnings": [],
        }
        for warning in self.leaks:
            self.warn(warning)
        other = reuse.difference(before, "ckpt.resume=null") if before and self.begin else None
        if other is not None:
            self.warn(f"what came before it was interrupted was {other}")
        self.write()

    def close(self) -> None:
        """Leave the folder to others."""
        if self.lock is not None:
            self.lock.release()

    def write(self) -> None:
        """Bring ``result.json`` up to date."""
        if distributed.here.first:
            store.write(self.folder, self.record)

    def warn(self, message: str) -> None:
        """Say something once, and keep it in the record."""
        marked("warning:", message)
        self.record["warnings"].append(message)
