"""LiT: a locked image tower of any kind, and a text tower from scratch (Zhai et al. 2022)."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from clipbench.core.config.instantiate import build
from clipbench.core.config.option_files import Node
from clipbench.models.base import Classifier, ImageTower
from clipbench.models.lit import LiT as Model
from clipbench.strategies.base import Task
from clipbench.strategies.contrastive import Contrastive
from clipbench.strategies.param_groups import Group
from clipbench.strategies.recipe import Recipe


class LiT(Contrastive):
    """The CLIP loss on captions; only the new text tower and the logit scale train.

    Args:
        text: arguments of the text tower, see :class:`clipbench.models.lit.LiT`.
        captions: which are taken: see :class:`~clipbench.strategies.contrastive.Contrastive`.
        mix: of captions.
        duplicates: what pairs of equal captions, or of one image, are to each other.
        encode_once: each image for the whole run, without augmentation.
        clamp: the logit scale.
        seed: with the step and the image's number, decides which caption is taken.
    """

    def __init__(
        self,
        *,
        text: Node,
        captions: str = "sampled",
        mix: Sequence[Node] | None = None,
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
        """Return the tower with a new text tower; its head means nothing before training."""
        classifier = super().prepare(Model(tower, **self.text), task)
        classifier.meaningful = False
        return classifier

    def param_groups(self, classifier: Classifier, recipe: Recipe) -> list[Group]:
        """Return groups with one learning rate for all of the text tower, which is untrained."""
        return super().param_groups(classifier, replace(recipe, layer_decay=1.0))

    def restored(self, model: Node, file: str) -> ImageTower:
        """Return both towers, from their one file."""
        tower = Model(build({**model, "pretrained": None}), **self.text)
        tower.load(Path(file))
        return tower
