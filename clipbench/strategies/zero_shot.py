"""No training: a head made of class names and templates, or both towers as they come."""

from clipbench.models.base import Classifier, ImageTower
from clipbench.strategies.base import STEPS, Strategy, Task, start_head
from clipbench.strategies.freezing import freeze


class ZeroShot(Strategy):
    """Evaluates the zero-shot head, or retrieval; the run is its epoch 0."""

    trains = False
    random = False
    retrieves = True
    ignores = STEPS | {"augment", "freeze_depth", "text_freeze_depth"}

    def prepare(self, tower: ImageTower, task: Task) -> Classifier:
        """Return the zero-shot classifier, all of it frozen.

        Raises:
            UserError: if the model has no text side.
        """
        classifier = start_head(tower, task, "zero_shot")
        freeze(tower, "all")
        classifier.head.requires_grad_(False)
        return classifier
