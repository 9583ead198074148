"""The training of a run: model -> classifier -> module -> Trainer -> what comes after."""

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning import Callback, seed_everything

from clipbench.core import distributed, environment
from clipbench.core.config.instantiate import build
from clipbench.core.console import console
from clipbench.core.errors import UserError
from clipbench.datamodules.base_captions import CaptionDataModule
from clipbench.datamodules.base_classification import ClassificationDataModule
from clipbench.datamodules.feature_loaders import FeatureLoaders
from clipbench.inference import saved_model
from clipbench.models.base import Classifier, ImageTower, encoder
from clipbench.models.weight_averaging import State
from clipbench.results import reuse, store
from clipbench.strategies.base import Strategy, Task
from clipbench.training import (
    checkpoint_io,
    recommendations,
    resume,
    sanity_checks,
    schedule,
    tensorboard_summary,
)
from clipbench.training.artifacts import Finish
from clipbench.training.callbacks import EMA, Recorder
from clipbench.training.checkpoints import Keep, early_stopping, stopped
from clipbench.training.evaluation import Evaluator, copied
from clipbench.training.module import ClassificationModule, FineTuningModule, RetrievalModule
from clipbench.training.robustness.replay import Zipped
from clipbench.training.robustness.retention import Retention
from clipbench.training.trainer import trainer
from clipbench.transforms.mixup import MixUp

if TYPE_CHECKING:
    from clipbench.training.spec import Run


