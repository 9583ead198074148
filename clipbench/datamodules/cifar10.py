"""CIFAR-10, the one dataset that is held as pixels."""

from typing import Any, ClassVar

import numpy as np
from torchvision import datasets

from clipbench.datamodules.metadata import remotes
from clipbench.datamodules.torchvision_sets import Parts, TorchvisionDataModule
from clipbench.loading.split import Split


class CIFAR10DataModule(TorchvisionDataModule):
    """CIFAR-10: 50,000 and 10,000 images of 32 x 32 in ten classes (Krizhevsky 2009).

    Its files are pickles; torchvision opens them only after their md5.
    """

    source, names_key, home = datasets.CIFAR10, "cifar10", "cifar-10-batches-py"
    parts: ClassVar[Parts] = {"train": {"train": True}, "test": {"train": False}}
    published_name = "vtab/cifar10"
    files = remotes("cifar10")

    def split(self, name: str, official: Any) -> Split:
        """Return the pixels themselves; an id is the row in torchvision's order."""
        count = len(official.targets)
        return Split(
            ids=[f"{name}/{row:05d}" for row in range(count)],
            labels=np.array(official.targets, dtype=np.int64),
            images=official.data,
            expected=count,
        )
