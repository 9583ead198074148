"""FGVC-Aircraft (Maji et al. 2013) in its official splits, as in torchvision."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Unpack

from torchvision import datasets

from clipbench.core.errors import UserError
from clipbench.datamodules.metadata import remotes
from clipbench.datamodules.options import Options
from clipbench.datamodules.torchvision_sets import Parts, TorchvisionDataModule, listed
from clipbench.loading.split import Split

CLASSES: Mapping[str, int] = {"variant": 100, "family": 70, "manufacturer": 41}


class FGVCAircraftDataModule(TorchvisionDataModule):
    """10,000 photos of aircraft: 3,334 to train on, 3,333 to validate, 3,333 to test.

    The names of variants are CLIP's too (openai/CLIP data/prompts.md): they are raw, "707-320"
    without its Boeing. Mean per class comes first, as CLIP reports it.

    Args:
        root: torchvision's root, the folder that holds ``fgvc-aircraft-2013b``.
        level: ``variant``, ``family`` or ``manufacturer``: 100, 70 or 41 classes.
        options: see :class:`clipbench.datamodules.base.Options`.

    Raises:
        UserError: for a level that there is not.
    """

    source, home = datasets.FGVCAircraft, "fgvc-aircraft-2013b"
    published_name = "fgvc_aircraft"
    parts: ClassVar[Parts] = {name: {"split": name} for name in ("train", "val", "test")}
    files = remotes("fgvc_aircraft")

    def __init__(
        self, *, root: str | Path, level: str = "variant", **options: Unpack[Options]
    ) -> None:
        super().__init__(root=root, **options)
        if level not in CLASSES:
            raise UserError(f"dataset.level={level}: unknown. Use one of {', '.join(CLASSES)}")
        self.level = level
        self.coarser = list(CLASSES)[list(CLASSES).index(level) + 1 :]
        self.metrics = ("mean_per_class", "acc", *(f"acc_{above}" for above in self.coarser))
        self.templates = [
            "a photo of a {}, a type of aircraft.",
            "a photo of the {}, a type of aircraft.",
        ]

    def official(self, **which: Any) -> Any:
        """Return torchvision's dataset of a split, at this level unless another is given."""
        found = super().official(**{"annotation_level": self.level, **which})
        if (count := len(found.classes)) != CLASSES[found._annotation_level]:
            raise UserError(
                f"{self.root / self.home} lists {count} classes of {found._annotation_level}, "
                f"not {CLASSES[found._annotation_level]}: {self._remedy()}"
            )
        return found

    def read_splits(self) -> dict[str, Split]:
        """Return the three official splits, row for row as torchvision's ``FGVCAircraft``.

        Raises:
            UserError: if a list is absent, damaged or not of the 2013b release.
        """
        self.classes = list(self.official(split="train").classes)
        own = self._labels(self.level)
        self.levels = {level: self._rolled_up(own, level) for level in self.coarser}
        return super().read_splits()

    def _labels(self, level: str) -> dict[Path, int]:
        """Return the label of every image at a level."""
        found = (self.official(split=name, annotation_level=level) for name in self.parts)
        lists = [listed(official) for official in found]
        return {
            path: label
            for files, labels in lists
            for path, label in zip(files, labels, strict=True)
        }

    def _rolled_up(self, own: Mapping[Path, int], level: str) -> list[int]:
        """Return the label that each class has at a coarser level."""
        above = self._labels(level)
        pairs = sorted({(label, above[path]) for path, label in own.items() if path in above})
        if [label for label, _ in pairs] != list(range(len(self.classes))):
            raise UserError(
                f"the lists of {self.level} and {level} in {self.root / self.home} disagree: "
                f"{self._remedy()}"
            )
        return [coarse for _, coarse in pairs]
