"""What to choose for a dataset, a model and a way of tuning, and why; what is off the usual path.

Sources: the OpenCLIP fine-tuning guide (its table of learning rates, its checklist), big_vision's
configs/transfer.py, CLIP's paper (Radford et al. 2021), WiSE-FT, FLYP and FT-CLIP.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from clipbench.core.config.option_files import Config, Node
from clipbench.datamodules.base_captions import CaptionDataModule
from clipbench.datamodules.base_classification import ClassificationDataModule
from clipbench.models.about import of as about_model
from clipbench.strategies import about
from clipbench.strategies.base import Strategy
from clipbench.strategies.published_ranges import FROZEN, FULL, GUIDE, SCRATCH, own_lr, row


@dataclass(frozen=True)
class Facts:
    """What a choice may depend on, ``model`` and ``tuning`` being configs.

    An image counts as often as it has captions, where all are taken; captions have 0 classes.
    """

    images: int
    classes: int
    model: Node
    tuning: Node
    strategy: Strategy
    gpu: bool

    @classmethod
    def of(
        cls, config: Node, strategy: Strategy, data: ClassificationDataModule | CaptionDataModule
    ) -> "Facts":
        """Return the facts of a run, from its config, before any weights are looked for."""
        accelerator = config["trainer"]["accelerator"]
        gpu = accelerator == "auto" and torch.cuda.is_available()
        return cls(
            images=len(data.epoch),
            classes=len(data.classes),
            model=config["model"],
            tuning=config["strategy"],
            strategy=strategy,
            gpu=gpu or accelerator in ("gpu", "cuda"),
        )

    @property
    def clip(self) -> bool:
        """Whether the model has a text side."""
        return about_model(self.model).text

    @property
    def source(self) -> str:
        """Whose file recommends the learning rate: ``conf/strategy`` or ``conf/model``."""
        return "conf/strategy" if "lr" in self.tuning.get("recommended", {}) else "conf/model"

    @property
    def lr(self) -> float:
        """The learning rate that this file recommends."""
        return float(own_lr(self.model, self.tuning) or 0)

    @property
    def kind(self) -> str:
        """The row of the guide's table."""
        return row(self.model, self.tuning)

    @property
    def shots(self) -> float:
        """Images a class; without classes there are never few of them."""
        return self.images / self.classes if self.classes else math.inf


def check_ranges(facts: Facts, recipe: Node) -> list[str]:
    """Return a warning of what is outside the guide's range for a way of tuning a CLIP.

    A learning rate that the strategy's own file recommends is not checked, nor is the model's in
    full fine-tuning, which it is for. Warm-up is checked where it is given in steps: the guide's
    are of sets of millions of images, and mean nothing as a share of a smaller run. For the same
    reason a small set may take as many epochs as ``recipe=auto`` would.
    """
    if not facts.clip or not facts.strategy.trains:
        return []
    name, outside = facts.kind, []
    for_this = facts.source == "conf/strategy" or name in (FULL, SCRATCH)
    values = {
        "lr": None if for_this and recipe["lr"] == facts.lr else recipe["lr"],
        "warmup_steps": recipe["warmup_steps"],
        "epochs": recipe["epochs"] if recipe["steps"] is None else None,
    }
    for key, value in values.items():
        low, high = getattr(GUIDE[name], key)
        most = max(high, _epochs(facts, recipe)[0]) if key == "epochs" else high
        if value is not None and not low <= value <= most:
            limits = f"{low:g} or more" if high in (math.inf, low) else f"{low:g} to {high:g}"
            outside.append(f"{key}={value:g} ({limits})")
    warning = f"outside the OpenCLIP guide's range for {name}: {', '.join(outside)}"
    return [warning] if outside else []


def check_ema(ema: float | str | None, steps: int) -> list[str]:
    """Return a warning of an average that is still mostly the weights before training."""
    stale = ema**steps if isinstance(ema, int | float) else 0.0
    warning = (
        f"ema={ema} leaves {stale:.0%} of the first step's weights in the average after {steps} "
        "steps; ema=auto fits the run"
    )
    return [warning] if stale >= 0.1 else []


def check_stages(strategy: Strategy, epochs: int) -> list[str]:
    """Return a warning of stages of unfreezing that would begin after the last epoch."""
    late = [str(start) for start, _ in getattr(strategy, "stages", []) if start >= epochs]
    warning = (
        f"strategy.stages: what should begin once {' and '.join(late)} epochs are over never "
        f"does in epochs={epochs}; begin earlier, or train for longer"
    )
    return [warning] if late else []


