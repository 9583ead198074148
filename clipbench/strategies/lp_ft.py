"""LP-FT: a head fitted on frozen features, then all of it (Kumar et al. 2022)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from clipbench.models.base import Classifier
from clipbench.strategies.finetune import Finetune


class LPFT(Finetune):
    """Fine-tuning from a linear probe's head, whose weights may be scaled down first.

    Args:
        rescale_head: shrink weights and biases by one factor, to the spread of a random head, the
            authors' ``normalize_lp``: the same answers, and gradients of the size that a new head
            would send down.
        finetune: see :class:`~clipbench.strategies.finetune.Finetune`; its ``head`` is ``lp``, and
            ``frozen_statistics`` the authors' ``use_net_val_mode``.
    """

    def __init__(self, *, rescale_head: bool = False, **finetune: Any) -> None:
        super().__init__(**finetune)
        self.rescale_head = rescale_head

    def fit_head(
        self,
        classifier: Classifier,
        features: Callable[[str], tuple[Tensor, Tensor]],
        weights: Tensor | None = None,
    ) -> None:
        """Fit a linear probe's head, and rescale it with ``rescale_head``."""
        random = classifier.head.weight.std(correction=0).item()
        super().fit_head(classifier, features, weights)
        if self.rescale_head:
            factor = random / classifier.head.weight.std(correction=0).item()
            with torch.no_grad():
                for parameter in classifier.head.parameters():
                    parameter.mul_(factor)
