"""A second dataset beside the one a model is tuned on, with a zero-shot head."""

import hashlib
import json

from torch import nn

from clipbench.core.config.instantiate import build
from clipbench.core.config.option_files import Node
from clipbench.core.errors import UserError
from clipbench.datamodules.base_classification import ClassificationDataModule
from clipbench.loading.prompts import Prompts
from clipbench.loading.validation import check_labels, check_names
from clipbench.models.base import ImageTower
from clipbench.results.record import SplitRecord
from clipbench.transforms.augment import Augment


class AuxiliaryDataset:
    """A second dataset, classified by a zero-shot head made of its class names and templates.

    Raises:
        UserError: for a dataset without classes, or one that is not there.
    """

    def __init__(self, node: Node, key: str, seed: int) -> None:
        data = build(node)
        if not isinstance(data, ClassificationDataModule):
            raise UserError(f"{key}=: this dataset has captions and no classes. Use another.")
        self.data, self.key, self.seed = data, key, seed
        self.data.prepare(seed)
        self.prompts = Prompts().of(data.classes, data.templates, data.keys)
        self._head: nn.Linear | None = None

    def identity(self) -> dict[str, str | None]:
        """Return the hashes of its data and prompts, which are part of the run's key."""
        prompts = hashlib.sha256(json.dumps(self.prompts).encode()).hexdigest()
        split = self.record()
        return {"data": split.sha256, "content": split.content, "prompts": prompts}

    def record(self) -> SplitRecord:
        """Return its split as the run's record has it."""
        (split,) = self.data.record().values()
        return split

    def attach(self, tower: ImageTower, batch_size: int, augment: Augment | None = None) -> None:
        """Check the data, and set how images become batches: as the checkpoint was trained.

        Raises:
            UserError: for names, labels or images that cannot be right.
        """
        data, augment = self.data, augment or Augment()
        # Not data.check(), which needs a train split.
        check_names(data.classes, data.templates, data.homonyms)
        check_labels(data.splits, data.classes)
        data.check_images()
        preprocess, seed = tower.preprocess, self.seed
        data.attach(preprocess=preprocess, augment=augment, batch_size=batch_size, seed=seed)

    def head(self, tower: ImageTower) -> nn.Linear | None:
        """Return the zero-shot head of its classes, cached where the text tower does not train.

        None for a model without a text tower, or with features that do not match its texts.
        """
        text = [*tower.scales(), *(p for layer in tower.text_layers() for p in layer)]
        if self._head is None or any(parameter.requires_grad for parameter in text):
            made = tower.zero_shot_head(self.prompts) if tower.normalized else None
            self._head = made and made.requires_grad_(False)
        return self._head and self._head.to(next(tower.parameters()))