def warnings(facts: Facts, recipe: Node, steps: int) -> list[str]:
    """Return every warning for a run of some steps."""
    stages = check_stages(facts.strategy, recipe["epochs"])
    return [*check_ranges(facts, recipe), *check_ema(recipe["ema"], steps), *stages]


Choice = tuple[Any, str]


def _batch_size(facts: Facts, values: Node) -> Choice:
    most, whose = (256, "FLYP's, for one GPU") if facts.gpu else (64, "for a machine without GPU")
    steps = 8
    size = min(most, 2 ** int(math.log2(max(16, facts.images / steps))))
    return size, (
        f"at most {most}, {whose}, and {steps} steps an epoch from {facts.images:,} images: "
        "the blog's 512 left Flowers102 two"
    )


def _epochs(facts: Facts, values: Node) -> Choice:
    low, high = GUIDE[FROZEN if row({}, facts.tuning) == FROZEN else FULL].epochs
    steps = math.ceil(facts.images / values["batch_size"])
    return min(20, max(int(low), math.ceil(500 / steps))), (
        f"500 steps, as big_vision's for Flowers102 and Pets, are {500 / steps:.1f} epochs of "
        f"{steps}, within {low:g} to 20; the guide has {low:g} to {high:g}, of larger sets"
    )


def _warmup(facts: Facts, values: Node) -> Choice:
    total = values["steps"] or values["epochs"] * math.ceil(facts.images / values["batch_size"])
    if total < 1000:
        return 0.2, f"{total} steps are few: big_vision warms up 100 of 500"
    return 0.1, f"of {total:,} steps, as recipe=default"


def _lr(facts: Facts, values: Node) -> Choice:
    name = facts.kind
    # A strategy's own is for what it does, and a supervised network is not a CLIP.
    if not facts.clip or facts.source == "conf/strategy" or name == FULL:
        return facts.lr, f"what {facts.source} recommends, with its source there"
    if name == SCRATCH:
        return float(f"{GUIDE[name].middle:.2g}"), f"the middle of the OpenCLIP guide's for {name}"
    factor = round(GUIDE[name].middle / GUIDE[FULL].middle)
    return facts.lr * factor, (
        f"the model's {facts.lr:g} times {factor}: so far {name} lies above full fine-tuning in "
        "the OpenCLIP guide"
    )


def _weight_decay(facts: Facts, values: Node) -> Choice:
    base = facts.model["recommended"]["weight_decay"]
    if not facts.clip or facts.shots >= 20:
        return base, "what conf/model recommends, with its source there"
    return 2 * base, (
        f"twice the model's {base:g} for {facts.shots:.0f} images per class: the guide raises it "
        "against overfitting"
    )


def _label_smoothing(facts: Facts, values: Node) -> Choice:
    if not facts.classes:
        return 0.0, "captions have no classes"
    if facts.classes >= 100:
        return 0.1, f"FT-CLIP's, for many classes: {facts.classes}"
    return 0.0, f"WiSE-FT has none; FT-CLIP's 0.1 is for many classes, not {facts.classes}"


# In this order: what is further down reads what was chosen before.
_RULES: dict[str, Callable[[Facts, Node], Choice]] = {
    "batch_size": _batch_size,
    "epochs": _epochs,
    "warmup": _warmup,
    "lr": _lr,
    "weight_decay": _weight_decay,
    "label_smoothing": _label_smoothing,
}


def chosen(recipe: Node, facts: Facts) -> tuple[Config, list[str]]:
    """Return values for what a recipe leaves null, and lines to print: the reason of each.

    The recipe has the root's keys in their place. If it leaves any value null, there are also the
    lines of :func:`proposals`.
    """
    missing = [key for key in _RULES if recipe[key] is None]
    values, reasons = dict(recipe), []
    for key in missing:
        values[key], why = _RULES[key](facts, values)
        reasons.append(f"{key}={values[key]:g}: {why}")
    if missing:
        reasons += proposals(facts)
    return {key: values[key] for key in missing}, reasons


def proposals(facts: Facts) -> list[str]:
    """Return advice on whether to fine-tune at all, and how deep: lines to print."""
    few, lines = f"proposal: {facts.shots:.0f} images per class: compare", []
    simpler = [
        (about_it.few_images, option, about_it.why)
        for option, about_it in about.every().items()
        if facts.shots < about_it.few_images and (facts.clip or not about_it.text)
    ]
    if simpler:
        _, option, why = min(simpler)
        lines.append(f"{few} strategy={option}, {why}")
    if facts.kind == FULL and facts.shots < 100:
        lines.append(
            f"{few} a freeze_depth of half the blocks (6 of a ViT-B's 12): the guide's advice for "
            "small sets, at 0.1 % less accuracy on ImageNet (FT-CLIP, figure 3)"
        )
    return lines
