"""Fine-tuning: for a CLIP as WiSE-FT does it, for a ResNet with a new head (CLI: the default)."""

from collections.abc import Sequence

from clipbench.core.errors import UserError
from clipbench.models.base import Classifier, ImageTower
from clipbench.strategies.base import Strategy, Task, start_head
from clipbench.strategies.freezing import freeze, trainable_parameters


class Finetune(Strategy):
    """Image tower and head train together with cross-entropy.

    A CLIP starts from the zero-shot head, its logit scale baked in; the text tower and the logit
    scale get no gradient (WiSE-FT, src/models/finetune.py). A model without text starts from a
    random head. With ``head=lp`` it is LP-FT (Kumar et al. 2022): first the head alone, fitted on
    frozen features as :class:`~clipbench.strategies.linear_probe.LinearProbe` does.

    Args:
        freeze_depth: see :func:`clipbench.strategies.freezing.freeze`.
        head: ``auto``, ``zero_shot``, ``random`` or ``lp``.
        frozen_statistics: keep BatchNorm's running statistics as pretrained; a zero-shot head was
            made for features under those, and a small dataset of one style moves them away.
        stages: staged unfreezing, ``[[2, 8], [4, 0]]``: once 2 epochs are over the freezing depth
            is 8, after 4 it is 0; before the first stage it is ``freeze_depth``.
        head_trains: False keeps the head as it starts, so that other tasks' heads still fit the
            tower: PAINT (Ilharco et al. 2022), with ``merge=paint``.

    Raises:
        UserError: for stages that do not follow each other.
    """

    ignores = frozenset({"text_freeze_depth"})

    def __init__(
        self,
        *,
        freeze_depth: int | str = 0,
        head: str = "auto",
        frozen_statistics: bool = False,
        stages: Sequence[tuple[int, int | str]] | None = None,
        head_trains: bool = True,
    ) -> None:
        self.freeze_depth, self.head, self.head_trains = freeze_depth, head, head_trains
        self.frozen_statistics = frozen_statistics
        self.fits_head = "start" if head == "lp" else None
        self.stages = [(0, freeze_depth), *((epoch, depth) for epoch, depth in stages or [])]
        self.staged = len(self.stages) > 1
        epochs = [epoch for epoch, _ in self.stages[1:]]
        if epochs != sorted(set(epochs)) or any(epoch < 0 for epoch in epochs):
            raise UserError(f"strategy.stages={stages}: epochs must rise, as in [[2,8],[4,0]]")

    def prepare(self, tower: ImageTower, task: Task) -> Classifier:
        """Return the classifier at its start; what trains at any stage has ``requires_grad``.

        Raises:
            UserError: if the head should stay and is random, or nothing is left to train.
        """
        classifier = start_head(tower, task, self.head)
        layers = tower.layers()
        most = max(
            (depth for _, depth in self.stages),
            key=lambda depth: len(trainable_parameters(layers, depth, "freeze_depth")),
        )
        freeze(tower, most)
        if not self.head_trains:
            if not classifier.meaningful or most == "all":
                raise UserError(
                    "strategy.head_trains=false is for a head made of text, or strategy.head=lp, "
                    "and a tower that trains; use strategy.head_trains=true"
                )
            classifier.head.requires_grad_(False)
        return classifier

    def begin_epoch(self, classifier: Classifier, epoch: int) -> None:
        """Freeze as deep as this epoch's stage says.

        All that ever trains is in the optimizer from the start; what has no gradient is left alone
        by it, weight decay included.
        """
        if not self.staged:
            return
        depth = [depth for start, depth in self.stages if start <= epoch][-1]
        freeze(classifier.tower, depth)
        for parameter in classifier.tower.parameters():
            if not parameter.requires_grad:
                parameter.grad = None
