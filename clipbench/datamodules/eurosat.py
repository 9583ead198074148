"""EuroSAT in the published lists of others, since it has none of its own."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from torchvision import datasets
from torchvision.datasets.utils import check_integrity

from clipbench.core.errors import UserError
from clipbench.datamodules.torchvision_sets import Parts, TorchvisionDataModule
from clipbench.loading.download.files import Remote
from clipbench.loading.split import Split


class EuroSATDataModule(TorchvisionDataModule):
    """EuroSAT: 27,000 Sentinel-2 images of 64 x 64 in ten land uses (Helber et al. 2019).

    It has no official split. These are the lists of Neumann et al. (arXiv 1911.06721), 16,200 /
    5,400 / 5,400, which torchgeo ships too; CLIP's own draw of 10,000 and 5,000 is not published.
    """

    source, known, home = datasets.EuroSAT, "eurosat", "eurosat"
    parts: ClassVar[Parts] = {"train": {}, "val": {}, "test": {}}
    published_name = "vtab/eurosat"
    # md5s of the lists: torchgeo/datasets/eurosat.py
    lists_md5: ClassVar[Mapping[str, str]] = {
        "train": "908f142e73d6acdf3f482c5e80d851b1",
        "val": "95de90f2aa998f70a3b2416bfe0687b4",
        "test": "7ae5ab94471417b6e315763121e67c5f",
    }
    files = (
        Remote(
            "https://huggingface.co/datasets/torchgeo/eurosat/resolve/"
            "c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip",
            "eurosat/EuroSAT.zip",
            size=94_280_567,
            md5="c8fa014336c82ac7804f0398fcb19387",
            unpack="eurosat",
            makes=("eurosat/2750",),
        ),
        *(
            Remote(
                "https://huggingface.co/datasets/torchgeo/eurosat/resolve/"
                f"1ce6f1bfb56db63fd91b6ecc466ea67f2509774c/eurosat-{name}.txt",
                f"eurosat/eurosat-{name}.txt",
                md5=md5,
            )
            for name, md5 in lists_md5.items()
        ),
    )

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
