"""Images of another dataset in each batch, against forgetting: ``mix=DATASET``."""

from collections.abc import Iterator
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from clipbench.core import distributed
from clipbench.core.config.option_files import Node
from clipbench.core.errors import UserError
from clipbench.models.base import Classifier, ImageTower
from clipbench.strategies.base import Batch, Strategy
from clipbench.training.robustness.auxiliary_dataset import AuxiliaryDataset
from clipbench.transforms.augment import Augment


def rows(batch_size: int, fraction: float) -> tuple[int, int]:
    """Return how many rows of a batch are from the run's dataset, and how many are mixed in.

    Raises:
        UserError: if either would be 0.
    """
    mixed = round(batch_size * fraction)
    if not 0 < mixed < batch_size:
        raise UserError(
            f"mix_fraction={fraction} of batch_size={batch_size} is {mixed} rows of the other "
            "dataset; leave some for both"
        )
    return batch_size - mixed, mixed


class Replay(AuxiliaryDataset):
    """Cross-entropy over another dataset's classes, through a zero-shot head that does not train.

    It trains the run's image tower, for every strategy that trains it; ``weight`` is of its loss,
    added to the strategy's. FLYP's code names this ``replay_data`` and never reads it
    (locuslab/FLYP, src/args.py).
    """

    def __init__(self, node: Node, seed: int, weight: float) -> None:
        super().__init__(node, "mix", seed)
        self.weight = weight
        self.data.splits = {"train": self.data.splits["train"]}
        self.start_head: nn.Linear | None = None

    def ready(
        self, tower: ImageTower, strategy: Strategy, batch_size: int, augment: Augment
    ) -> None:
        """Prepare for training, with the head as the text tower makes it at the start.

        Raises:
            UserError: for a model without text, or a strategy that trains on no images.
        """
        if strategy.reads_features or not strategy.trains:
            raise UserError("mix=... is for an image tower that trains; use strategy=finetune")
        self.attach(tower, batch_size, augment)
        self.start_head = self.head(tower)
        if self.start_head is None:
            raise UserError("mix=... needs a model with text, to make a head of the other classes")

    def __call__(self, classifier: Classifier, batch: Batch) -> Tensor:
        """Return the weighted loss of a batch of the other dataset."""
        assert self.start_head is not None
        head = self.start_head.to(batch["image"])
        zero_shot = Classifier(classifier.tower, head, meaningful=True)
        return self.weight * F.cross_entropy(zero_shot(batch["image"]), batch["label"])


class Zipped:
    """Batches of a dataset, each with one of a second dataset as its ``mixed``.

    The first sets the length of an epoch; the second starts over as often as the first needs it,
    in an order that also depends on (seed, epoch) alone.
    """

    def __init__(self, first: DataLoader[Any], second: DataLoader[Any]) -> None:
        self.first, self.second, self.epoch, self.batch = first, second, 0, 0
        self.sampler = self  # the Trainer calls its set_epoch

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; the Trainer calls this before each one."""
        if epoch != self.epoch:
            self.epoch, self.batch = epoch, 0
        self.first.sampler.set_epoch(epoch)  # type: ignore[attr-defined]

    def begin(self, epoch: int, row: int) -> None:
        """Resume inside an epoch, of which ``row`` rows of the first have been seen."""
        assert self.first.batch_size is not None
        self.epoch, self.batch = epoch, row // (self.first.batch_size * distributed.here.world)
        self.first.sampler.begin(epoch, row)  # type: ignore[attr-defined]

    def __len__(self) -> int:
        return len(self.first)

    def _endless(self) -> Iterator[Batch]:
        passes = -(-len(self.first) // len(self.second))
        done, batches = divmod(self.batch, len(self.second))
        rows = batches * (self.second.batch_size or 0) * distributed.here.world
        for n in range(self.epoch * passes + done, (self.epoch + 1) * passes):
            self.second.sampler.begin(n, rows)  # type: ignore[attr-defined]
            rows = 0
            yield from self.second

    def __iter__(self) -> Iterator[Batch]:
        for batch, mixed in zip(self.first, self._endless(), strict=False):
            yield {**batch, "mixed": mixed}
