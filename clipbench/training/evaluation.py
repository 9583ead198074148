"""Whole splits evaluated outside of training, with the weights at hand or with others."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pytorch_lightning import Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from clipbench.core.errors import UserError
from clipbench.datamodules.base_captions import CaptionDataModule
from clipbench.datamodules.base_classification import ClassificationDataModule
from clipbench.metrics import calibration, classification
from clipbench.models.base import Classifier
from clipbench.models.weight_averaging import State
from clipbench.training.module import FineTuningModule


@dataclass
class Evaluator:
    """Evaluates a classifier on whole splits, outside of training.

    Attributes:
        trainer: with no recorder among its callbacks, which would take each look for an epoch.
        module: holds the classifier.
        loaders: of pictures, or of features.
        data: the dataset.
        retention: evaluated along with the first split of several.
        outputs: of the module, at the last look at each split.
    """

    trainer: Trainer
    module: FineTuningModule
    loaders: Any
    data: ClassificationDataModule | CaptionDataModule
    retention: Callable[[Classifier], dict[str, float]] | None = None
    outputs: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def __call__(self, names: Sequence[str], weights: State | None = None) -> dict[str, float]:
        """Metrics ``<split>/<metric>``, with given weights or those at hand.

        Raises:
            UserError: if a part of a split was left out.
        """
        if weights is not None:
            self.module.classifier.load_state_dict(dict(weights))
        values: dict[str, float] = {}
        remembered: dict[str, float] = {}
        self.module.watch = self.retention
        for name in names:
            self.module.split = name
            loader = self.loaders.eval_dataloader(name)
            self.trainer.validate(self.module, loader, verbose=False)
            self.module.watch = None
            if self.module.rows != len(self.data.splits[name]):
                raise UserError(f"not all of {name} was evaluated; unset trainer.limit_*_batches")
            found = self.module.values
            remembered |= {k: v for k, v in found.items() if k.startswith("retention/")}
            values |= {k: v for k, v in found.items() if k not in remembered}
            self.outputs[name] = self.module.outputs
        return values | remembered

    def train_rows(self, count: int, seed: int, batch_size: int) -> Iterator[dict[str, Any]]:
        """Batches of train as they are evaluated, drawn without augmentation."""
        loader = self.loaders.eval_dataloader("train")
        positions = np.random.default_rng([seed, count]).permutation(len(loader.dataset))[:count]
        rows = Subset(loader.dataset, positions.tolist())
        drawn = DataLoader(rows, batch_size, collate_fn=loader.collate_fn)
        device, converted = self.trainer.strategy.root_device, self.trainer.precision_plugin
        for batch in drawn:
            moved = {k: v.to(device) for k, v in batch.items() if isinstance(v, Tensor)}
            yield converted.convert_input(moved)


def copied(classifier: Classifier) -> State:
    """Its weights as they are now, on the CPU."""
    return {k: v.detach().cpu().clone() for k, v in classifier.state_dict().items()}


def chosen_epoch(evaluate: Evaluator) -> dict[str, float]:
    """Metrics of the splits that are read once, the strategy's evaluation points side by side."""
    names = evaluate.data.evaluation_splits
    final: dict[str, float] = {}
    classifier = evaluate.module.classifier
    for suffix, weights in evaluate.module.strategy.evaluation_points(classifier):
        outputs = dict(evaluate.outputs)
        # Without such splits there is still what is remembered of the other task.
        values = evaluate(names or (["val"] if evaluate.retention else []), weights)
        final |= {f"{name}{suffix}": v for name, v in values.items() if not name.startswith("val/")}
        if suffix:
            evaluate.outputs = outputs
    return final


def calibrated(
    data: ClassificationDataModule, outputs: Mapping[str, Mapping[str, Tensor]]
) -> tuple[float, dict[str, float]]:
    """The temperature fitted on val, and ``<split>/ece_scaled`` with it."""
    splits, val = data.splits, outputs["val"]
    t = calibration.temperature(
        classification.among(val["logits"], splits["val"].among), val["label"]
    )
    scaled = {}
    for name, output in outputs.items():
        scores = classification.among(output["logits"] / t, splits[name].among)
        scaled[f"{name}/ece_scaled"] = classification.ece(scores, output["label"])
    return t, scaled
