"""FLYP (Goyal et al. 2023): fine-tune like you pretrain, the CLIP loss on the classes' prompts."""

from collections.abc import Sequence
from typing import Any

from clipbench.strategies.base import Batch
from clipbench.strategies.contrastive import Contrastive


class FLYP(Contrastive):
    """Everything trains, the logit scale too and unclamped, on one prompt of its class an image.

    The original draws pairs from a list that has each image once with each prompt; here an image
    comes once an epoch, with a prompt drawn for it (locuslab/FLYP, src/models/flyp_loss.py).

    Args:
        duplicates: ``negatives``: images of one class are each other's negatives, as in the
            original; ``positives``: they share the target; ``masked``: they are left out of each
            other's denominator.
        freeze_depth: of the image tower.
        text_freeze_depth: of the text tower.
        clamp: see :class:`~clipbench.strategies.text_tower.LiveText`; the original has none.
        frozen_statistics: of BatchNorm.
        seed: with the step and the image's number, decides which prompt is taken.
    """

    retrieves = False

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

    def texts_of(self, batch: Batch) -> Sequence[Sequence[str]]:
        """Return the prompts of its class for each image."""
        assert self.task is not None
        return [self.task.prompts[label] for label in batch["label"].tolist()]

    def meanings(self, batch: Batch, captions: Sequence[str]) -> Sequence[Sequence[Any]]:
        """Return the classes: two prompts of one class mean the same."""
        return (batch["label"].tolist(),)
