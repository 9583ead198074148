"""EuroSAT in the published lists of others, since it has none of its own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torchvision import datasets
from torchvision.datasets.utils import check_integrity

from clipbench.core.errors import UserError
from clipbench.datamodules.metadata import remotes
from clipbench.datamodules.torchvision_sets import Parts, TorchvisionDataModule
from clipbench.loading.split import Split


class EuroSATDataModule(TorchvisionDataModule):
    """EuroSAT: 27,000 Sentinel-2 images of 64 x 64 in ten land uses (Helber et al. 2019).

    It has no official split. These are the lists of Neumann et al. (arXiv 1911.06721), 16,200 /
    5,400 / 5,400, which torchgeo ships too; CLIP's own draw of 10,000 and 5,000 is not published.
    """

    source, names_key, home = datasets.EuroSAT, "eurosat", "eurosat"
    parts: ClassVar[Parts] = {"train": {}, "val": {}, "test": {}}
    published_name = "vtab/eurosat"
    files = remotes("eurosat")
    lists_md5: ClassVar[Mapping[str, str | None]] = {
        Path(file.name).stem.removeprefix("eurosat-"): file.md5 for file in files[1:]
    }

    def split(self, name: str, official: Any) -> Split:
        """Return the images that a split's list names, in torchvision's order, on disk or not."""
        path = self.root / self.home / f"eurosat-{name}.txt"
        if not check_integrity(path, self.lists_md5[name]):
            raise UserError(f"{path} is not the published list: {self._remedy()}")
        files = sorted((line.split("_")[0], line) for line in path.read_text().split())
        paths = [self.root / self.home / "2750" / folder / file for folder, file in files]
        return Split(
            ids=[path.relative_to(self.root).as_posix() for path in paths],
            labels=np.array([official.class_to_idx[folder] for folder, _ in files], dtype=np.int64),
            images=paths,
            expected=len(paths),
            rule=f"eurosat-{name}.txt of Neumann et al. 2019",
        )
