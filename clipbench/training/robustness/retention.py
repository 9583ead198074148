"""What a model still knows of another dataset while it is tuned on one: its forgetting."""

import torch
from pytorch_lightning import Trainer
from torch import Tensor

from clipbench.core import distributed
from clipbench.core.config.option_files import Node
from clipbench.models.base import Classifier, ImageTower
from clipbench.training.robustness.auxiliary_dataset import AuxiliaryDataset


class Retention(AuxiliaryDataset):
    """The metrics of another dataset's test split (val where it has none)."""

    def __init__(self, node: Node, seed: int) -> None:
        super().__init__(node, "retention", seed)
        self.split = "test" if "test" in self.data.splits else "val"
        # The other splits are not read, and may be wrong.
        self.data.splits = {self.split: self.data.splits[self.split]}
        self.trainer: Trainer | None = None

    def ready(self, tower: ImageTower, trainer: Trainer, batch_size: int) -> bool:
        """Prepare for evaluation; return False if the model cannot make a head of the classes."""
        self.attach(tower, batch_size)
        self.trainer = trainer
        return self.head(tower) is not None

    def __call__(self, classifier: Classifier) -> dict[str, float]:
        """Return ``retention/<metric>`` of the tuned towers with the zero-shot head."""
        head = self.head(classifier.tower)
        assert self.trainer is not None
        assert head is not None
        zero_shot = Classifier(classifier.tower, head, meaningful=True)
        columns: list[tuple[Tensor, Tensor, Tensor]] = []
        context = self.trainer.precision_plugin.forward_context
        # A loader draws a seed, which must not change what training draws.
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            for batch in self.data.eval_dataloader(self.split):
                with context():
                    scores = zero_shot(batch["image"].to(head.weight))
                columns.append((scores.float().cpu(), batch["label"], batch["index"]))
        logits, labels, index = (torch.cat(parts) for parts in zip(*columns, strict=True))
        logits, labels = distributed.whole(logits, index), distributed.whole(labels, index)
        values = self.data.measure(self.split, logits, labels)
        return {f"retention/{name}": value for name, value in values.items()}
