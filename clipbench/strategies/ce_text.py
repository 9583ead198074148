"""Cross-entropy over the classes through a text tower that trains (FLYP's ablation)."""

import numpy as np
from torch import Tensor

from clipbench.models.base import Classifier
from clipbench.strategies.base import Batch, cross_entropy
from clipbench.strategies.text_tower import LiveText


class CEText(LiveText):
    """Trains both towers: each step takes cosines with one prompt of every class as logits.

    No pair of a batch is a false negative, at the cost of C texts a step; ``micro_batch`` bounds
    how many of them are in memory (locuslab/FLYP, src/models/ce_ablation.py).
    """

    reads_captions = True

    def texts(self, step: int) -> list[str]:
        """Return one prompt of each class, a function of (seed, step)."""
        assert self.task is not None
        rng = np.random.default_rng([self.seed, step])
        return [own[int(rng.integers(len(own)))] for own in self.task.prompts]

    def loss(
        self,
        classifier: Classifier,
        batch: Batch,
        *,
        smoothing: float,
        step: int,
        weights: Tensor | None = None,
    ) -> Tensor:
        """Return the cross-entropy of scaled cosines (B, C) with the texts of this step."""
        scale = self.scale(classifier)
        image = self.image_features(classifier, batch)
        text = self.text_features(classifier, self.texts(step))
        scores = scale * image @ text.T
        return cross_entropy(scores, batch["label"], smoothing=smoothing, weights=weights)
