"""Fine-tuning: for a CLIP as WiSE-FT does it, for a ResNet with a new head (CLI: the default)."""

from clipbench.models.base import Classifier, ImageTower
from clipbench.strategies.base import Strategy, Task, freeze, start_head


class Finetune(Strategy):
    """Image tower and head train together with cross-entropy.

    A CLIP starts from the zero-shot head, its logit scale baked in; the text tower and the logit
    scale get no gradient (WiSE-FT, src/models/finetune.py). A model without text starts from a
    random head.

    Args:
        freeze_depth: see :func:`clipbench.strategies.base.freeze`.
        head: ``auto``, ``zero_shot`` or ``random``.
        frozen_statistics: keep BatchNorm's running statistics as pretrained; a zero-shot head was
            made for features under those, and a small dataset of one style moves them away.
    """

    def __init__(
        self,
        *,
        freeze_depth: int | str = 0,
        head: str = "auto",
        frozen_statistics: bool = False,
    ) -> None:
        self.freeze_depth, self.head = freeze_depth, head
        self.frozen_statistics = frozen_statistics

    def prepare(self, tower: ImageTower, task: Task) -> Classifier:
        """The classifier at its start; the head always trains."""
        classifier = start_head(tower, task, self.head)
        freeze(tower, self.freeze_depth)
        return classifier
