"""A head trained on the features of a frozen image tower."""

from clipbench.models.base import Classifier, ImageTower
from clipbench.strategies.base import Strategy, Task, freeze, start_head


class LinearProbe(Strategy):
    """Only the head trains, on features computed once without augmentation.

    WiSE-FT's ``--freeze-encoder`` (src/models/finetune.py); CLIP's features are L2-normalised.

    Args:
        head: where it starts: ``auto``, ``zero_shot`` or ``random``.
    """

    reads_features = True
    ignores = frozenset({"augment", "freeze_depth"})

    def __init__(self, *, head: str = "auto") -> None:
        self.head = head

    def prepare(self, tower: ImageTower, task: Task) -> Classifier:
        """The classifier with its image tower frozen."""
        classifier = start_head(tower, task, self.head)
        freeze(tower, "all")
        return classifier
