"""One run: config -> datamodule, model -> strategy -> module -> Trainer -> one result.json."""

import hashlib
import json
import math
import shutil
import time
import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from pytorch_lightning import Callback, Trainer, seed_everything
from pytorch_lightning.callbacks import RichProgressBar

from clipbench import advice, environment, guards, hub, optim, predictions, results, saved
from clipbench.callbacks import EMA, AtomicCheckpointIO, Recorder
from clipbench.datamodules.base import ClassificationDataModule
from clipbench.datamodules.features import FeatureLoaders
from clipbench.errors import Refused
from clipbench.launch import Job, Outcome
from clipbench.models.base import ImageTower
from clipbench.modules import ClassificationModule
from clipbench.progress import console
from clipbench.prompts import Prompts
from clipbench.schema import build
from clipbench.strategies.base import Strategy, Task


def weights_identity(pretrained: str | None) -> str | None:
    """A tag as it is; a file by the hash of its content."""
    try:
        path = pretrained and hub.local(pretrained)
    except Refused:  # to be said by the model, after the guards
        return pretrained
    if not path:
        return pretrained
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Run:
    """The parts of a run in the order in which they come to be.

    Args:
        job: see :class:`Job`.
    """

    def __init__(self, job: Job) -> None:
        self.job, self.config = job, job.config
        self.started = time.perf_counter()
        data = build(self.config["dataset"])
        if not isinstance(data, ClassificationDataModule):
            name = job.choices["dataset"]
            raise Refused(
                f"{name} has captions and no classes to tell apart; choose another dataset"
            )
        self.data = data
        self.data.prepare(self.config["seed"])
        # The root's axes stand for the recipe's values of the same name.
        root = {k: v for k, v in self.config.items() if k in self.config["recipe"]}
        self.recipe: dict[str, Any] = {**self.config["recipe"], **root}
        self.strategy: Strategy = build(self.config["strategy"])
        self.facts = advice.facts(self.config, self.strategy, self.data)
        values, self.reasons = advice.chosen(self.recipe, self.facts)
        self.recipe |= values
        self.config = {**self.config, **values}
        self.prompts = self._prompts()
        self.schedule = optim.plan(
            batches=self._batches() if self.strategy.trains else 0,
            epochs=self.recipe["epochs"],
            warmup=self.recipe["warmup"],
            warmup_steps=self.recipe["warmup_steps"],
            steps=self.recipe["steps"],
            floor=self.recipe["min_lr"] / self.recipe["lr"] if self.recipe["lr"] else 0.0,
        )
        if self.recipe["steps"] is not None:  # the last epoch may be a part of one
            self.recipe["epochs"] = math.ceil(self.recipe["steps"] / max(1, self._batches()))
        self.key = self._key()
        names = (job.choices["model"], job.choices["strategy"], self.key)
        self.folder = job.outputs / "runs" / job.choices["dataset"] / "-".join(names)
        self.record: dict[str, Any] = {}

    def _batches(self) -> int:
        whole: int = math.ceil(len(self.data.splits["train"]) / self.recipe["batch_size"])
        limit: int | float | None = self.config["trainer"]["limit_train_batches"]
        if limit is None:
            return whole
        return min(whole, limit) if isinstance(limit, int) else int(whole * limit)

    def _prompts(self) -> list[list[str]]:
        prompts: Prompts = build(self.config["prompts"])
        if prompts.use == "sampled" and not self.strategy.reads_captions:
            name = self.job.choices["strategy"]
            raise Refused(f"strategy={name} reads no text in a step; use prompts.use=ensemble")
        said = prompts.of(self.data.classes, self.data.templates, self.data.keys)
        if self.strategy.reads_captions:
            self.data.caption(said)
        return said

    def _key(self) -> str:
        config = {k: v for k, v in self.config.items() if k not in self.strategy.ignores}
        if config.get("steps") is not None:
            config.pop("epochs", None)
        pretrained = weights_identity(config["model"].get("pretrained"))
        config["model"] = {**config["model"], "pretrained": pretrained}
        data = {name: split["sha256"] for name, split in self.data.record().items()}
        said = hashlib.sha256(json.dumps(self.prompts).encode()).hexdigest()
        return results.key(results.identity(config, data=data, prompts=said))

    @property
    def completed(self) -> bool:
        """Whether an earlier command completed this very run; its folder is then left alone."""
        record = results.read(self.folder)
        return record is not None and record["status"] == "completed"

    def guard(self) -> None:
        """Refuse what cannot give a right number, before any weights are looked for.

        Raises:
            Refused: for no steps, a warm-up that never ends, or several devices.
        """
        if self.config["trainer"]["devices"] not in (1, "1", "auto", [0]):
            raise Refused("one run uses one device for now; use trainer.devices=1")
        if self.strategy.trains:
            allowed = self.config["allow_unfinished_warmup"]
            guards.warmup(
                self.schedule,
                lr=self.recipe["lr"],
                epochs=self.recipe["epochs"],
                allowed=allowed,
            )

    def open(self) -> None:
        """Take the folder, emptying what an unfinished run left in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / ".hydra").mkdir(parents=True)
        hydra: dict[str, Any] = {"config": self.config, "overrides": self.job.overrides}
        for name, content in hydra.items():
            OmegaConf.save(OmegaConf.create(content), self.folder / ".hydra" / f"{name}.yaml")
        choices, recipe = self.job.choices, self.recipe
        self.record = {
            "schema": results.SCHEMA,
            "key": self.key,
            # Sealed as completed at the end: a run that is killed has already said what it is.
            "status": "interrupted",
            "error": None,
            **{name: choices[name] for name in ("model", "dataset", "strategy")},
            **{name: recipe[name] for name in ("lr", "batch_size", "epochs")},
            "freeze_depth": self.config["freeze_depth"],
            "seed": self.config["seed"],
            "config": self.config,
            "versions": environment.versions(),
            "git": environment.git(),
            "data": self.data.record(),
            "steps": {
                "total": self.schedule.total,
                "warmup": self.schedule.warmup,
                "peak_lr": recipe["lr"] * self.schedule.peak if self.schedule.total else 0.0,
            },
            "parameters": {},
            "curve": [],
            "final": {},
            "selection": {"metric": f"val/{self.data.metrics[0]}", "epoch": None},
            "cost": {},
            "advice": self.reasons,
            "warnings": [],
        }
        self.write()

    def write(self) -> None:
        """Bring ``result.json`` up to date."""
        results.write(self.folder, self.record)

    def warn(self, message: str) -> None:
        """Say something once, and keep it in the record."""
        console.print(f"[yellow]warning:[/] {message}", highlight=False)
        self.record["warnings"].append(message)

    def train(self) -> None:
        """Everything from the first look at a picture to the sealed record."""
        self.data.check()
        for reason in self.reasons:
            console.print(reason, highlight=False)
        strange = advice.warnings(self.facts, self.recipe, self.schedule.total)
        for warning in [*self.data.warnings, *strange]:
            self.warn(warning)
        tower: ImageTower = build(self.config["model"])
        # Convolutions are a third faster so on CPUs, and faster on GPUs; nothing else changes.
        tower.to(memory_format=torch.channels_last)
        if self.config["grad_checkpointing"]:
            tower.set_grad_checkpointing()
        seed_everything(self.config["seed"], workers=True, verbose=False)
        strategy = self.strategy
        weights = self.data.class_weights()
        task = Task(self.data.classes, self.prompts)
        classifier = strategy.prepare(tower, task)
        self.data.attach(
            preprocess=tower.preprocess,
            augment=build(self.config["augment"]),
            batch_size=self.recipe["batch_size"],
            seed=self.config["seed"],
        )
        self.record["parameters"] = classifier.counts()
        self.write()
        module = ClassificationModule(
            classifier,
            strategy,
            self.recipe,
            self.schedule,
            self.data.measure,
            None if weights is None else torch.from_numpy(weights),
        )
        recorder = Recorder(self.folder, self.record["selection"]["metric"], self._changed)
        self.recorder = recorder
        decay = optim.ema_decay(self.recipe["ema"], self.schedule.total)
        averages = [] if decay is None or not strategy.trains else [EMA(decay)]
        trainer = _trainer(self.config, self.folder, [recorder, *averages])
        encoded = FeatureLoaders(self.data, _encoder(tower, trainer.strategy.root_device))
        loaders: Any = encoded if strategy.reads_features else self.data
        if strategy.fits_head == "start":
            strategy.fit_head(classifier, encoded.tensors, module.weights)
        self._epoch_zero(trainer, module, loaders)
        if strategy.fits_head == "run":
            strategy.fit_head(classifier, encoded.tensors, module.weights)
            recorder.epoch = 1
            trainer.validate(module, loaders.eval_dataloader("val"), verbose=False)
        elif strategy.trains:
            trainer.fit(module, loaders.train_dataloader(), loaders.eval_dataloader("val"))
            if trainer.global_step != self.schedule.total:
                taken, planned = trainer.global_step, self.schedule.total
                raise Refused(f"{taken} steps were taken and {planned} planned; set epochs alone")
        self._finish(trainer, module, loaders)

    def _changed(self) -> None:
        best = self.recorder.best
        self.record["curve"] = self.recorder.curve
        self.record["selection"]["epoch"] = best and best["epoch"]
        self.write()

    def _epoch_zero(self, trainer: Trainer, module: ClassificationModule, loaders: Any) -> None:
        if not module.classifier.meaningful:
            names = ("loss", *self.data.measured)
            self.recorder.add(0, {f"val/{name}": None for name in names}, trainer, module)
            return
        trainer.validate(module, loaders.eval_dataloader("val"), verbose=False)
        if self.strategy.fits_head == "start":
            return
        model = self.config["model"]
        tower = module.classifier.tower
        reference = guards.published_zero_shot(
            model.get("arch", ""), tower.loaded, self.data.published_name
        )
        row = self.recorder.curve[0]
        classes, gate = len(self.data.classes), self.config["gate"]
        message = guards.zero_shot(row, classes=classes, reference=reference, gate=gate)
        if message:
            self.warn(message)

    def _finish(self, trainer: Trainer, module: ClassificationModule, loaders: Any) -> None:
        recorder, folder = self.recorder, self.folder
        assert recorder.best is not None
        best = torch.load(
            folder / "checkpoints" / "best.ckpt", map_location="cpu", weights_only=True
        )
        module.load_state_dict(best["state_dict"])
        final = {k: v for k, v in recorder.best.items() if k.startswith("val/")}
        kept = {"val": recorder.best_outputs}
        for name in self.data.evaluation_splits:
            module.split = name
            for suffix, weights in module.strategy.evaluation_points(module.classifier):
                if weights is not None:
                    module.classifier.load_state_dict(dict(weights))
                trainer.validate(module, loaders.eval_dataloader(name), verbose=False)
                if len(module.outputs["label"]) != len(self.data.splits[name]):
                    raise Refused(f"not all of {name} was evaluated; unset trainer.limit_*_batches")
                final |= {f"{k}{suffix}": v for k, v in module.values.items()}
                if not suffix:
                    kept[name] = module.outputs
        self.record["final"] = final
        predictions.write(folder, self.data, kept)
        saved.save(folder, module.classifier, list(self.data.classes), {"clipbench": self.key})
        trained = recorder.pictures
        self.record["cost"] = {
            "seconds": time.perf_counter() - self.started,
            "images_per_second": trained / recorder.train_seconds if trained else None,
            **environment.device(trainer.strategy.root_device),
        }
        self.record["status"] = "completed"
        self.write()


def _encoder(tower: ImageTower, device: torch.device) -> Any:
    @torch.inference_mode()
    def encode(images: torch.Tensor) -> torch.Tensor:
        tower.to(device).eval()
        features: torch.Tensor = tower(images.to(device))
        return features.float().cpu()

    return encode


def _trainer(config: Mapping[str, Any], folder: Path, own: list[Callback]) -> Trainer:
    extra = [build(node) for node in (config["callbacks"] or {}).values() if node]
    loggers = [
        build(node, save_dir=str(folder)) for node in (config["logger"] or {}).values() if node
    ]
    steps = config["steps"]
    epochs = config["trainer"]["max_epochs"] or config["epochs"]
    length = {"max_epochs": epochs} if steps is None else {"max_epochs": -1, "max_steps": steps}
    # Bars are for a terminal; a log has the line of each epoch.
    shown = config["trainer"]["enable_progress_bar"] and console.is_terminal
    trainer: Trainer = build(
        {**config["trainer"], "enable_progress_bar": shown, **length},
        callbacks=[*own, *extra, *([RichProgressBar(leave=False)] if shown else [])],
        logger=loggers,
        plugins=[AtomicCheckpointIO()],
        default_root_dir=str(folder),
    )
    return trainer


def execute(job: Job) -> Outcome:
    """Run a job to its end, whatever that is; nothing but an interrupt passes through."""
    environment.quiet()
    run: Run | None = None
    status, error, details = "failed", "", list[str]()
    try:
        run = Run(job)
        done = Outcome("completed", key=run.key, folder=str(run.folder))
        if run.completed:
            return replace(done, before=True)
        run.guard()
        run.open()
        run.train()
        return done
    except Refused as refused:
        status, error, details = refused.status, str(refused), refused.details
    except KeyboardInterrupt:
        status, error = "interrupted", "interrupted"
    except Exception as bug:
        traceback.print_exc()
        error = f"{type(bug).__name__}: {bug}"
    if run is None or not run.record:
        return Outcome(status, error=error, details=details)
    run.record |= {"status": status, "error": error}
    run.write()
    return Outcome(status, key=run.key, folder=str(run.folder), error=error, details=details)
