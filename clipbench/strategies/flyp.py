"""FLYP (Goyal et al. 2023): fine-tune like you pretrain, the CLIP loss on the classes' prompts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from clipbench.strategies.base import Batch
from clipbench.strategies.contrastive import Contrastive


@dataclass(kw_only=True, eq=False)
class FLYP(Contrastive):
    """Everything trains, the logit scale too and unclamped, on one prompt of its class an image.

    The original draws pairs from a list that has each image once with each prompt; here an image
    comes once an epoch, with a prompt drawn for it (locuslab/FLYP, src/models/flyp_loss.py).

    Args:
        duplicates: ``negatives``: images of one class are each other's negatives, as in the
            original; ``positives``: they share the target; ``masked``: they are left out of each
            other's denominator.
        clamp: the logit scale; the original does not. The other arguments are those of
            :class:`~clipbench.strategies.text_tower.LiveText`.
    """

    retrieves = False

    duplicates: str = "negatives"
    clamp: bool = False
    captions: str = field(default="sampled", init=False)
    mix: None = field(default=None, init=False)
    encode_once: bool = field(default=False, init=False)

    def texts_of(self, batch: Batch) -> Sequence[Sequence[str]]:
        """Return the prompts of its class for each image."""
        assert self.task is not None
        return [self.task.prompts[label] for label in batch["label"].tolist()]

    def meanings(self, batch: Batch, captions: Sequence[str]) -> Sequence[Sequence[Any]]:
        """Return the classes: two prompts of one class mean the same."""
        return (batch["label"].tolist(),)
