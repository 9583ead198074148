"""What a model still knows of another dataset while it is tuned on one: its forgetting."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning import Trainer
from torch import Tensor, nn

from clipbench.datamodules.base import ClassificationDataModule
from clipbench.datamodules.checks import check_labels, check_names, check_pictures
from clipbench.errors import Refused
from clipbench.models.base import Classifier, ImageTower
from clipbench.prompts import Prompts
from clipbench.schema import build
from clipbench.transforms import Augment


class OtherTask:
    """Another dataset, classified by a head of text made of its own class names and templates.

    Args:
        node: the config of a dataset.
        key: what asked for it, to be named in messages.
        seed: of the run.

    Raises:
        Refused: for a dataset without classes, or one that is not there.
    """

    def __init__(self, node: Mapping[str, Any], key: str, seed: int) -> None:
        data = build(node)
        if not isinstance(data, ClassificationDataModule):
            raise Refused(f"this dataset has captions and no classes; use another for {key}")
        self.data, self.key, self.seed = data, key, seed
        self.data.prepare(seed)
        self.prompts = Prompts().of(data.classes, data.templates, data.keys)
        self._head: nn.Linear | None = None

    def attach(self, tower: ImageTower, batch_size: int, augment: Augment | None = None) -> None:
        """Say how pictures become batches, as the model's checkpoint was trained.

        Raises:
            Refused: for names, labels or pictures that cannot be right.
        """
        data = self.data
        # Not data.check(), which wants a train split.
        check_names(data.classes, data.templates, data.homonyms)
        check_labels(data.splits, data.classes)
        check_pictures(data.splits, data.value_range)
        data.attach(
            preprocess=tower.preprocess,
            augment=augment or Augment(),
            batch_size=batch_size,
            seed=self.seed,
        )

    def head(self, tower: ImageTower) -> nn.Linear | None:
        """The head of its classes; made once if the text tower stays as it is.

        None for a model without text, or one whose features are not those that text is made for.
        """
        if self._head is None or _text_trains(tower):
            made = tower.zero_shot_head(self.prompts) if tower.normalized else None
            self._head = made and made.requires_grad_(False)
        return self._head and self._head.to(next(tower.parameters()).device)


class Retention(OtherTask):
    """The metrics of another dataset's test split (val where it has none).

    Args:
        node: the config of a dataset.
        seed: of the run.
    """

    def __init__(self, node: Mapping[str, Any], seed: int) -> None:
        super().__init__(node, "retention", seed)
        self.split = "test" if "test" in self.data.splits else "val"
        # The rest is not read, and need not be right.
        self.data.splits = {self.split: self.data.splits[self.split]}
        self.trainer: Trainer | None = None

    def ready(self, tower: ImageTower, trainer: Trainer, batch_size: int) -> bool:
        """Prepare for being asked; False for a model that can make no head of the classes."""
        self.attach(tower, batch_size)
        self.trainer = trainer
        return self.head(tower) is not None

    def identity(self) -> dict[str, str]:
        """What a run's key is to know of it."""
        said = hashlib.sha256(json.dumps(self.prompts).encode()).hexdigest()
        return {"data": self.record()["sha256"], "prompts": said}

    def record(self) -> dict[str, Any]:
        """For the run's record: its n, what n should be, and its fingerprint."""
        return self.data.record()[self.split]

    def __call__(self, classifier: Classifier) -> dict[str, float]:
        """``retention/<metric>`` of the tuned towers; the tuned head is not asked.

        Args:
            classifier: in eval mode, on its device.
        """
        assert self.trainer is not None
        head = self.head(classifier.tower)
        assert head is not None
        asked = Classifier(classifier.tower, head, meaningful=True)
        logits, labels = list[Tensor](), list[Tensor]()
        context = self.trainer.precision_plugin.forward_context
        # A loader draws a seed; training goes on as if nobody had looked.
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            for batch in self.data.eval_dataloader(self.split):
                with context():
                    scores = asked(batch["image"].to(head.weight.device))
                logits.append(scores.float().cpu())
                labels.append(batch["label"])
        values = self.data.measure(self.split, torch.cat(logits), torch.cat(labels))
        return {f"retention/{name}": value for name, value in values.items()}


def _text_trains(tower: ImageTower) -> bool:
    text = [*tower.scales(), *(p for layer in tower.text_layers() for p in layer)]
    return any(parameter.requires_grad for parameter in text)
