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
from clipbench.optim import Group, param_groups
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
        mix: with the k captions of a picture of different kinds, the share of the batches that
            take each kind; every caption of a batch is then of one kind, so that none contradicts
            what another leaves unsaid. None takes any caption for each picture.
        seed: with the step, decides which caption is taken.
    """

    ignores = frozenset({"freeze_depth", "label_smoothing", "head_lr_factor"})

    def __init__(self, *, mix: Sequence[float] | None = None, seed: int = 0) -> None:
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

    def param_groups(self, classifier: Classifier, recipe: Mapping[str, Any]) -> list[Group]:
        """Everything but the head, in a group with weight decay and one without."""
        return param_groups(
            classifier.tower.named_parameters(),
            name="both towers",
            lr=recipe["lr"],
            weight_decay=recipe["weight_decay"],
            decay_all=recipe["decay_all"],
        )

    def captions(self, batch: Batch, step: int) -> list[str]:
        """One caption for each picture of a batch, a function of (seed, step)."""
        rng = np.random.default_rng([self.seed, step])
        if self.mix is None:
            return [own[rng.integers(len(own))] for own in batch["captions"]]
        kind = rng.choice(len(self.mix), p=np.asarray(self.mix) / sum(self.mix))
        return [own[kind] for own in batch["captions"]]

    def loss(self, classifier: Classifier, batch: Batch, *, smoothing: float, step: int) -> Tensor:
        """:func:`clip_loss` of the pictures and one caption each.

        Raises:
            Refused: if the dataset has no captions.
        """
        if "captions" not in batch:
            raise Refused("this dataset has no captions; strategy=contrastive needs them")
        texts = self.captions(batch, step)
        different = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        for text in different.keys() - self.tokens.keys():
            self.tokens[text] = self.tokenizer([text])[0]
        device = batch["image"].device
        which = torch.tensor([different[text] for text in texts], device=device)
        tokens = torch.stack([self.tokens[text] for text in different]).to(device)
        model: Any = classifier.tower.native(classifier.head)
        with torch.no_grad():
            model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
        return clip_loss(
            model.encode_image(batch["image"], normalize=True),
            model.encode_text(tokens, normalize=True)[which],
            model.logit_scale.exp(),
            which[:, None] == which[None],
        )

    def refresh(self, classifier: Classifier) -> None:
        """Make the head of class names and templates again, with the text tower as it now is."""
        assert self.task is not None
        head = classifier.tower.zero_shot_head(self.task.classes, self.task.templates)
        assert head is not None
        classifier.head.load_state_dict(as_head(head.weight.detach()).state_dict())
