"""What datasets share whose images have a class."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clipbench.datamodules.base import DataModule
from clipbench.loading import class_names
from clipbench.loading.samplers import KeyedSampler, UniqueSampler, even_weights
from clipbench.loading.split import Split, few_shot
from clipbench.loading.validation import (
    check_labels,
    check_names,
)
from clipbench.metrics import classification, registry


class ClassificationDataModule(DataModule):
    """A dataset of labelled images.

    Attributes:
        classes: class names as prompts use them, in label order.
        keys: what the dataset itself calls its classes, where that is something else.
        templates: prompts with one ``{}`` for the class name, or one ``{a}`` for the name with its
            indefinite article.
        name_variants: other sets of names, to be asked for as ``dataset.class_names=<variant>``.
        homonyms: names that several classes bear in the dataset's own list.
        metrics: what its literature reports, the one selected on first; see :attr:`measured`.
        groups: the names of each kind of group that ``Split.groups`` counts.
        levels: coarser labels: of each kind the label of every class.
    """

    classes: list[str]
    keys: Sequence[str] | None = None
    templates: list[str]
    name_variants: Mapping[str, Sequence[str]] = {}
    homonyms: Collection[str] = ()
    metrics: Sequence[str] = ("acc",)
    groups: Mapping[str, Sequence[str]] = {}
    levels: Mapping[str, Sequence[int]] = {}

    def _arranged(self, splits: dict[str, Split], seed: int) -> dict[str, Split]:
        keys = list(self.keys or self.classes)
        self.templates = class_names.templates(self.given_templates, self.templates)
        self.classes = class_names.class_names(
            keys, self.classes, self.given_names, self.name_variants
        )
        if self.subset is not None:
            labels = class_names.chosen(keys, self.classes, self.subset)
            splits = {name: split.of_classes(labels) for name, split in splits.items()}
            self.classes = [self.classes[label] for label in labels]
            self.keys = [keys[label] for label in labels]
            self.levels = {k: [of[label] for label in labels] for k, of in self.levels.items()}
        if self.shots is not None and "train" in splits:
            splits["train"] = few_shot(splits["train"], self.shots, seed)
        return splits

    def check(self) -> None:
        """Check names, prompts and labels, then what every dataset checks.

        Raises:
            UserError: with the list of what is wrong.
        """
        check_names(self.classes, self.templates, self.homonyms)
        found = check_labels(self.splits, self.classes)
        self.warnings += [warning for warning in found if warning not in self.warnings]
        super().check()

    def caption(self, prompts: Sequence[Sequence[str]]) -> None:
        """Give each image of train its class's prompts for captions, if it has none."""
        train = self.splits["train"]
        if train.captions is None:
            captions = [prompts[label] for label in train.labels.tolist()]  # shared, not copied
            self.splits["train"] = replace(train, captions=captions, prompted=True)

    def class_weights(self) -> NDArray[np.float64] | None:
        """Return the weight of each class, (C,), for ``balance=weights``; else None."""
        labels = self.splits["train"].labels
        return even_weights(labels, len(self.classes)) if self.balance == "weights" else None

    def train_sampler(self) -> KeyedSampler:
        """Return the sampler of an epoch's rows, which ``balance`` may draw evenly over classes."""
        labels, kept = self.splits["train"].labels, self.epoch.kept(self.batch_size)
        if self.balance == "unique":
            return UniqueSampler(labels, self.seed, self.batch_size, kept)
        weights = None
        if self.balance == "sampler":
            weights = even_weights(labels, len(self.classes))[labels]
        return KeyedSampler(len(self.epoch), self.seed, weights, kept)

    @property
    def measured(self) -> list[str]:
        """Every metric of a split: the dataset's own, then what is worth knowing of any."""
        names = dict.fromkeys([*self.metrics, *registry.COMPUTED])
        return [
            name
            for name in names
            if name != "loss" and len(self.classes) >= registry.of(name).min_classes
        ]

    def measure(self, name: str, logits: Tensor, labels: Tensor) -> dict[str, float]:
        """Return the metrics of a whole split.

        Args:
            name: the split's.
            logits: (n, C).
            labels: (n,).
        """
        split = self.splits[name]
        scores = classification.among(logits, split.among)
        return classification.classification(
            scores, labels, self.measured, groups=split.groups, levels=self.levels
        )
