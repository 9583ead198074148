"""A CLIP trained on images and captions with the CLIP loss: both towers, or one, or parts."""

from collections.abc import Sequence
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
        freeze_depth: of the image tower.
        text_freeze_depth: of the text tower.
        clamp: see :class:`~clipbench.strategies.text_tower.LiveText`.
        frozen_statistics: of BatchNorm.
        seed: with the step and the image's number, decides which caption is taken.

    Raises:
        UserError: for another word about captions or duplicates, for kinds of all captions, or for
            images encoded once by a tower that trains.
    """

    reads_captions = True
    soft_labels = False
    full_batches = True
    retrieves = True
    ignores = LiveText.ignores | {"label_smoothing"}

    def __init__(
        self,
        *,
        captions: str = "sampled",
        mix: Sequence[Node] | None = None,
        duplicates: str = "positives",
        encode_once: bool = False,
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
        if duplicates not in DUPLICATES:
            known = ", ".join(DUPLICATES)
            raise UserError(f"no strategy.duplicates={duplicates}; there are {known}")
        if captions not in ("sampled", "all"):
            raise UserError(f"no strategy.captions={captions}; there are sampled and all")
        if captions == "all" and mix is not None:
            raise UserError("strategy.mix takes one caption of each kind; use captions=sampled")
        if encode_once and freeze_depth != "all":
            raise UserError(
                "strategy.encode_once=true needs freeze_depth=all; else the tower trains"
            )
        self.mix, self.duplicates = mix, duplicates
        self.every_pair, self.reads_features = captions == "all", encode_once

    def captions(self, batch: Batch, step: int) -> Kinds:
        """Return per kind its weight and a caption for each image, a function of (seed, step)."""
        own = self.texts_of(batch)
        if self.mix is None:
            taken = (self._drawn(step, index) for index in batch["index"].tolist())
            return [(1.0, [said[k % len(said)] for said, k in zip(own, taken, strict=True)])]
        rng = np.random.default_rng([self.seed, step])
        fewest = min(len(said) for said in own)
        if fewest <= (last := max(k for kind in self.mix for k in kind["of"])):
            raise UserError(f"an image has {fewest} captions, strategy.mix reads number {last}")
        wordings = [(kind["weight"], rng.choice(kind["of"])) for kind in self.mix]
        return [(weight, [said[k] for said in own]) for weight, k in wordings]

    def _drawn(self, step: int, index: int) -> int:
        """Return a number for an image in a step, whatever its rank and position in the batch."""
        return int(np.random.SeedSequence([self.seed, step, index]).generate_state(1)[0])

    def texts_of(self, batch: Batch) -> Sequence[Sequence[str]]:
        """Return the texts of each image of a batch."""
        said: Sequence[Sequence[str]] = batch["captions"]
        return said

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
        kinds = self.captions(batch, step)
        scale = self.scale(classifier)
        image = self.image_features(classifier, batch)
        different = list(dict.fromkeys(text for _, captions in kinds for text in captions))
        text = self.text_features(classifier, different)
        place = {caption: i for i, caption in enumerate(different)}
        loss = torch.zeros((), dtype=image.dtype, device=image.device)
        for weight, captions in kinds:
            own = text[torch.tensor([place[c] for c in captions], device=text.device)]
            alike = same(*self.meanings(batch, captions), alike=self.duplicates != "negatives").to(
                image.device
            )
            masked = self.duplicates == "masked"
            loss = loss + weight * clip_loss(image, own, scale, alike, masked=masked)
        return loss / sum(weight for weight, _ in kinds)
