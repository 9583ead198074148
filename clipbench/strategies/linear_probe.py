"""A head trained on the features of a frozen image tower."""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from clipbench.core.config.option_files import Node
from clipbench.core.errors import UserError
from clipbench.models.base import Classifier, ImageTower
from clipbench.strategies import logistic_regression
from clipbench.strategies.base import STEPS, Strategy, Task, start_head
from clipbench.strategies.freezing import freeze


@dataclass(kw_only=True, eq=False)
class LinearProbe(Strategy):
    """Only the head trains, on features computed once without augmentation.

    ``lbfgs`` is CLIP's protocol (see :mod:`clipbench.strategies.logistic_regression`): there is no
    learning rate to get wrong, and the run has two rows, its start and the fitted head. ``sgd``
    takes the recipe's optimizer and steps, as WiSE-FT's ``--freeze-encoder`` does
    (src/models/finetune.py).

    Args:
        solver: ``lbfgs`` or ``sgd``.
        features: what of a CLIP the head reads: ``projected``, L2-normalized, as its zero-shot head
            and every other strategy here do, or ``penultimate``, those before the projection, as
            they are, as CLIP's own probe. Other models have but one kind.
        refit: evaluate on the test splits a head fitted on train and val together, as CLIP does;
            the score on val remains that of the head fitted on train alone.
        head: where it starts: ``auto``, ``zero_shot`` or ``random``.

    Raises:
        UserError: for another word, or ``refit`` without L-BFGS.
    """

    reads_features = True
    soft_labels = False  # there are no images to mix

    solver: str = "lbfgs"
    features: str = "projected"
    refit: bool = False
    head: str = "auto"

    def __post_init__(self) -> None:
        if self.solver not in ("lbfgs", "sgd"):
            raise UserError(f"no strategy.solver={self.solver}; use lbfgs or sgd")
        if self.features not in ("projected", "penultimate"):
            raise UserError(f"no strategy.features={self.features}; use projected or penultimate")
        if self.refit and self.solver == "sgd":
            raise UserError("strategy.refit=true goes with strategy.solver=lbfgs")
        if self.head == "lp":
            raise UserError("a linear probe is itself what head=lp fits; use strategy.head=auto")
        self.trains = self.random = self.solver == "sgd"
        self.fits_head = "run" if self.solver == "lbfgs" else None
        self.ignores = frozenset({"augment", "freeze_depth", "text_freeze_depth"}) | (
            frozenset() if self.trains else STEPS
        )
        self.fitted: Tensor = torch.empty(0)
        self.refitted: dict[str, Tensor] | None = None

    def prepare(self, tower: ImageTower, task: Task) -> Classifier:
        """Return the classifier with its image tower frozen.

        Raises:
            UserError: for a head of text that should read features before the projection.
        """
        if self.features == "penultimate" and tower.has_text:
            if self.head == "zero_shot":
                raise UserError("a head of text reads strategy.features=projected")
            tower.penultimate()
            classifier = start_head(tower, task, "random")
        else:
            classifier = start_head(tower, task, self.head)
        freeze(tower, "all")
        return classifier

    def restored(self, model: Node, file: str) -> ImageTower:
        """Return the tower, set to give the features that its head reads."""
        tower = super().restored(model, file)
        if self.features == "penultimate":
            tower.penultimate()
        return tower

    def fit_head(
        self,
        classifier: Classifier,
        features: Callable[[str], tuple[Tensor, Tensor]],
        weights: Tensor | None = None,
    ) -> None:
        """Fit the head on train, its strength chosen on val; with ``refit`` also on both."""
        c = logistic_regression.fit_head(classifier, features, weights)
        fitted = copy.deepcopy(classifier.head)
        self.fitted = fitted.weight.detach().cpu()
        if self.refit:
            logistic_regression.set_head(
                classifier, [features("train"), features("val")], c, weights
            )
            again = copy.deepcopy(classifier.head.state_dict())
            self.refitted = {f"head.{name}": value for name, value in again.items()}
            classifier.head.load_state_dict(fitted.state_dict())

    def evaluation_points(
        self, classifier: Classifier
    ) -> Iterator[tuple[str, Mapping[str, Tensor] | None]]:
        """Yield the current head, or the head fitted on train and val together."""
        # The start may have been better on val, and is then what is chosen.
        chosen = torch.equal(classifier.head.weight.detach().cpu(), self.fitted)
        if self.refitted is None or not chosen:
            yield "", None
            return
        yield "", {**classifier.state_dict(), **self.refitted}
