"""Strategies that read texts in each step: the text tower is alive, and the head follows it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from clipbench.core.errors import UserError
from clipbench.models.base import Classifier, ImageTower, as_head
from clipbench.models.two_towers import TwoTowers
from clipbench.strategies.base import Batch, Strategy, Task, start_head
from clipbench.strategies.freezing import freeze
from clipbench.strategies.gradient_cache import encoded

MAX_LOGIT_SCALE = math.log(100)  # open_clip and CLIP clamp to it after each step


class Tokens:
    """A model's tokens of texts, each text tokenized once.

    Args:
        tokenizer: list of n texts to (n, length) integers.
    """

    def __init__(self, tokenizer: Callable[[list[str]], Tensor]) -> None:
        self.tokenizer = tokenizer
        self.known: dict[str, Tensor] = {}

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return the tokens (n, length) of n texts."""
        for text in texts:
            if text not in self.known:
                self.known[text] = self.tokenizer([text])[0]
        return torch.stack([self.known[text] for text in texts])


@dataclass(kw_only=True, eq=False)
class LiveText(Strategy):
    """Image tower, text tower and logit scale train; the head is made of text before evaluations.

    Args:
        freeze_depth: of the image tower, see :func:`clipbench.strategies.freezing.freeze`.
        text_freeze_depth: of the text tower.
        clamp: keep the logit scale's exponential within 1..100, as CLIP and open_clip do.
        frozen_statistics: keep BatchNorm's running statistics as pretrained.
        seed: with the step, decides which texts are read.
    """

    pairs = True
    # The first two are in the strategy's own config, where it reads them.
    ignores = frozenset({"freeze_depth", "text_freeze_depth", "head_lr_factor"})

    freeze_depth: int | str = 0
    text_freeze_depth: int | str = 0
    clamp: bool = True
    frozen_statistics: bool = False
    seed: int = 0

    task: Task | None = field(default=None, init=False)

    def prepare(self, tower: ImageTower, task: Task) -> Classifier:
        """Return both towers as far as they train, with a fixed head that is made of text.

        Raises:
            UserError: if the model has no text side, or nothing is left to train.
        """
        classifier = start_head(tower, task, "zero_shot")
        freeze(tower, self.freeze_depth, self.text_freeze_depth)
        if not any(parameter.requires_grad for parameter in tower.parameters()):
            raise UserError(
                "freeze_depth=all and text_freeze_depth=all leave nothing to train; use "
                "strategy=zero_shot or linear_probe"
            )
        two_towers(classifier).logit_scale.requires_grad_(True)
        classifier.head.requires_grad_(False)
        self.task, self.tokens = task, Tokens(classifier.tower.tokenizer())
        return classifier

    def scale(self, classifier: Classifier) -> Tensor:
        """Return the factor of the cosines, after the clamp."""
        logit_scale = two_towers(classifier).logit_scale
        if self.clamp:
            with torch.no_grad():
                logit_scale.clamp_(0, MAX_LOGIT_SCALE)
        return logit_scale.exp()

    def image_features(self, classifier: Classifier, batch: Batch) -> Tensor:
        """Return normalized features (B, D) of a batch's images, in parts of the micro-batch."""
        if "features" in batch:
            return F.normalize(batch["features"], dim=-1)
        return encoded(partial(_normalized, classifier.tower), batch["image"], self.micro_batch)

    def text_features(self, classifier: Classifier, texts: Sequence[str]) -> Tensor:
        """Return normalized features (n, D) of different texts, in parts of the micro-batch."""
        tower = two_towers(classifier)
        tokens = self.tokens(texts).to(tower.logit_scale.device)
        return encoded(partial(_normalized, tower.encode_text), tokens, self.micro_batch)

    def refresh(self, classifier: Classifier) -> None:
        """Make the head of the classes' prompts again, with the text tower as it now is."""
        assert self.task is not None
        head = classifier.tower.zero_shot_head(self.task.prompts)
        assert head is not None
        classifier.head.load_state_dict(as_head(head.weight.detach()).state_dict())


def two_towers(classifier: Classifier) -> TwoTowers:
    """Return the tower of a classifier that can read texts."""
    assert isinstance(classifier.tower, TwoTowers)  # start_head refuses others
    return classifier.tower


def _normalized(encode: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    return F.normalize(encode(rows), dim=-1)
