"""Oxford Flowers102 (Nilsback and Zisserman 2008) in its official splits, as in torchvision."""

from collections.abc import Sequence
from typing import ClassVar

from torchvision import datasets

from clipbench.datamodules.metadata import remotes
from clipbench.datamodules.torchvision_sets import Parts, TorchvisionDataModule


class Flowers102DataModule(TorchvisionDataModule):
    """102 kinds of flowers: 1,020 photos to train on, 1,020 to validate, 6,149 to test.

    Not comparable with the split of CoOp and its followers, which trains on four times as much.

    Args:
        root: torchvision's root, the folder that holds ``flowers-102``.
        options: see :class:`clipbench.datamodules.base.Options`.
    """

    source, names_key, home = datasets.Flowers102, "flowers102", "flowers-102"
    parts: ClassVar[Parts] = {name: {"split": name} for name in ("train", "val", "test")}
    published_name = "vtab/flowers"
    files = remotes("flowers102")

    def _same_classes(self, found: Sequence[str]) -> None:
        """Accept torchvision's names, three of which differ from CLIP's."""
