"""A CLIP trained on pictures and captions with the CLIP loss: both towers, or one, or parts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clipbench.errors import Refused
from clipbench.models.base import Classifier
from clipbench.strategies.base import Batch
from clipbench.strategies.live_text import LiveText

Kinds = Sequence[tuple[float, Sequence[str]]]


def clip_loss(image: Tensor, text: Tensor, scale: Tensor, same: Tensor) -> Tensor:
    """The symmetric CLIP loss, in which pairs that are the same are positives of each other.

    With the identity it is open_clip's ClipLoss. Otherwise each row's target is uniform over the
    columns that are the same: a true pair is never pushed apart.

    Args:
        image: normalised features (B, D).
        text: normalised features (B, D), the caption of each picture.
        scale: exp of the logit scale.
        same: boolean (B, B), its diagonal True.

    Returns:
        Mean of both directions' cross-entropies.
    """
    target = same / same.sum(1, keepdim=True)
    scores = scale * image @ text.T
    return (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2


class Contrastive(LiveText):
    """The CLIP loss of pictures and captions, one caption a picture in each step.

    The depths make it the guide's full, image-only, text-only and partial fine-tuning.

    Args:
        mix: for captions of different kinds, such as "a star" and "a red shape" of one picture:
            per kind its ``weight`` in the loss and the positions ``of`` its wordings among a
            picture's captions. A step then has one loss for each kind, every caption of it in one
            wording, so that no caption contradicts what another leaves unsaid. None takes any one
            caption for each picture.
        duplicates: what pictures of equal captions are to each other: ``positives``, or
            ``negatives`` as in CLIP's and open_clip's loss.
        freeze_depth: of the image tower.
        text_freeze_depth: of the text tower.
        clamp: see :class:`~clipbench.strategies.live_text.LiveText`.
        frozen_statistics: of BatchNorm.
        seed: with the step, decides which caption is taken.

    Raises:
        Refused: for another word about duplicates.
    """

    reads_captions = True
    soft_labels = False
    ignores = LiveText.ignores | {"label_smoothing"}

    def __init__(
        self,
        *,
        mix: Sequence[Mapping[str, Any]] | None = None,
        duplicates: str = "positives",
        freeze_depth: int | str = 0,
        text_freeze_depth: int | str = 0,
        clamp: bool = True,
        frozen_statistics: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(
            freeze_depth=freeze_depth,
            text_freeze_depth=text_freeze_depth,
            clamp=clamp,
            frozen_statistics=frozen_statistics,
            seed=seed,
        )
        if duplicates not in ("positives", "negatives"):
            raise Refused(f"no strategy.duplicates={duplicates}; use positives or negatives")
        self.mix, self.duplicates = mix, duplicates

    def captions(self, batch: Batch, step: int) -> Kinds:
        """Per kind its weight and one caption for each picture: a function of (seed, step)."""
        rng = np.random.default_rng([self.seed, step])
        if self.mix is None:
            return [(1.0, [own[rng.integers(len(own))] for own in batch["captions"]])]
        fewest = min(len(own) for own in batch["captions"])
        if fewest <= (last := max(k for kind in self.mix for k in kind["of"])):
            raise Refused(f"a picture has {fewest} captions, strategy.mix reads number {last}")
        wordings = [(kind["weight"], rng.choice(kind["of"])) for kind in self.mix]
        return [(weight, [own[k] for own in batch["captions"]]) for weight, k in wordings]

    def meanings(self, batch: Batch, captions: Sequence[str]) -> Sequence[Any]:
        """What each pair of a batch means: pairs that mean the same are duplicates."""
        return captions

    def loss(
        self,
        classifier: Classifier,
        batch: Batch,
        *,
        smoothing: float,
        step: int,
        weights: Tensor | None = None,
    ) -> Tensor:
        """:func:`clip_loss` of the pictures and one caption each, or its mean over the kinds.

        Raises:
            Refused: for class weights, which have no meaning here.
        """
        if weights is not None:
            raise Refused("pairs have no class weights; use dataset.balance=sampler")
        kinds = self.captions(batch, step)
        scale = self.scale(classifier)
        image = self.image_features(classifier, batch["image"])
        different = list(dict.fromkeys(text for _, captions in kinds for text in captions))
        text = self.text_features(classifier, different)
        place = {caption: i for i, caption in enumerate(different)}
        loss = torch.zeros((), dtype=image.dtype, device=image.device)
        for weight, captions in kinds:
            own = text[torch.tensor([place[c] for c in captions], device=text.device)]
            same = self._same(self.meanings(batch, captions)).to(image.device)
            loss = loss + weight * clip_loss(image, own, scale, same)
        return loss / sum(weight for weight, _ in kinds)

    def _same(self, meanings: Sequence[Any]) -> Tensor:
        if self.duplicates == "negatives":
            return torch.eye(len(meanings), dtype=torch.bool)
        number = {meaning: i for i, meaning in enumerate(dict.fromkeys(meanings))}
        which = torch.tensor([number[meaning] for meaning in meanings])
        return which[:, None] == which[None]
