"""The base class of strategies: which classifier is made, what trains, what is evaluated."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from clipbench.core.config.instantiate import build
from clipbench.core.config.option_files import Node
from clipbench.core.errors import UserError
from clipbench.models.base import Classifier, ImageTower, random_head
from clipbench.strategies.param_groups import Group, param_groups
from clipbench.strategies.recipe import Recipe


@dataclass(frozen=True)
class Task:
    """What a dataset asks of a model.

    Attributes:
        classes: C names.
        prompts: texts of each class, one at least.
    """

    classes: Sequence[str]
    prompts: Sequence[Sequence[str]]


Batch = dict[str, Any]
# Root keys that change nothing where no optimizer steps.
STEPS = frozenset(
    {
        *("recipe", "lr", "batch_size", "micro_batch", "epochs", "steps", "warmup", "warmup_steps"),
        *("weight_decay", "label_smoothing", "head_lr_factor", "layer_decay", "ema"),
        *("grad_checkpointing", "patience"),
    }
)
HEADS = ("auto", "zero_shot", "random", "lp")


def logits(classifier: Classifier, batch: Batch) -> Tensor:
    """Return the logits (B, C) of a batch of images, or of features computed before."""
    if "features" in batch:
        return classifier.classify(batch["features"])
    scores: Tensor = classifier(batch["image"])
    return scores


def features(classifier: Classifier, batch: Batch) -> Tensor:
    """Return image features (B, D) of a batch, as the tower gives them, or computed before."""
    found: Tensor = batch["features"] if "features" in batch else classifier.tower(batch["image"])
    return found


def cross_entropy(
    scores: Tensor, label: Tensor, *, smoothing: float, weights: Tensor | None
) -> Tensor:
    """Return the cross-entropy of logits (B, C) and labels (B,), or class shares (B, C).

    Classes are weighted by ``weights`` (C,), if given.
    """
    if weights is None:
        return F.cross_entropy(scores, label, label_smoothing=smoothing)
    # Over the batch's size, not over its weights: those would make a batch of one class count
    # as much as any other, whatever the class.
    weighted = F.cross_entropy(
        scores, label, weight=weights.to(scores), label_smoothing=smoothing, reduction="sum"
    )
    return weighted / len(label)


class Strategy(ABC):
    """One way of tuning.

    Attributes:
        trains: False for a strategy that takes no optimizer steps.
        fits_head: ``start`` where a head is fitted on frozen features before epoch 0, ``run``
            where that is all there is, and epoch 1; None where none is.
        random: whether another seed gives other weights from the same data. A head that is fitted
            is the same every time, and so is one made of text.
        reads_features: True where the image tower stays as it is, so that its features are
            computed once and without augmentation.
        reads_captions: True where each step reads captions: a class's prompts, where the dataset
            has none.
        frozen_statistics: whether BatchNorm keeps its running statistics in blocks that train too.
        staged: whether some of what ever trains is frozen in some epochs.
        pairs: True where the loss is of all pairs in a batch, no mean over its rows: it is then
            given whole batches, and keeps to ``micro_batch`` by
            :func:`clipbench.strategies.gradient_cache.encoded`.
        soft_labels: whether its loss takes shares of the classes (B, C) for ``label``, as mixup
            makes them.
        full_batches: whether what is left over of an epoch is left out of it, since a loss of fewer
            pairs is another.
        every_pair: whether an epoch has each image once with each of its captions.
        retrieves: whether it means something for captions without classes.
        micro_batch: how many rows' activations may be in memory at once; None for a batch's.
        ignores: root keys of a config that cannot change the outcome of this strategy.
    """

    trains: bool = True
    fits_head: str | None = None
    random: bool = True
    reads_features: bool = False
    reads_captions: bool = False
    frozen_statistics: bool = False
    staged: bool = False
    pairs: bool = False
    soft_labels: bool = True
    full_batches: bool = False
    every_pair: bool = False
    retrieves: bool = False
    micro_batch: int | None = None
    ignores: frozenset[str] = frozenset()

    @abstractmethod
    def prepare(self, tower: ImageTower, task: Task) -> Classifier:
        """Return the classifier at its start, with ``requires_grad`` set on what trains."""

    def fit_head(
        self,
        classifier: Classifier,
        features: Callable[[str], tuple[Tensor, Tensor]],
        weights: Tensor | None = None,
    ) -> None:
        """Fit the head on train, its strength chosen on val, where :attr:`fits_head` says when.

        Args:
            classifier: its head is replaced in place.
            features: the tower's (n, D) and the labels (n,) of a split by name, without
                augmentation.
            weights: of each class, (C,), with mean 1 over train; None for equal ones.
        """
        from clipbench.strategies import (
            logistic_regression,  # scikit-learn, which most runs do without
        )

        logistic_regression.fit_head(classifier, features, weights)

    def begin_epoch(self, classifier: Classifier, epoch: int) -> None:
        """Prepare for an epoch of training; the first is 0."""
        return

    def restored(self, model: Node, file: str) -> ImageTower:
        """Return the tower of a run of this strategy, from its weight file.

        Args:
            model: the run's config of its model.
            file: ``model.safetensors``.
        """
        tower: ImageTower = build({**model, "pretrained": file})
        return tower

    def loss(
        self,
        classifier: Classifier,
        batch: Batch,
        *,
        smoothing: float,
        step: int,
        weights: Tensor | None = None,
    ) -> Tensor:
        """Return the training loss of a batch: cross-entropy over the classes.

        Args:
            classifier: in training mode.
            batch: ``image`` (B, 3, S, S) or ``features`` (B, D), ``label`` (B,) or (B, C), ...
            smoothing: of the labels.
            step: of the optimizer, to key what is random.
            weights: of each class, (C,), with mean 1 over train; None for equal ones.
        """
        scores = logits(classifier, batch)
        return cross_entropy(scores, batch["label"], smoothing=smoothing, weights=weights)

    def refresh(self, classifier: Classifier) -> None:
        """Update the head before an evaluation, where it depends on what trains."""
        return

    def param_groups(self, classifier: Classifier, recipe: Recipe) -> list[Group]:
        """Return optimizer groups of the image tower, the text tower, the logit scale, the head.

        Only what trains is in them. Both towers have layer-wise learning rates, but for a text
        tower whose blocks nobody names; the text tower and the head have factors and the text
        tower a weight decay of their own; the logit scale never decays.

        Args:
            classifier: as :meth:`prepare` left it.
            recipe: its learning rate and weight decay, their factors, and ``layer_decay``.
        """
        layers = classifier.tower.layers()
        image = {id(p) for layer in layers for p in layer}
        if classifier.tower.mean_pooled:  # its last norm is new, and learns as the head does
            layers = [*layers[:-1], []]
        parts: dict[str, list[tuple[str, nn.Parameter]]] = {
            "image tower": [],
            "text tower": [],
            "logit scale": [],
            "head": list(classifier.head.named_parameters()),
        }
        text_layers = classifier.tower.text_layers()
        if len(text_layers) == 2:  # no blocks between its two ends
            text_layers = []
        scales = {id(p) for p in classifier.tower.scales()}
        for name, parameter in classifier.tower.named_parameters():
            other = "logit scale" if id(parameter) in scales else "text tower"
            parts["image tower" if id(parameter) in image else other].append((name, parameter))
        text_decay = recipe.text_weight_decay
        own: dict[str, dict[str, Any]] = {
            "image tower": {"layers": layers},
            "text tower": {
                "layers": text_layers,
                "lr": recipe.lr * recipe.text_lr_factor,
                "weight_decay": recipe.weight_decay if text_decay is None else text_decay,
            },
            "logit scale": {"decay_all": False},
            "head": {"lr": recipe.lr * recipe.head_lr_factor},
        }
        common = {
            "lr": recipe.lr,
            "weight_decay": recipe.weight_decay,
            "decay_all": recipe.decay_all,
            "layer_decay": recipe.layer_decay,
        }
        return [
            group
            for name, named in parts.items()
            for group in param_groups(named, name=name, **(common | own[name]))
        ]

    def evaluation_points(
        self, classifier: Classifier
    ) -> Iterator[tuple[str, Mapping[str, Tensor] | None]]:
        """Yield what is evaluated on the test splits: a metric suffix, and weights or None.

        None stands for the weights at hand, those of the chosen epoch.
        """
        yield "", None


def start_head(tower: ImageTower, task: Task, head: str) -> Classifier:
    """Return a classifier with the head that a config names.

    Args:
        tower: the image tower.
        task: classes, and prompts for a head made of text.
        head: ``zero_shot``, ``random``, ``auto``: made of text where there is a text side, or
            ``lp``: to be fitted on frozen features before epoch 0, and random until then.

    Raises:
        UserError: for another head, or if ``zero_shot`` is asked of a model with no text side.
    """
    if head not in HEADS:
        raise UserError(f"no strategy.head={head}; there are {', '.join(HEADS)}")
    if head == "lp":
        return Classifier(tower, random_head(tower, len(task.classes)), meaningful=True)
    made = tower.zero_shot_head(task.prompts) if head != "random" else None
    if made is not None:
        return Classifier(tower, made, meaningful=True)
    if head == "zero_shot" and tower.mean_pooled:
        raise UserError(
            "model.pool=mean leaves the space that texts share, so there is no head of text; use "
            "strategy=finetune, lp_ft or linear_probe, or model.pool=null"
        )
    if head == "zero_shot":
        raise UserError(
            "this model has no text side to make a head of; use strategy=finetune, or lit, which "
            "gives it one"
        )
    return Classifier(tower, random_head(tower, len(task.classes)), meaningful=False)
