"""FMoW-WILDS (Christie et al. 2018, Koh et al. 2021): what a satellite image shows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Unpack

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clipbench.core.errors import UserError
from clipbench.datamodules.base_classification import ClassificationDataModule
from clipbench.datamodules.metadata import class_names
from clipbench.datamodules.options import Options
from clipbench.loading.readers import wilds
from clipbench.loading.split import Split

CLASSES, _, TEMPLATES = class_names("fmow")
REGIONS = ["Asia", "Europe", "Africa", "Americas", "Oceania"]  # and Other, which counts nowhere
YEARS = [str(year) for year in range(2002, 2018)]


class FMoWDataModule(ClassificationDataModule):
    """62 uses of buildings and land; val and test until 2012, val_ood to 2015, test_ood after.

    The splits, regions and years of WILDS v1.1. What its table calls ``seq`` is not used; the
    number of an image's file is its row in the whole table.

    Args:
        root: the folder ``fmow_v1.1``.
        options: see :class:`clipbench.datamodules.base.Options`.
    """

    metrics = ("acc", "acc_worst_region", "acc_worst_year")
    groups: Mapping[str, Sequence[str]] = {"region": REGIONS, "year": YEARS}
    name_variants: Mapping[str, Sequence[str]] = {"spaced": [c.replace("_", " ") for c in CLASSES]}
    instructions = wilds.steps("0xaec91eb7c9d548ebb15e1b5e60f966ab", "53.9 GB", "fmow_v1.1")

    def __init__(self, *, root: str | Path, **options: Unpack[Options]) -> None:
        super().__init__(root=root, **options)
        self.classes, self.keys, self.templates = list(CLASSES), CLASSES, list(TEMPLATES)

    def read_splits(self) -> dict[str, Split]:
        """Return the five splits of WILDS, in the order of its table.

        Raises:
            UserError: if a table is not there or damaged, or has a class or time that is none.
        """
        path = self.root / "rgb_metadata.csv"
        rows = wilds.table(path, ("split", "category", "country_code", "timestamp"))
        rows = rows[rows["split"] != "seq"]
        when = self._times(rows["timestamp"])
        year = when.dt.year.to_numpy()
        official = rows["split"].to_numpy()
        before, after = year < 2013, year >= 2016
        taken = {
            "train": (official == "train") & before,
            "val": (official == "val") & before,
            "test": (official == "test") & before,
            "val_ood": (official == "val") & ~before & ~after,
            "test_ood": (official == "test") & after,
        }
        labels = self._labels(rows["category"])
        groups = {
            "region": self._regions(rows["country_code"]),
            "year": np.where((year >= 2002) & (year <= 2017), year - 2002, -1).astype(np.int64),
        }
        splits = {}
        for name, mask in taken.items():
            files = [f"images/rgb_img_{row}.png" for row in rows.index[mask]]
            images = [self.root / file for file in files]
            own = {kind: ids[mask] for kind, ids in groups.items()}
            splits[name] = Split(files, labels[mask], images, len(files), groups=own)
        return splits

    def _times(self, stamps: "pd.Series[str]") -> "pd.Series[pd.Timestamp]":
        # Some have fractions of a second, some have not; all are UTC.
        times = pd.to_datetime(stamps, format="ISO8601", utc=True, errors="coerce")
        self._refuse(stamps[times.isna()], "is not a time")
        return times

    def _labels(self, categories: "pd.Series[str]") -> NDArray[np.int64]:
        labels = categories.map({name: label for label, name in enumerate(CLASSES)})
        self._refuse(categories[labels.isna()], "is none of the 62 classes")
        return np.asarray(labels, dtype=np.int64)

    def _regions(self, countries: "pd.Series[str]") -> NDArray[np.int64]:
        codes = wilds.table(self.root / "country_code_mapping.csv", ("alpha-3", "region"))
        of = dict(zip(codes["alpha-3"], codes["region"], strict=True))
        places = [of.get(code, "Other") for code in countries]
        return np.array([REGIONS.index(p) if p in REGIONS else -1 for p in places], dtype=np.int64)

    def _refuse(self, wrong: "pd.Series[str]", what: str) -> None:
        if len(wrong):
            name = self.root / "rgb_metadata.csv"
            numbered = zip(wrong.index.tolist(), wrong, strict=True)
            lines = [f"{name}:{row + 2}: {value} {what}" for row, value in numbered]
            raise UserError(f"{len(lines)} rows of {name} are wrong. Download it again", lines)
