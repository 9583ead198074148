"""Mixup and cutmix: batches whose images, and labels, are mixtures of two."""

from typing import Any

import numpy as np
import torch
from torchvision.transforms import v2

from clipbench.transforms.augment import Augment

Batch = dict[str, Any]


class MixUp:
    """Mix each image of a batch with the image before it, by torchvision's transforms.

    All images of a batch have the same share: ``share * x[i] + (1 - share) * x[i - 1]`` (Zhang et
    al. 2018), or a rectangle of ``x[i - 1]`` that covers ``1 - share`` of the image (Yun et al.
    2019). Labels become shares of the C classes. Everything is drawn from (seed, step).
    """

    def __init__(self, augment: Augment, classes: int, seed: int) -> None:
        self.probability, self.seed = augment.mixup_probability, seed
        kinds = ((v2.MixUp, augment.mixup), (v2.CutMix, augment.cutmix))
        self.transforms = [
            kind(alpha=float(alpha), num_classes=classes) for kind, alpha in kinds if alpha
        ]

    def __call__(self, batch: Batch, step: int) -> Batch:
        """Return the batch with ``image`` mixed and ``label`` (B, C), or by chance unchanged."""
        keyed = np.random.SeedSequence([self.seed, step]).generate_state(1)[0]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(keyed))
            if torch.rand(()) >= self.probability:
                return batch
            mix = self.transforms[int(torch.randint(len(self.transforms), ()))]
            image, label = mix(batch["image"], batch["label"])
        return {**batch, "image": image, "label": label}
