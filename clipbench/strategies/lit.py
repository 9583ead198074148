"""LiT: a locked image tower of any kind, and a text tower from scratch (Zhai et al. 2022)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clipbench.core.config.instantiate import build
from clipbench.models.base import Classifier, ImageTower
from clipbench.models.lit import LiT as Model
from clipbench.strategies.base import Task
from clipbench.strategies.contrastive import Contrastive
from clipbench.strategies.param_groups import Group


class LiT(Contrastive):
    """The CLIP loss on captions; only the new text tower and the logit scale train.

    Args:
        text: arguments of the text tower, see :class:`clipbench.models.lit.LiT`.
        captions: which are taken: see :class:`~clipbench.strategies.contrastive.Contrastive`.
        mix: of captions.
        duplicates: what pairs of equal captions, or of one picture, are to each other.
        encode_once: each picture for the whole run, without augmentation.
        clamp: the logit scale.
        seed: with the step and the picture's number, decides which caption is taken.
    """

    def __init__(
        self,
        *,
        text: Mapping[str, Any],
        captions: str = "sampled",
        mix: Sequence[Mapping[str, Any]] | None = None,
        duplicates: str = "positives",
        encode_once: bool = False,
        clamp: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(
            captions=captions,
            mix=mix,
            duplicates=duplicates,
            encode_once=encode_once,
            freeze_depth="all",
            clamp=clamp,
            seed=seed,
        )
        self.text = text

    def prepare(self, tower: ImageTower, task: Task) -> Classifier:
        """The tower with a text tower beside it; its head says nothing before training."""
        classifier = super().prepare(Model(tower, **self.text), task)
        classifier.meaningful = False
        return classifier

    def param_groups(self, classifier: Classifier, recipe: Mapping[str, Any]) -> list[Group]:
        """One learning rate for all of the text tower: no layer of it has learnt anything yet."""
        return super().param_groups(classifier, {**recipe, "layer_decay": 1.0})

    def restored(self, model: Mapping[str, Any], file: str) -> ImageTower:
        """Both towers, from their one file."""
        tower = Model(build({**model, "pretrained": None}), **self.text)
        tower.load(Path(file))
        return tower
