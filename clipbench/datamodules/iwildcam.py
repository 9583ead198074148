"""iWildCam2020-WILDS (Beery et al. 2020, Koh et al. 2021): animals before camera traps."""

from collections import Counter
from pathlib import Path
from typing import Unpack

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clipbench.core import paths
from clipbench.core.errors import UserError
from clipbench.datamodules.base_classification import ClassificationDataModule
from clipbench.datamodules.options import Options
from clipbench.loading.readers import wilds
from clipbench.loading.split import Split

NO_CLASS = 99999  # the y of categories of which the release has no image


class IWildCamDataModule(ClassificationDataModule):
    """182 classes, ``empty`` the first; val and test are of the traps of train, the shifts not.

    The splits of WILDS v2.0. Names are WiSE-FT's: the column ``english`` of its table
    (mlfoundations/wise-ft src/datasets/iwildcam_metadata/labels.csv), in lower case. Four of them
    name two classes each, as there; of such a pair a zero-shot head only predicts the first.
    ``dataset.class_names=scientific`` gives the release's own names. A ``categories.csv`` in the
    folder with other names than the release's wins: it is of another set in this layout.

    Args:
        root: the folder ``iwildcam_v2.0``.
        options: see :class:`clipbench.datamodules.base.Options`.
    """

    metrics = ("macro_f1", "acc", "mean_per_class")  # WILDS selects by the first
    instructions = wilds.steps("0x6313da2b204647e79a14b468131fcd64", "12.0 GB", "iwildcam_v2.0")

    def __init__(self, *, root: str | Path, **options: Unpack[Options]) -> None:
        super().__init__(root=root, **options)
        self.templates = ["a photo of {}.", "{} in the wild."]  # WiSE-FT's

    def read_splits(self) -> dict[str, Split]:
        """Return the five splits of WILDS, in the order of its table.

        Raises:
            UserError: if the table is not there or damaged, or its labels have no names.
        """
        path = self.root / "metadata.csv"
        rows = wilds.table(path, ("split", "filename", "y", "location_remapped"))
        labels, places = (_counted(path, rows, name) for name in ("y", "location_remapped"))
        if odd := sorted(set(rows["split"].astype(str)) - set(wilds.SPLITS.values())):
            known = ", ".join(wilds.SPLITS.values())
            raise UserError(f"{path} has a split {odd[0]}. Make each of them one of {known}")
        self._name(labels.max() + 1)
        sites = rows.get("location", rows["location_remapped"])
        called = dict(zip(places.tolist(), sites, strict=True))
        self.groups = {"location": [str(called.get(i, i)) for i in range(places.max() + 1)]}
        files = [f"train/{name}" for name in rows["filename"]]  # where those of all splits are
        images = [self.root / file for file in files]
        whole = Split(files, labels, images, len(files), groups={"location": places})
        official = rows["split"].to_numpy()
        return {
            ours: whole.take(np.flatnonzero(official == theirs))
            for ours, theirs in wilds.SPLITS.items()
        }

    def _name(self, count: int) -> None:
        shipped = pd.read_csv(paths.ASSETS / "classes" / "iwildcam.csv")
        path = self.root / "categories.csv"
        if path.is_file():
            found = wilds.table(path, ("y", "name"))
            found = found[found["y"] != NO_CLASS].sort_values("y")
            if list(found["y"]) != list(range(count)):
                raise UserError(f"{path} must name y = 0 to {count - 1}, each once. Fix it")
            if list(found["name"]) != list(shipped["scientific"]):
                self.classes = found["name"].astype(str).tolist()
                return
        if count != len(shipped):
            raise UserError(
                f"{self.root / 'metadata.csv'} has labels to {count - 1}, not iWildCam's to "
                f"{len(shipped) - 1}. Put a categories.csv of y,name beside it"
            )
        self.classes, self.keys = list(shipped["english"]), list(shipped["scientific"])
        self.name_variants = {"scientific": self.keys}
        counts = Counter(self.classes) | Counter(self.keys)  # the higher count of each name
        self.homonyms = {name for name, n in counts.items() if n > 1}


def _counted(path: Path, rows: pd.DataFrame, column: str) -> NDArray[np.int64]:
    numbers = pd.to_numeric(rows[column], errors="coerce")
    wrong = ~(numbers >= 0) | (numbers % 1 != 0)
    if wrong.any():
        lines = [f"{path}:{row + 2}: {rows[column][row]}" for row in np.flatnonzero(wrong)]
        raise UserError(f"{len(lines)} {column} of {path} are not numbers from 0. Fix them", lines)
    return numbers.to_numpy(np.int64)
