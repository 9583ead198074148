"""LP-FT: a head fitted on frozen features, then all of it (Kumar et al. 2022)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from clipbench.models.base import Classifier
from clipbench.strategies.finetune import Finetune


class LPFT(Finetune):
    """Fine-tuning from a linear probe's head, which may be made less sure of itself first.

    Args:
        freeze_depth: as :class:`~clipbench.strategies.finetune.Finetune`'s, and the others too.
        head: ``lp``.
        frozen_statistics: the authors' ``use_net_val_mode``.
        stages: of unfreezing.
        head_trains: or stays as it was fitted.
        rescale_head: shrink weights and biases by one factor, to the spread of a random head, the
            authors' ``normalize_lp``: the same answers, and gradients of the size that a new head
            would send down.
    """

    def __init__(
        self,
        *,
        freeze_depth: int | str = 0,
        head: str = "lp",
        frozen_statistics: bool = True,
        stages: Sequence[tuple[int, int | str]] | None = None,
        head_trains: bool = True,
        rescale_head: bool = False,
    ) -> None:
        super().__init__(
            freeze_depth=freeze_depth,
            head=head,
            frozen_statistics=frozen_statistics,
            stages=stages,
            head_trains=head_trains,
        )
        self.rescale_head = rescale_head

    def fit_head(
        self,
        classifier: Classifier,
        features: Callable[[str], tuple[Tensor, Tensor]],
        weights: Tensor | None = None,
    ) -> None:
        """A linear probe's head, rescaled where that is asked."""
        random = classifier.head.weight.std(correction=0).item()
        super().fit_head(classifier, features, weights)
        if self.rescale_head:
            factor = random / classifier.head.weight.std(correction=0).item()
            with torch.no_grad():
                for parameter in classifier.head.parameters():
                    parameter.mul_(factor)