class Training:
    """Everything from the first look at a picture to the sealed record.

    Args:
        run: opened; its record is filled in as things become known.

    Raises:
        UserError: for what would spoil the run.
    """

    def __init__(self, run: "Run") -> None:
        self.run, self.data, self.strategy, self.record = run, run.data, run.strategy, run.record
        self.data.check()
        for reason in run.reasons:
            console.print(reason, highlight=False)
        strange = recommendations.warnings(run.facts, run.recipe, run.schedule.total)
        for warning in [*self.data.warnings, *strange]:
            run.warn(warning)
        classifier = self._classifier()
        if self.strategy.trains:
            size = run.recipe["batch_size"]
            sanity_checks.lone_picture(classifier, self.strategy, run.fewest, size)
        self._warn_of_model(classifier.tower)
        self.module = tuning(classifier, self.strategy, run.recipe, run.schedule, self.data)
        self.module.seed, self.module.last_step = run.config["seed"], run.config["steps"]
        if run.augment.mixes:
            self.module.mixup = MixUp(run.augment, len(self.data.classes), run.config["seed"])
        self.recorder = Recorder(run.folder, self.record["selection"]["metric"], self._changed)
        decay = schedule.ema_decay(run.recipe["ema"], run.schedule.total)
        averages = [] if decay is None or not self.strategy.trains else [EMA(decay)]
        own = [self.recorder, *self._policies(), *averages]
        self.trainer = trainer(run.config, run.folder, own, staged=self.strategy.staged)
        every, begin = run.config["ckpt"]["every_steps"], run.begin
        # Last, and past the Trainer's own check, which knows one kind of checkpoint.
        self.trainer.callbacks.append(  # type: ignore[attr-defined]
            resume.Resume(run.folder, run.key, run.started, every, begin)
        )
        device = self.trainer.strategy.root_device
        self.encoded = FeatureLoaders(self.data, encoder(classifier.tower, device))
        self.loaders: Any = self.encoded if self.strategy.reads_features else self.data
        watch = self._watch(classifier)
        self.evaluate = Evaluator(self.trainer, self.module, self.loaders, self.data, watch)

    def _warn_of_model(self, tower: ImageTower) -> None:
        """Warn of doubtful weights, and of texts that are not read to their end."""
        captioned = isinstance(self.data, CaptionDataModule)
        splits = self.data.splits.values() if captioned else ()
        captions = [text for split in splits for own in split.captions or () for text in own]
        tasks = {"": (self.data.classes, self.run.prompts)}
        tasks |= {f"{k}: ": (v.data.classes, v.prompts) for k, v in self.run.others.items()}
        for warning in (*tower.warnings, *sanity_checks.texts(tower, captions, tasks)):
            self.run.warn(warning)

    def _policies(self) -> list[Callback]:
        config, metric, own = self.run.config, self.recorder.metric, list[Callback]()
        if config["keep"] is not None:
            own.append(Keep(self.recorder, config["keep"]))
        if config["patience"] is not None:
            own.append(early_stopping(metric, config["patience"]))
        return own

    def _classifier(self) -> Classifier:
        """The classifier at its start, and pictures prepared as it wants them."""
        config = self.run.config
        # Twice: for weights that start at random, and for a head whatever those have drawn.
        seed_everything(config["seed"], workers=True, verbose=False)
        tower: ImageTower = build(config["model"])
        # Convolutions are a third faster so on CPUs, and faster on GPUs; nothing else changes.
        tower.to(memory_format=torch.channels_last)
        if config["grad_checkpointing"]:
            tower.set_grad_checkpointing()
        seed_everything(config["seed"], workers=True, verbose=False)
        classifier = self.strategy.prepare(tower, Task(self.data.classes, self.run.prompts))
        augment, (own, other) = self.run.augment, self.run.rows
        self.data.attach(
            preprocess=tower.preprocess, augment=augment, batch_size=own, seed=config["seed"]
        )
        tower.preprocess = self.data.preprocess  # dataset.resize_mode goes with the weights
        if self.run.mixed is not None:
            self.run.mixed.ready(classifier.tower, self.strategy, other, augment)
        self.record["parameters"] = classifier.counts()
        self.run.write()
        return classifier

    def _watch(self, classifier: Classifier) -> Retention | None:
        """What is to be remembered; None for a model that has no words for it."""
        other, size = self.run.retention, self.run.recipe["batch_size"]
        if other is not None and not other.ready(classifier.tower, self.trainer, size):
            self.run.warn("no retention: this model has no text to make a head of another dataset")
            return None
        return other

    def __call__(self) -> None:
        """Train, evaluate, write the files, seal the record."""
        module, strategy = self.module, self.strategy
        if strategy.fits_head == "start":
            strategy.fit_head(module.classifier, self.encoded.tensors, module.weights)
        start = self._start()
        module.watch = self.evaluate.retention
        self._epoch_zero()
        before = dict(module.outputs) if isinstance(module, RetrievalModule) else None
        if not self.run.config["retention_every_epoch"]:
            module.watch = None
        source = distributed.from_first(self.run.same_training) if self.run.begin is None else None
        if source is not None:
            last = self._take(source)
        else:
            self._train()
            last = copied(module.classifier) if start else None
            module.load_state_dict(self._best())
            if self.recorder.best_outputs:
                self.evaluate.outputs["val"] = self.recorder.best_outputs
        # It would take each further look at val for an epoch.
        self.trainer.callbacks.remove(self.recorder)  # type: ignore[attr-defined]
        end = None if self.record["selection"]["epoch"] else last
        ends = None if start is None else (start, end)
        merge = self.run.merge if ends else None
        Finish(self.evaluate, self.run.folder, self.record, merge, ends, before)()
        if distributed.here.first and (
            lack := tensorboard_summary.add(self.run.folder, self.record, self.data)
        ):
            self.run.warn(lack)
        distributed.agree("end", "reached")  # a run is completed when all of it is
        self._seal()
        if distributed.here.first:
            resume.clear(self.run.folder)

    def _best(self) -> Any:
        """The weights of the chosen epoch."""
        best = checkpoint_io.read(self.run.folder / "checkpoints" / "best.ckpt")
        epoch = best["epoch"] + 1 if best["global_step"] else 0
        if self.trainer.global_step and epoch != self.record["selection"]["epoch"]:
            # Of an epoch that this run came to before it was interrupted, and to another end.
            raise UserError("the run did not go on as it had before; use ckpt.resume=null")
        return best["state_dict"]

    def _start(self) -> State | None:
        """The weights before training, if averages with them are asked for and mean something."""
        merge, classifier = self.run.merge, self.module.classifier
        if merge is None:
            return None
        if not classifier.meaningful or not (self.strategy.trains or self.strategy.fits_head):
            what = "nothing is trained" if classifier.meaningful else "the head is random"
            self.run.warn(f"no alphas: there is no start to average with where {what}")
            return None
        if merge.kind == "paint" and any(p.requires_grad for p in classifier.head.parameters()):
            raise UserError("merge=paint is for a head that stays; add strategy.head_trains=false")
        if merge.statistics == "reestimate" and self.strategy.frozen_statistics:
            self.run.warn(
                "merge_bn=reestimate takes the pretrained statistics away, under which this run "
                "was tuned; merge_bn=average keeps them"
            )
        return copied(classifier)

    def _changed(self) -> None:
        best = self.recorder.best
        self.record["curve"] = self.recorder.curve
        self.record["selection"]["epoch"] = best and best["epoch"]
        self.run.write()

    def _validate(self) -> None:
        self.trainer.validate(self.module, self.loaders.eval_dataloader("val"), verbose=False)

    def _epoch_zero(self) -> None:
        # Two towers can be asked without a head, though a new one answers by chance.
        begin = self.run.begin
        if begin is not None:
            state = checkpoint_io.read(begin.path(self.run.folder))
            self.recorder.load_state_dict(state["callbacks"][self.recorder.state_key])
            self._changed()
        if not self.module.classifier.meaningful and self.data.classes:
            nulls = {f"val/{name}": None for name in ("loss", *self.data.measured)}
            if begin is None:
                self.recorder.add(0, nulls, self.trainer, self.module)
            return
        if begin is None:
            self._validate()
        elif isinstance(self.module, RetrievalModule):  # whose outputs are shown in the end
            self.recorder.looks_on = True
            self._validate()
            self.recorder.looks_on = False
        if self.strategy.fits_head == "start" or not self.module.classifier.meaningful:
            return
        if message := self._far_below():
            self.run.warn(message)

    def _far_below(self) -> str | None:
        """What is wrong with epoch 0, if anything."""
        data, row, gate = self.data, self.recorder.curve[0], self.run.config["gate"]
        arch = self.run.config["model"].get("arch", "")
        loaded = self.module.classifier.tower.loaded
        known = partial(sanity_checks.published_zero_shot, arch, loaded, data.published_name)
        if isinstance(data, CaptionDataModule):
            reference, n = known("image_retrieval_recall@5"), len(data.splits["val"])
            return sanity_checks.zero_shot_retrieval(
                row, pictures=n, reference=reference, gate=gate
            )
        return sanity_checks.zero_shot(row, classes=len(data.classes), reference=known(), gate=gate)

    def _train(self) -> None:
        module, loaders = self.module, self.loaders
        if self.strategy.fits_head == "run":
            self.strategy.fit_head(module.classifier, self.encoded.tensors, module.weights)
            self.recorder.epoch = 1
            self._validate()
        elif self.strategy.trains:
            train = loaders.train_dataloader()
            if self.run.mixed is not None:
                module.mixed = self.run.mixed
                train = Zipped(train, self.run.mixed.data.train_dataloader())
            begin, path = self.run.begin, None
            if begin is not None:
                # Before the loader is asked: Lightning tells the epoch after (its issue 21938).
                train.sampler.begin(begin.epoch, begin.batch * self.run.rows[0])
                path = begin.path(self.run.folder)
            self.trainer.fit(module, train, loaders.eval_dataloader("val"), ckpt_path=path)
            taken, planned = self.trainer.global_step, self.run.schedule.total
            if module.skipped:
                self._skipped(taken)
            if taken != planned and (epoch := stopped(self.trainer)) is not None:
                self._stopped(epoch, taken)
            elif taken != planned:
                raise UserError(f"{taken} steps were taken and {planned} planned; set epochs alone")

    def _skipped(self, taken: int) -> None:
        """Record the steps that a gradient scaler left out; a few at the start are its way."""
        skipped = self.record["steps"]["skipped"] = self.module.skipped
        if skipped > 0.05 * taken:
            self.run.warn(
                f"{skipped} of {taken} steps were skipped: float16 gradients overflowed at the "
                "scale at hand, which was lowered; use trainer.precision=bf16-mixed where there is"
            )

    def _stopped(self, epoch: int, taken: int) -> None:
        """What of the schedule was left when early stopping ended the run."""
        self.record["steps"] |= {"stopped": epoch, "taken": taken}
        rate = self.run.schedule.factor(taken)
        self.run.warn(
            f"stopped early after epoch {epoch}, {taken} of {self.run.schedule.total} steps: the "
            f"learning rate was still at {rate:.0%} of its peak; epochs={epoch} would have let it "
            "fall to its end"
        )

    def _take(self, source: Path) -> State | None:
        """The weights and the curve of another run, which trained the same.

        Returns:
            Its weights after the last epoch, if they were kept.
        """
        last, checkpoint = None, source / "checkpoints" / "last.ckpt"
        if checkpoint.is_file():
            kept = torch.load(checkpoint, map_location="cpu", weights_only=True)
            self.module.load_state_dict(kept["state_dict"])
            last = copied(self.module.classifier)
        self.module.classifier.load_state_dict(saved_model.classifier(source).state_dict())
        record = store.read(source)
        assert record is not None
        chosen = record["selection"]["epoch"]
        self.recorder.take(record["curve"][1:], chosen, self.trainer)
        # Nothing has been evaluated yet where the head was random.
        self.trainer.strategy.connect(self.module)
        self.trainer.save_checkpoint(self.run.folder / "checkpoints" / "best.ckpt", True)
        self.record["weights_from"] = {"key": record["key"], "folder": source.name}
        self.record["cost"] = record["cost"]
        console.print(f"weights of {source.name}, which trained the same", highlight=False)
        if note := reuse.difference(record):
            self.run.warn(f"the weights of {source.name} were {note}")
        return last

    def _seal(self) -> None:
        recorder, before = self.recorder, self.record["cost"]
        pace = recorder.pictures / recorder.train_seconds if recorder.pictures else None
        seconds = time.perf_counter() - self.run.started
        # What the weights have cost is part of what this run costs, whoever paid it.
        self.record["cost"] = {
            "seconds": seconds + before.get("seconds", 0),
            "images_per_second": before.get("images_per_second", pace),
            **environment.device(self.trainer.strategy.root_device),
        }
        self.record["status"] = "completed"
        self.run.write()


def tuning(
    classifier: Classifier,
    strategy: Strategy,
    recipe: Mapping[str, Any],
    schedule: schedule.Schedule,
    data: ClassificationDataModule | CaptionDataModule,
) -> FineTuningModule:
    """The module that trains and evaluates a classifier on a kind of data.

    Args:
        classifier: as the strategy prepared it.
        strategy: of the run.
        recipe: plain data.
        schedule: learning rate by optimiser step.
        data: with its splits.
    """
    parts = (classifier, strategy, recipe, schedule)
    if isinstance(data, CaptionDataModule):
        return RetrievalModule(*parts, data.measure)
    weights = data.class_weights()
    weighed = None if weights is None else torch.from_numpy(weights)
    return ClassificationModule(*parts, data.measure, weighed)
