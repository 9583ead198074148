"""FLYP (Goyal et al. 2023): fine-tune like you pretrain, the CLIP loss on the classes' prompts."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from clipbench.models.base import Classifier, ImageTower
from clipbench.strategies.base import Batch, Task
from clipbench.strategies.contrastive import Contrastive, Kinds
from clipbench.strategies.live_text import need_classes


class FLYP(Contrastive):
    """Everything trains, the logit scale too and unclamped, on one prompt of its class a picture.

    The original draws pairs from a list that has each picture once with each prompt; here a picture
    comes once an epoch, with a prompt drawn for it (locuslab/FLYP, src/models/flyp_loss.py).

    Args:
        duplicates: ``negatives``: pictures of one class are each other's negatives, as in the
            original; ``positives``: they share the target.
        freeze_depth: of the image tower.
        text_freeze_depth: of the text tower.
        clamp: see :class:`~clipbench.strategies.live_text.LiveText`; the original has none.
        frozen_statistics: of BatchNorm.
        seed: with the step, decides which prompt is taken.
    """

    def __init__(
        self,
        *,
        duplicates: str = "negatives",
        freeze_depth: int | str = 0,
        text_freeze_depth: int | str = 0,
        clamp: bool = False,
        frozen_statistics: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(
            duplicates=duplicates,
            freeze_depth=freeze_depth,
            text_freeze_depth=text_freeze_depth,
            clamp=clamp,
            frozen_statistics=frozen_statistics,
            seed=seed,
        )

    def prepare(self, tower: ImageTower, task: Task) -> Classifier:
        """As of every strategy with a live text tower.

        Raises:
            Refused: for a dataset without classes.
        """
        need_classes(task)
        return super().prepare(tower, task)

    def captions(self, batch: Batch, step: int) -> Kinds:
        """A prompt of its class for each picture: a function of (seed, step)."""
        rng = np.random.default_rng([self.seed, step])
        assert self.task is not None
        said = [self.task.prompts[label] for label in batch["label"].tolist()]
        return [(1.0, [own[int(rng.integers(len(own)))] for own in said])]

    def meanings(self, batch: Batch, captions: Sequence[str]) -> Sequence[Any]:
        """The classes: two prompts of one class mean the same."""
        labels: list[int] = batch["label"].tolist()
        return labels
