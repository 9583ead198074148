"""Whole splits evaluated outside of training, with the weights at hand or with others."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from pytorch_lightning import Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from clipbench.core.errors import UserError
from clipbench.datamodules.base_captions import CaptionDataModule
from clipbench.datamodules.base_classification import ClassificationDataModule
from clipbench.datamodules.feature_loaders import FeatureLoaders
from clipbench.models.base import Classifier
from clipbench.models.weight_averaging import State
from clipbench.strategies.base import Batch
from clipbench.training.module import FineTuningModule

Data = ClassificationDataModule | CaptionDataModule
Loaders = Data | FeatureLoaders  # of images, or of features computed before
Outputs = Mapping[str, Mapping[str, Tensor]]  # of the module, by split


@dataclass
class Evaluator:
    """Evaluates a classifier on whole splits, outside of training.

    Attributes:
        trainer: without a recorder, which would take each call for an epoch.
        retention: evaluated along with the first split of several.
        outputs: of the module, at the last evaluation of each split.
    """

    trainer: Trainer
    module: FineTuningModule
    loaders: Loaders
    data: Data
    retention: Callable[[Classifier], dict[str, float]] | None = None
    outputs: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def __call__(self, names: Sequence[str], weights: State | None = None) -> dict[str, float]:
        """Return the metrics ``<split>/<metric>`` of some splits, after loading weights, if any.

        Raises:
            UserError: if a part of a split was left out.
        """
        if weights is not None:
            self.module.classifier.load_state_dict(dict(weights))
        values, retained = dict[str, float](), dict[str, float]()
        self.module.watch = self.retention
        for name in names:
            self.module.split = name
            loader = self.loaders.eval_dataloader(name)
            self.trainer.validate(self.module, loader, verbose=False)
            self.module.watch = None
            if self.module.rows != len(self.data.splits[name]):
                raise UserError(f"not all of {name} was evaluated; unset trainer.limit_*_batches")
            measured = self.module.values
            retained |= {k: v for k, v in measured.items() if k.startswith("retention/")}
            values |= {k: v for k, v in measured.items() if k not in retained}
            self.outputs[name] = self.module.outputs
        return values | retained

    def train_rows(self, count: int, seed: int, batch_size: int) -> Iterator[Batch]:
        """Yield batches of at most ``count`` images of train, drawn without augmentation."""
        loader = self.loaders.eval_dataloader("train")
        length = len(self.data.splits["train"])
        positions = np.random.default_rng([seed, count]).permutation(length)[:count]
        rows = Subset(loader.dataset, positions.tolist())
        device, precision = self.trainer.strategy.root_device, self.trainer.precision_plugin
        for batch in DataLoader(rows, batch_size, collate_fn=loader.collate_fn):
            moved = {k: v.to(device) for k, v in batch.items() if isinstance(v, Tensor)}
            yield precision.convert_input(moved)


def copied(classifier: Classifier) -> State:
    """Return a copy of a classifier's weights on the CPU."""
    return {k: v.detach().cpu().clone() for k, v in classifier.state_dict().items()}
