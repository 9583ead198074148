"""Both towers of a CLIP trained on pictures and captions, with the CLIP loss."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clipbench.errors import Refused
from clipbench.models.base import Classifier, ImageTower, as_head
from clipbench.strategies.base import Batch, Strategy, Task, start_head

MAX_LOGIT_SCALE = math.log(100)  # open_clip and CLIP clamp to it after each step


def clip_loss(image: Tensor, text: Tensor, scale: Tensor, same: Tensor) -> Tensor:
    """The symmetric CLIP loss, in which equal captions are positives of each other.

    With all captions different it is open_clip's ClipLoss. Otherwise each row's target is uniform
    over the columns that have its own caption: a true pair is never pushed apart.

    Args:
        image: normalised features (B, D).
        text: normalised features (B, D), the caption of each picture.
        scale: exp of the logit scale.
        same: boolean (B, B), where captions are equal; its diagonal is True.

    Returns:
        Mean of both directions' cross-entropies.
    """
    target = same / same.sum(1, keepdim=True)
    scores = scale * image @ text.T
    return (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2


class Contrastive(Strategy):
    """Image tower, text tower and logit scale train on captions; the head follows the text tower.

    Each step takes one caption a picture. Evaluation is zero-shot: the head is made of class names
    again before each.

    Args:
        mix: for captions of different kinds, such as "a star" and "a red shape" of one picture:
            per kind its ``weight`` in the loss and the positions ``of`` its wordings among a
            picture's captions. A step then has one loss for each kind, every caption of it in one
            wording, so that no caption contradicts what another leaves unsaid. None takes any one
            caption for each picture.
        seed: with the step, decides which caption is taken.
    """

    reads_captions = True
    ignores = frozenset({"freeze_depth", "label_smoothing", "head_lr_factor"})

    def __init__(
        self,
        *,
        mix: Sequence[Mapping[str, Any]] | None = None,
        seed: int = 0,
    ) -> None:
        self.mix, self.seed = mix, seed
        self.task: Task | None = None
        self.tokens: dict[str, Tensor] = {}

    def prepare(self, tower: ImageTower, task: Task) -> Classifier:
        """The whole CLIP, trainable, with a head that is made of text and does not train.

        Raises:
            Refused: if the model has no text side.
        """
        classifier = start_head(tower, task, "zero_shot")
        classifier.requires_grad_(True)
        classifier.head.requires_grad_(False)
        self.task, self.tokenizer = task, tower.tokenizer()
        return classifier

    def captions(self, batch: Batch, step: int) -> list[tuple[float, list[str]]]:
        """Per kind its weight and one caption for each picture: a function of (seed, step)."""
        rng = np.random.default_rng([self.seed, step])
        if self.mix is None:
            return [(1.0, [own[rng.integers(len(own))] for own in batch["captions"]])]
        fewest = min(len(own) for own in batch["captions"])
        if fewest <= (last := max(k for kind in self.mix for k in kind["of"])):
            raise Refused(f"a picture has {fewest} captions, strategy.mix reads number {last}")
        wordings = [(kind["weight"], rng.choice(kind["of"])) for kind in self.mix]
        return [(weight, [own[k] for own in batch["captions"]]) for weight, k in wordings]

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
        different = {
            text: i for i, text in enumerate(dict.fromkeys(t for _, k in kinds for t in k))
        }
        model: Any = classifier.tower.native(classifier.head)
        with torch.no_grad():
            model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
        image = model.encode_image(batch["image"], normalize=True)
        text = model.encode_text(self._tokens(list(different)).to(image.device), normalize=True)
        loss = torch.zeros((), dtype=image.dtype, device=image.device)
        for weight, captions in kinds:
            which = torch.tensor([different[caption] for caption in captions], device=image.device)
            same = which[:, None] == which[None]
            loss = loss + weight * clip_loss(image, text[which], model.logit_scale.exp(), same)
        return loss / sum(weight for weight, _ in kinds)

    def _tokens(self, texts: list[str]) -> Tensor:
        """Tokens (B, length) of different texts, each tokenised once in a run."""
        for text in texts:
            if text not in self.tokens:
                self.tokens[text] = self.tokenizer([text])[0]
        return torch.stack([self.tokens[text] for text in texts])

    def refresh(self, classifier: Classifier) -> None:
        """Make the head of the classes' prompts again, with the text tower as it now is."""
        assert self.task is not None
        head = classifier.tower.zero_shot_head(self.task.prompts)
        assert head is not None
        classifier.head.load_state_dict(as_head(head.weight.detach()).state_dict())
