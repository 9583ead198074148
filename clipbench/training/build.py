"""The parts of a run: model -> classifier -> module -> Trainer, and what evaluates."""

from dataclasses import asdict, dataclass

import torch
from pytorch_lightning import Callback, Trainer, seed_everything

from clipbench.core.config.instantiate import build as build_object
from clipbench.core.console import console
from clipbench.datamodules.base_captions import CaptionDataModule
from clipbench.datamodules.feature_loaders import FeatureLoaders
from clipbench.models.base import Classifier, ImageTower, encoder
from clipbench.strategies.base import Strategy, Task
from clipbench.strategies.recipe import Recipe
from clipbench.training import lightning_internals, recommendations, sanity_checks
from clipbench.training.callbacks import EMA, Recorder
from clipbench.training.checkpoints import Keep, early_stopping
from clipbench.training.evaluator import Data, Evaluator, Loaders
from clipbench.training.module import ClassificationModule, FineTuningModule, RetrievalModule
from clipbench.training.resume import Resume, ResumePoint
from clipbench.training.robustness.retention import Retention
from clipbench.training.run_folder import RunFolder
from clipbench.training.schedule import Schedule, ema_decay
from clipbench.training.spec import RunSpec
from clipbench.training.trainer import trainer
from clipbench.transforms.mixup import MixUp


@dataclass(frozen=True)
class Components:
    """What trains and evaluates in a run.

    The loaders are of features where the image tower stays as it is; the recorder is the callback
    that keeps the curve.
    """

    spec: RunSpec
    folder: RunFolder
    module: FineTuningModule
    loaders: Loaders
    features: FeatureLoaders
    trainer: Trainer
    recorder: Recorder
    evaluator: Evaluator


def build(spec: RunSpec, folder: RunFolder, resume_from: ResumePoint | None) -> Components:
    """Check the data, load the model and put the parts of a run together.

    Raises:
        UserError: for what would spoil the run.
    """
    _check_data(spec, folder)
    classifier = _classifier(spec)
    folder.record.parameters = classifier.counts()
    folder.save()
    if spec.strategy.trains:
        fewest, size = spec.batch.smallest_part, spec.batch.size
        sanity_checks.lone_image(classifier, spec.strategy, fewest, size)
    _warn_of_model(spec, folder, classifier.tower)
    module = _module(spec, classifier)
    recorder = Recorder(folder.path, spec.metric, folder.save_curve)
    staged = spec.strategy.staged
    lightning = trainer(spec.config, folder.path, _callbacks(spec, recorder), staged=staged)
    every = spec.config["ckpt"]["every_steps"]
    # Last, and past the Trainer's own check, which allows one kind of checkpoint.
    resume = Resume(folder.path, spec.key, folder.started, every, resume_from)
    lightning_internals.callbacks(lightning).append(resume)
    data = spec.data.dataset
    features = FeatureLoaders(data, encoder(classifier.tower, lightning.strategy.root_device))
    loaders: Loaders = features if spec.strategy.reads_features else data
    retention = _retention(spec, folder, classifier.tower, lightning)
    evaluator = Evaluator(lightning, module, loaders, data, retention)
    return Components(spec, folder, module, loaders, features, lightning, recorder, evaluator)


def fine_tuning_module(
    classifier: Classifier, strategy: Strategy, recipe: Recipe, schedule: Schedule, data: Data
) -> FineTuningModule:
    """Return the module that trains and evaluates a classifier on a kind of data."""
    if isinstance(data, CaptionDataModule):
        return RetrievalModule(classifier, strategy, recipe, schedule, data.measure)
    balance = data.class_weights()
    weights = None if balance is None else torch.from_numpy(balance)
    return ClassificationModule(classifier, strategy, recipe, schedule, data.measure, weights)


def _check_data(spec: RunSpec, folder: RunFolder) -> None:
    """Look at every image, and print what was chosen and what is unusual."""
    spec.data.dataset.check()
    for reason in spec.reasons:
        console.print(reason, highlight=False)
    unusual = recommendations.warnings(spec.facts, asdict(spec.recipe), spec.schedule.total)
    for warning in [*spec.data.dataset.warnings, *unusual]:
        folder.warn(warning)


def _classifier(spec: RunSpec) -> Classifier:
    """Return the classifier at its start, with images prepared as it takes them."""
    config, data = spec.config, spec.data
    # Twice: for weights that start at random, and for a head whatever those have drawn.
    seed_everything(config["seed"], workers=True, verbose=False)
    tower: ImageTower = build_object(config["model"])
    # Convolutions are a third faster so on CPUs, and faster on GPUs; nothing else changes.
    tower.to(memory_format=torch.channels_last)
    if config["grad_checkpointing"]:
        tower.set_grad_checkpointing()
    seed_everything(config["seed"], workers=True, verbose=False)
    classifier = spec.strategy.prepare(tower, Task(data.dataset.classes, data.prompts))
    size, mixed_size = spec.batch.rows
    data.dataset.attach(
        preprocess=tower.preprocess, augment=spec.augment, batch_size=size, seed=config["seed"]
    )
    tower.preprocess = data.dataset.preprocess  # dataset.resize_mode goes with the weights
    if data.mixed is not None:
        data.mixed.ready(classifier.tower, spec.strategy, mixed_size, spec.augment)
    return classifier


def _warn_of_model(spec: RunSpec, folder: RunFolder, tower: ImageTower) -> None:
    """Warn of doubtful weights, and of texts that are not read to their end."""
    data = spec.data.dataset
    splits = data.splits.values() if isinstance(data, CaptionDataModule) else ()
    captions = [text for split in splits for texts in split.captions or () for text in texts]
    tasks = {"": (data.classes, spec.data.prompts)}
    tasks |= {f"{k}: ": (v.data.classes, v.prompts) for k, v in spec.data.others.items()}
    for warning in (*tower.warnings, *sanity_checks.texts(tower, captions, tasks)):
        folder.warn(warning)


def _module(spec: RunSpec, classifier: Classifier) -> FineTuningModule:
    data, seed = spec.data.dataset, spec.config["seed"]
    module = fine_tuning_module(classifier, spec.strategy, spec.recipe, spec.schedule, data)
    module.seed, module.last_step = seed, spec.config["steps"]
    if spec.augment.mixes:
        module.mixup = MixUp(spec.augment, len(data.classes), seed)
    return module


def _callbacks(spec: RunSpec, recorder: Recorder) -> list[Callback]:
    callbacks: list[Callback] = [recorder]
    if spec.config["keep"] is not None:
        callbacks.append(Keep(recorder, spec.config["keep"]))
    if spec.config["patience"] is not None:
        callbacks.append(early_stopping(spec.metric, spec.config["patience"]))
    decay = ema_decay(spec.recipe.ema, spec.schedule.total)
    if decay is not None and spec.strategy.trains:
        callbacks.append(EMA(decay))
    return callbacks


def _retention(
    spec: RunSpec, folder: RunFolder, tower: ImageTower, lightning: Trainer
) -> Retention | None:
    """Return the measure of forgetting; None for a model that can make no head of the classes."""
    retention = spec.data.retention
    if retention is not None and not retention.ready(tower, lightning, spec.recipe.batch_size):
        folder.warn("no retention: this model has no text tower to make another dataset's head")
        return None
    return retention
