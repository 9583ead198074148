"""MS-COCO captions (Chen et al. 2015), by Karpathy's splits or the official ones.

The images of 2014 and of 2017 are the same 123,287, otherwise divided and named: an image's id
here is its name of 2017, wherever it lies.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Unpack

from clipbench.core.errors import UserError
from clipbench.datamodules.base_captions import CaptionDataModule
from clipbench.datamodules.metadata import remotes
from clipbench.datamodules.options import Options
from clipbench.loading.download.files import Remote
from clipbench.loading.readers import caption_files
from clipbench.loading.readers.caption_files import Captions, find, remote, split_of
from clipbench.loading.split import Split, carve

_NAME = len("000000397133.jpg")  # how COCO_val2014_000000397133.jpg ends, and all there is in 2017
_FOLDERS = ("train2017", "val2017", "train2014", "val2014")
_YEARS = (2017, 2014)


class COCODataModule(CaptionDataModule):
    """Photos with five captions or more each.

    - ``karpathy``: 113,287 / 5,000 / 5,000, where train has the 30,504 of his ``restval``, too;
    - ``official``: captions of the test images were never given out, so val2017 (or val2014) is
      the test split, and val is carved from train by the fixed rule;
    - ``clip_benchmark``: the files that CLIP_benchmark reads, for evaluation alone.

    Args:
        root: the folder that holds ``annotations/``, ``train2017/`` and ``val2017/`` (or 2014's).
        scheme: ``karpathy``, ``official`` or ``clip_benchmark``.
        year: of the official annotations, 2017 or 2014.
        val_fraction: share of the official train that is carved as val.
        options: see :class:`clipbench.datamodules.base.Options`.
    """

    published_name = "mscoco_captions"

    def __init__(
        self,
        *,
        root: str | Path,
        scheme: str = "karpathy",
        year: int = 2017,
        val_fraction: float = 0.05,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(root=root, **options)
        if year not in _YEARS:
            raise UserError(f"dataset.year={year}: unknown. Use one of 2017 and 2014")
        schemes: dict[str, tuple[Callable[[], dict[str, Split]], Sequence[Remote]]] = {
            "karpathy": (self._karpathy, [remote("dataset_coco.json")]),
            "official": (self._official, remotes(f"coco_{year}")),
            "clip_benchmark": (self._clip_benchmark, [remote("coco_test_karpathy.json")]),
        }
        if scheme not in schemes:
            raise UserError(f"dataset.scheme={scheme}: unknown. Use one of {', '.join(schemes)}")
        if not 0 < val_fraction < 1:
            raise UserError(f"dataset.val_fraction={val_fraction}: not between 0 and 1. Use 0.2")
        self.captions, annotated = schemes[scheme]
        self.scheme, self.year, self.val_fraction = scheme, year, val_fraction
        homes = [home.name for home in self._homes() if home.is_dir()]
        images = () if "val2014" in homes else remotes("coco_images")
        self.files = (*(zip_ for zip_ in images if zip_.makes[0] not in homes), *annotated)

    def _homes(self) -> list[Path]:
        return [home / name for home in (self.root / "images", self.root) for name in _FOLDERS]

    def read_splits(self) -> dict[str, Split]:
        """Return the splits of the scheme.

        Raises:
            UserError: if the scheme's files are not there, or are damaged.
        """
        files = (path for home in self._homes() if home.is_dir() for path in home.iterdir())
        self.where = {path.name[-_NAME:]: path for path in files}
        return self.captions()

    def _split(self, captions: Captions, folder: str, rule: str | None = None) -> Split:
        own = {name[-_NAME:]: texts for name, texts in captions.items()}
        absent = self.root / folder
        return split_of(own, lambda name: self.where.get(name, absent / name), rule)

    def _karpathy(self) -> dict[str, Split]:
        path = find(self.root, "dataset_coco.json")
        rule = {"train": "Karpathy's train and restval"}
        return {
            name: self._split(captions, "train2017", rule.get(name))
            for name, captions in caption_files.karpathy(path).items()
        }

    def _official(self) -> dict[str, Split]:
        train, val = (
            find(self.root, f"annotations/captions_{part}{self.year}.json")
            for part in ("train", "val")
        )
        whole = self._split(caption_files.coco(train), f"train{self.year}")
        trained, carved = carve(whole, self.val_fraction, of="annotation file")
        rule = f"val{self.year}: the test captions are not public"
        test = self._split(caption_files.coco(val), f"val{self.year}", rule)
        return {"train": trained, "val": carved, "test": test}

    def _clip_benchmark(self) -> dict[str, Split]:
        read = caption_files.evaluation(self.root, "coco_{}_karpathy.json")
        return {name: self._split(captions, "val2014") for name, captions in read.items()}
