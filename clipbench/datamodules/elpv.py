"""ELPV: electroluminescence photos of solar cells, functional or defective (Buerhop-Lutz 2018)."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import numpy as np

from clipbench.core.errors import UserError
from clipbench.datamodules.base_classification import ClassificationDataModule
from clipbench.datamodules.options import Options
from clipbench.loading.split import Split, carve


class ELPVDataModule(ClassificationDataModule):
    """2,624 grey 300 x 300 photos of mono- and polycrystalline cells out of 44 solar modules.

    Experts gave each cell a probability of being defective: 0, 1/3, 2/3 or 1. As in Deitsch et al.
    (Solar Energy 185, 2019), from whom the 75/25 split is taken too, it is rounded: 0 and 1/3 are
    functional (1,803), 2/3 and 1 defective (821). Their list of test cells is not published. Here
    a quarter of each (type, probability) group is test and a fifth of the rest val, those with the
    lowest sha256 of the file name, so that neither seed nor threshold moves a cell. Which module a
    cell is from is not published either: cells of one module may stand in train and in test.

    Args:
        root: folder of the package's ``labels.csv`` and ``images/``; None for the installed one.
        threshold: lowest probability that counts as defective.
        options: see :class:`clipbench.datamodules.base.Options`.
    """

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        threshold: float = 0.5,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(root=root or _installed(), **options)
        self.threshold = threshold
        self.classes = ["functional", "defective"]
        self.templates = [
            "a photo of a {} solar cell.",
            "an electroluminescence image of a {} solar cell.",
            "a black and white photo of a {} photovoltaic cell.",
        ]

    def read_splits(self) -> dict[str, Split]:
        """Return the three carved splits."""
        ids, probability, kinds = self._table()
        groups = [f"{kind} {p:.2f}" for kind, p in zip(kinds, probability, strict=True)]
        cells = Split(
            ids=ids,
            labels=np.unique(groups, return_inverse=True)[1].astype(np.int64),
            images=[self.root / name for name in ids],
            expected=len(ids),
        )
        rest, test = carve(cells, 0.25, of="type and probability")
        train, val = carve(rest, 0.2, of="type and probability")
        defective = {i: int(p >= self.threshold) for i, p in zip(ids, probability, strict=True)}
        return {
            name: replace(split, labels=np.array([defective[i] for i in split.ids], np.int64))
            for name, split in {"train": train, "val": val, "test": test}.items()
        }

    def _table(self) -> tuple[list[str], list[float], list[str]]:
        path = self.root / "labels.csv"  # columns of path, probability and type, by white space
        if not path.is_file():
            raise UserError(
                f"elpv: {path} is not there. Install it with: pip install 'clipbench[elpv]', or set"
                " dataset.root to the folder of labels.csv and images/"
            )
        rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
        try:
            return [r[0] for r in rows], [float(r[1]) for r in rows], [r[2] for r in rows]
        except (IndexError, ValueError) as error:
            raise UserError(
                f"elpv: {path} is damaged ({error}). Install the package again"
            ) from error


def _installed() -> Path:
    """Return the data folder of the package ``elpv-dataset``, without importing it."""
    spec = importlib.util.find_spec("elpv_dataset")
    found = spec.submodule_search_locations if spec else None
    return Path(found[0]) / "data" if found else Path("elpv_dataset")
