"""Another dataset beside the one a model is tuned on, with a head of text of its own."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from torch import nn

from clipbench.core.config.instantiate import build
from clipbench.core.errors import UserError
from clipbench.datamodules.base_classification import ClassificationDataModule
from clipbench.loading.prompts import Prompts
from clipbench.loading.validation import check_labels, check_names
from clipbench.models.base import ImageTower
from clipbench.results.record import SplitRecord
from clipbench.transforms.augment import Augment


class AuxiliaryDataset:
    """Another dataset, classified by a head of text made of its own class names and templates.

    Args:
        node: the config of a dataset.
        key: what asked for it, to be named in messages.
        seed: of the run.

    Raises:
        UserError: for a dataset without classes, or one that is not there.
    """

    def __init__(self, node: Mapping[str, Any], key: str, seed: int) -> None:
        data = build(node)
        if not isinstance(data, ClassificationDataModule):
            raise UserError(f"this dataset has captions and no classes; use another for {key}")
        self.data, self.key, self.seed = data, key, seed
        self.data.prepare(seed)
        self.prompts = Prompts().of(data.classes, data.templates, data.keys)
        self._head: nn.Linear | None = None

    def identity(self) -> dict[str, str | None]:
        """What a run's key is to know of it."""
        said = hashlib.sha256(json.dumps(self.prompts).encode()).hexdigest()
        split = self.record()
        return {"data": split.sha256, "content": split.content, "prompts": said}

    def record(self) -> SplitRecord:
        """Return what the run's record says of its one split."""
        (split,) = self.data.record().values()
        return split

    def attach(self, tower: ImageTower, batch_size: int, augment: Augment | None = None) -> None:
        """Say how pictures become batches, as the model's checkpoint was trained.

        Raises:
            UserError: for names, labels or pictures that cannot be right.
        """
        data = self.data
        # Not data.check(), which wants a train split.
        check_names(data.classes, data.templates, data.homonyms)
        check_labels(data.splits, data.classes)
        data.check_images()
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
        return self._head and self._head.to(next(tower.parameters()))


def _text_trains(tower: ImageTower) -> bool:
    text = [*tower.scales(), *(p for layer in tower.text_layers() for p in layer)]
    return any(parameter.requires_grad for parameter in text)
