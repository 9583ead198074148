"""What a strategy's file says of it, for those who read without torch: doctor, plan, page."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from clipbench.core.config import option_files
from clipbench.core.config.option_files import Node


@dataclass(frozen=True)
class About:
    """The node ``about`` of ``conf/strategy/NAME.yaml``; what it leaves out is as in finetune.

    Attributes:
        label: in names of candidates; empty for the option's own.
        trains: of ``image`` tower, ``text`` tower and ``head`` those that ever train.
        steps: whether an optimizer takes steps.
        scratch: whether what trains starts from random weights whatever the model's are.
        pairs: whether the loss tells the pairs of a batch apart, not the classes; it then takes
            whole batches only.
        classes_alike: whether the pairs of one class in a batch look the same to the loss.
        every_pair: whether an epoch has each image once with each of its captions.
        untried: the page proposes it where nobody has tried it: its place among such proposals,
            for datasets of ``classes`` and of ``captions``.
        remedies: by the doctor's name of a symptom the strategy's keys to set against it; none of
            them where the strategy itself is the remedy.
        text: whether it needs a model with a text tower.
        few_images: a class; below it the strategy is worth a comparison.
        why: that is, with its source.
    """

    label: str = ""
    trains: tuple[str, ...] = ("image", "head")
    steps: bool = True
    scratch: bool = False
    pairs: bool = False
    classes_alike: bool = False
    every_pair: bool = False
    untried: Mapping[str, int] = field(default_factory=dict)
    remedies: Mapping[str, Node | None] = field(default_factory=dict)
    text: bool = False
    few_images: float = 0
    why: str = ""

    @property
    def trains_encoder(self) -> bool:
        """Whether a tower trains, so that features change."""
        return "image" in self.trains or "text" in self.trains


def of(node: Node) -> About:
    """Return what is said of the strategy that a resolved config's node builds."""
    return option_files.about(About, "strategy", option_files.option("strategy", node), node)


def named(option: str) -> About:
    """Return what is said of an option; the defaults where it has no file any more."""
    return option_files.about(About, "strategy", option)


def label(option: str) -> str:
    """Return how an option is called in a sentence."""
    return named(option).label or option


def every() -> dict[str, About]:
    """Return what is said of every option, by its name."""
    return {option: named(option) for option in option_files.files("strategy")}


def proposed(data: str) -> list[str]:
    """Return the options that the page proposes for ``classes`` or ``captions``, in their order."""
    places = {option: known.untried.get(data) for option, known in every().items()}
    return sorted((option for option in places if places[option]), key=lambda o: places[o] or 0)
