"""A strategy turns a model into a classifier, says what of it trains, and what to evaluate."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from clipbench.errors import Refused
from clipbench.models.base import Classifier, ImageTower, random_head
from clipbench.optim import Group, param_groups


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


def logits(classifier: Classifier, batch: Batch) -> Tensor:
    """Logits (B, C) of a batch of pictures, or of features computed before."""
    if "features" in batch:
        return classifier.classify(batch["features"])
    scores: Tensor = classifier(batch["image"])
    return scores


def layer_names(blocks: int) -> list[str]:
    """Names for the groups of ``ImageTower.layers()``, in the record and in messages."""
    return ["stem", *(f"block {i + 1}" for i in range(blocks)), "tail"]


def freeze(tower: ImageTower, depth: int | str) -> None:
    """Freeze the first part of an image tower, and everything that is no part of it.

    Args:
        tower: its text side and logit scale, if it has them, are frozen whatever the depth.
        depth: 0 freezes nothing; k >= 1 the stem and the first k blocks; L, the number of blocks,
            leaves the final norm and projection; ``all`` leaves nothing.

    Raises:
        Refused: if the depth is neither ``all`` nor in 0..L.
    """
    layers = tower.layers()
    blocks = len(layers) - 2
    if depth == "all":
        frozen = len(layers)
    elif isinstance(depth, int) and 0 <= depth <= blocks:
        frozen = depth + 1 if depth else 0
    else:
        raise Refused(f"freeze_depth={depth} is not possible here; use 0..{blocks} or all")
    tower.requires_grad_(False)
    for parameter in (p for layer in layers[frozen:] for p in layer):
        parameter.requires_grad_(True)


class Strategy(ABC):
    """One way of tuning.

    Attributes:
        trains: False for a strategy that only evaluates.
        reads_features: True where the image tower stays as it is, so that its features are
            computed once and without augmentation.
        reads_captions: True where each step reads captions: a class's prompts, where the dataset
            has none.
        frozen_statistics: whether BatchNorm keeps its running statistics in blocks that train too.
        pairs: True where the loss is of all pairs in a batch, no mean over its rows: it is then
            given whole batches, and keeps to ``micro_batch`` by
            :func:`clipbench.accumulation.encoded`.
        micro_batch: how many rows' activations may be in memory at once; None for a batch's.
        ignores: root keys of a config that cannot change the outcome of this strategy.
    """

    trains: bool = True
    reads_features: bool = False
    reads_captions: bool = False
    frozen_statistics: bool = False
    pairs: bool = False
    micro_batch: int | None = None
    ignores: frozenset[str] = frozenset()

    @abstractmethod
    def prepare(self, tower: ImageTower, task: Task) -> Classifier:
        """The classifier at its start, with ``requires_grad`` set on what trains."""

    def loss(
        self,
        classifier: Classifier,
        batch: Batch,
        *,
        smoothing: float,
        step: int,
        weights: Tensor | None = None,
    ) -> Tensor:
        """The training loss of a batch: cross-entropy over the classes.

        Args:
            classifier: in training mode.
            batch: ``image`` (B, 3, S, S) or ``features`` (B, D), ``label`` (B,), ...
            smoothing: of the labels.
            step: of the optimiser, to key what is random.
            weights: of each class, (C,), with mean 1 over train; None for equal ones.
        """
        scores, label = logits(classifier, batch), batch["label"]
        if weights is None:
            return F.cross_entropy(scores, label, label_smoothing=smoothing)
        # Over the batch's size, not over its weights: those would make a batch of one class count
        # as much as any other, whatever the class.
        weighted = F.cross_entropy(
            scores, label, weight=weights.to(scores), label_smoothing=smoothing, reduction="sum"
        )
        return weighted / len(label)

    def refresh(self, classifier: Classifier) -> None:
        """Called before each evaluation, for a head that follows something that trains."""
        return

    def param_groups(self, classifier: Classifier, recipe: Mapping[str, Any]) -> list[Group]:
        """Optimiser groups: of the image tower, the text tower, the logit scale, the head.

        Only what trains is in them. The image tower has layer-wise learning rates; the text tower
        and the head have factors and the text tower a weight decay of their own; the logit scale
        never decays.

        Args:
            classifier: as :meth:`prepare` left it.
            recipe: ``lr``, ``head_lr_factor``, ``text_lr_factor``, ``weight_decay``,
                ``text_weight_decay`` (None: as the rest), ``decay_all`` and ``layer_decay``.
        """
        layers = classifier.tower.layers()
        image = {id(p) for layer in layers for p in layer}
        parts: dict[str, list[tuple[str, nn.Parameter]]] = {
            "image tower": [],
            "text tower": [],
            "logit scale": [],
            "head": list(classifier.head.named_parameters()),
        }
        scales = {id(p) for p in classifier.tower.scales()}
        for name, parameter in classifier.tower.named_parameters():
            other = "logit scale" if id(parameter) in scales else "text tower"
            parts["image tower" if id(parameter) in image else other].append((name, parameter))
        lr, decay, text_decay = (recipe[k] for k in ("lr", "weight_decay", "text_weight_decay"))
        if text_decay is None:
            text_decay = decay
        own: dict[str, dict[str, Any]] = {
            "image tower": {"layers": layers, "layer_decay": recipe["layer_decay"]},
            "text tower": {"lr": lr * recipe["text_lr_factor"], "weight_decay": text_decay},
            "logit scale": {"decay_all": False},
            "head": {"lr": lr * recipe["head_lr_factor"]},
        }
        common = {"lr": lr, "weight_decay": decay, "decay_all": recipe["decay_all"]}
        return [
            group
            for name, named in parts.items()
            for group in param_groups(named, name=name, **(common | own[name]))
        ]

    def evaluation_points(
        self, classifier: Classifier
    ) -> Iterator[tuple[str, Mapping[str, Tensor] | None]]:
        """What is evaluated on the test splits: a metric suffix, and weights or None.

        None stands for the weights at hand, those of the chosen epoch.
        """
        yield "", None


def start_head(tower: ImageTower, task: Task, head: str) -> Classifier:
    """A classifier with the head that a config asks for.

    Args:
        tower: the image tower.
        task: classes, and prompts for a head made of text.
        head: ``zero_shot``, ``random``, or ``auto``: made of text where there is a text side.

    Raises:
        Refused: if ``zero_shot`` is asked of a model with no text side.
    """
    made = tower.zero_shot_head(task.prompts) if head != "random" else None
    if made is not None:
        return Classifier(tower, made, meaningful=True)
    if head == "zero_shot":
        raise Refused("this model has no text side to make a head of; use strategy=finetune")
    return Classifier(tower, random_head(tower, len(task.classes)), meaningful=False)
