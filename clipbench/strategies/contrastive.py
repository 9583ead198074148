"""A CLIP trained on images and captions with the CLIP loss: both towers, or one, or parts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipbench.core.config.option_files import Node
from clipbench.core.errors import UserError
from clipbench.models.base import Classifier
from clipbench.strategies.base import Batch
from clipbench.strategies.clip_loss import DUPLICATES, clip_loss, same
from clipbench.strategies.text_tower import LiveText

Kinds = Sequence[tuple[float, Sequence[str]]]


@dataclass(kw_only=True, eq=False)
class Contrastive(LiveText):
    """The CLIP loss of images and captions, one caption an image in each step.

    The depths make it the guide's full, image-only, text-only and partial fine-tuning.

    Args:
        captions: ``sampled`` takes one caption of each image in a step, so that an epoch has each
            image once; ``all`` has it once with each of its captions.
        mix: for captions of different kinds, such as "a star" and "a red shape" of one image:
            per kind its ``weight`` in the loss and the positions ``of`` its wordings among a
            image's captions. A step then has one loss for each kind, every caption of it in one
            wording, so that no caption contradicts what another leaves unsaid. None takes any one
            caption for each image.
        duplicates: what pairs of equal captions, or of one image, are to each other:
            ``positives``, which share the target; ``masked``, left out of each other's
            denominator; or ``negatives`` as in CLIP's and open_clip's loss.
        encode_once: for ``freeze_depth=all``: each image is encoded once for the whole run, as in
            evaluation, without augmentation.
        seed: with the step and the image's number, decides which caption is taken. The other
            arguments are those of :class:`~clipbench.strategies.text_tower.LiveText`.

    Raises:
        UserError: for another word about captions or duplicates, for kinds of all captions, or for
            images encoded once by a tower that trains.
    """

    reads_captions = True
    soft_labels = False
    full_batches = True
    retrieves = True
    ignores = LiveText.ignores | {"label_smoothing"}

    captions: str = "sampled"
    mix: Sequence[Node] | None = None
    duplicates: str = "positives"
    encode_once: bool = False

    def __post_init__(self) -> None:
        if self.duplicates not in DUPLICATES:
            options = ", ".join(DUPLICATES)
            raise UserError(f"no strategy.duplicates={self.duplicates}; there are {options}")
        if self.captions not in ("sampled", "all"):
            raise UserError(f"no strategy.captions={self.captions}; there are sampled and all")
        if self.captions == "all" and self.mix is not None:
            raise UserError("strategy.mix takes one caption of each kind; use captions=sampled")
        if self.encode_once and self.freeze_depth != "all":
            raise UserError(
                "strategy.encode_once=true needs freeze_depth=all; else the tower trains"
            )
        self.every_pair, self.reads_features = self.captions == "all", self.encode_once

    def drawn(self, batch: Batch, step: int) -> Kinds:
        """Return per kind its weight and a caption for each image, a function of (seed, step)."""
        texts = self.texts_of(batch)
        if self.mix is None:
            numbers = (self._number(step, index) for index in batch["index"].tolist())
            return [(1.0, [of[k % len(of)] for of, k in zip(texts, numbers, strict=True)])]
        rng = np.random.default_rng([self.seed, step])
        fewest = min(map(len, texts))
        if fewest <= (last := max(k for kind in self.mix for k in kind["of"])):
            raise UserError(f"an image has {fewest} captions, strategy.mix reads number {last}")
        wordings = [(kind["weight"], rng.choice(kind["of"])) for kind in self.mix]
        return [(weight, [of[k] for of in texts]) for weight, k in wordings]

    def _number(self, step: int, index: int) -> int:
        """Return a number for an image in a step, whatever its rank and position in the batch."""
        return int(np.random.SeedSequence([self.seed, step, index]).generate_state(1)[0])

    def texts_of(self, batch: Batch) -> Sequence[Sequence[str]]:
        """Return the texts of each image of a batch."""
        texts: Sequence[Sequence[str]] = batch["captions"]
        return texts

    def meanings(self, batch: Batch, captions: Sequence[str]) -> Sequence[Sequence[Any]]:
        """Return what each pair of a batch means; pairs that agree in any of it are duplicates."""
        return captions, batch["index"].tolist()

    def loss(
        self,
        classifier: Classifier,
        batch: Batch,
        *,
        smoothing: float,
        step: int,
        weights: Tensor | None = None,
    ) -> Tensor:
        """Return the CLIP loss of the images and one caption each, or its mean over the kinds.

        Raises:
            UserError: for class weights, which have no meaning here.
        """
        if weights is not None:
            raise UserError("pairs have no class weights; use dataset.balance=sampler")
        kinds = self.drawn(batch, step)
        scale = self.scale(classifier)
        image = self.image_features(classifier, batch)
        different = list(dict.fromkeys(text for _, captions in kinds for text in captions))
        text = self.text_features(classifier, different)
        place = {caption: i for i, caption in enumerate(different)}
        loss = torch.zeros((), dtype=image.dtype, device=image.device)
        for weight, captions in kinds:
            rows = text[torch.tensor([place[c] for c in captions], device=text.device)]
            alike = same(*self.meanings(batch, captions), alike=self.duplicates != "negatives")
            masked = self.duplicates == "masked"
            pairs = clip_loss(image, rows, scale, alike.to(image.device), masked=masked)
            loss = loss + weight * pairs
        return loss / sum(weight for weight, _ in kinds)
