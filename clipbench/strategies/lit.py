"""LiT: a locked image tower of any kind, and a text tower from scratch (Zhai et al. 2022)."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from clipbench.core.config.instantiate import build
from clipbench.core.config.option_files import Node
from clipbench.models.base import Classifier, ImageTower
from clipbench.models.lit import LiT as Model
from clipbench.strategies.base import Task
from clipbench.strategies.contrastive import Contrastive
from clipbench.strategies.param_groups import Group
from clipbench.strategies.recipe import Recipe


@dataclass(kw_only=True, eq=False)
class LiT(Contrastive):
    """The CLIP loss on captions; only the new text tower and the logit scale train.

    Args:
        text: arguments of the text tower, see :class:`clipbench.models.lit.LiT`.
            The other arguments are those of :class:`~clipbench.strategies.contrastive.Contrastive`.
    """

    text: Node
    freeze_depth: int | str = field(default="all", init=False)
    text_freeze_depth: int | str = field(default=0, init=False)
    frozen_statistics: bool = field(default=False, init=False)

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
