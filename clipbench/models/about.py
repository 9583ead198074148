"""What a model's file says of it, for those who read without torch."""

import re
from dataclasses import dataclass

from clipbench.core.config import option_files
from clipbench.core.config.option_files import Node


@dataclass(frozen=True)
class About:
    """The node ``about`` of ``conf/model/NAME.yaml``.

    Attributes:
        text: whether it has a text tower that fits its image features.
        batchnorm: a pattern; architectures that match it have BatchNorm layers.
    """

    text: bool = False
    batchnorm: str | None = None


def of(node: Node) -> About:
    """Return what is said of the model that a resolved config's node builds."""
    return option_files.about(About, "model", option_files.option("model", node), node)


def with_text() -> list[str]:
    """Return the options that have a text tower."""
    options = option_files.files("model")
    return [o for o in options if option_files.about(About, "model", o).text]


def has_batchnorm(node: Node) -> bool:
    """Return whether a model, given its config, has BatchNorm layers."""
    pattern = of(node).batchnorm
    return pattern is not None and bool(re.search(pattern, str(node.get("arch"))))
