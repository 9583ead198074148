"""Flickr8k (Hodosh et al. 2013) and Flickr30k (Young et al. 2014): photos with five captions each.

Schemes, whose numbers are not to be set beside each other: ``karpathy``, the published one;
``official``, by the lists that came with the captions; ``clip_benchmark``, from the annotation
files that CLIP_benchmark reads, for evaluation alone; of Flickr8k ``jina``, by the notebook to
"How Much Do We Get by Finetuning CLIP?".
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from clipbench.core.errors import UserError
from clipbench.datamodules.base_captions import CaptionDataModule
from clipbench.datamodules.metadata import read, remotes
from clipbench.datamodules.options import Options
from clipbench.loading.download.files import Remote
from clipbench.loading.images.folder_walk import is_image
from clipbench.loading.readers import caption_files
from clipbench.loading.readers.caption_files import Captions, by_lists, find, remote, split_of
from clipbench.loading.split import Split

# The notebook (jina-ai/workshops, notebooks/finetuner-clip/FinetunerXCLIPBenchmark.ipynb) stops
# after the line of index 5,000: of 5,001 lines 4,376 are not of test, which is what it prints.
JINA_LINES = 5001

Scheme = tuple[Callable[[], dict[str, Captions]], Sequence[Remote]]


class FlickrDataModule(CaptionDataModule):
    """Photos in one folder, their captions in another file.

    Args:
        root: the dataset's folder.
        scheme: ``karpathy``, ``official``, ``clip_benchmark``, or of Flickr8k ``jina``.
        options: see :class:`clipbench.datamodules.base.Options`.

    Attributes:
        folders: what the photos' folder is called, here or there; they may be in root itself.
        photos: where the photos may be fetched, for those that may.
        texts: what the official captions' file is called, and how it is read.
        listed: the official file of each split's names.
        official: what may be fetched of those two.
        rules: how splits were made that no list defines.
    """

    published_name: str
    folders: Sequence[str]
    photos: Sequence[Remote] = ()
    texts: Mapping[str, Callable[[Path], Captions]]
    listed: Mapping[str, str]
    official: Sequence[Remote]

    def __init__(
        self, *, root: str | Path, scheme: str = "karpathy", **options: Unpack[Options]
    ) -> None:
        super().__init__(root=root, **options)
        self.rules: dict[str, str] = {}
        schemes = self._schemes()
        if scheme not in schemes:
            raise UserError(f"dataset.scheme={scheme}: unknown. Use one of {', '.join(schemes)}")
        self.scheme = scheme
        self.captions, wanted = schemes[scheme]
        home = self._home()
        there = [replace(file, makes=(str(home),)) for file in self.photos if home]
        if self.photos or home:  # without the photos their captions are of no use
            self.files = (*(there or self.photos), *wanted)

    def _schemes(self) -> dict[str, Scheme]:
        """Return what reads the captions of each scheme, and the files that it reads."""
        benchmark = f"{self.published_name}_test_karpathy.txt"
        return {
            "karpathy": (self._karpathy, [remote(f"dataset_{self.published_name}.json")]),
            "official": (self._official, self.official),
            "clip_benchmark": (self._clip_benchmark, [remote(benchmark)]),
        }

    def _home(self) -> Path | None:
        homes = [self.root / folder for folder in self.folders]
        if any(is_image(path.name) for path in self.root.glob("*.jpg")):
            homes.append(self.root)  # as CLIP_benchmark has them
        return next((home for home in homes if home.is_dir()), None)

    def read_splits(self) -> dict[str, Split]:
        """Return the splits of the scheme, each in the order of its file.

        Raises:
            UserError: if the scheme's files are not there, or are damaged.
        """
        if self._home() is None and self.instructions:
            raise UserError(f"no photos are in {self.root}: {self.instructions}")
        return {
            name: split_of(own, self._photo, self.rules.get(name))
            for name, own in self.captions().items()
        }

    def _photo(self, name: str) -> Path:
        return (self._home() or self.root / self.folders[0]) / name

    def _karpathy(self) -> dict[str, Captions]:
        return caption_files.karpathy(find(self.root, f"dataset_{self.published_name}.json"))

    def _official(self) -> dict[str, Captions]:
        text = find(self.root, *self.texts)
        captions = self.texts[text.relative_to(self.root).as_posix()](text)
        lists = {split: find(self.root, path) for split, path in self.listed.items()}
        splits, warnings = by_lists(captions, lists, self._photo)
        self.warnings += warnings
        return splits

    def _clip_benchmark(self) -> dict[str, Captions]:
        return caption_files.evaluation(self.root, f"{self.published_name}_{{}}_karpathy.txt")


class Flickr8kDataModule(FlickrDataModule):
    """8,000 photos: 6,000 to train on, 1,000 to validate, 1,000 to test, in either scheme."""

    published_name = "flickr8k"
    folders = ("Flicker8k_Dataset", "Flickr8k_Dataset", "Images")  # [sic]; Kaggle's is the last
    texts: Mapping[str, Callable[[Path], Captions]] = {
        "Flickr8k_text/Flickr8k.token.txt": caption_files.token
    }
    listed: Mapping[str, str] = {
        "train": "Flickr8k_text/Flickr_8k.trainImages.txt",
        "val": "Flickr8k_text/Flickr_8k.devImages.txt",
        "test": "Flickr8k_text/Flickr_8k.testImages.txt",
    }
    photos, official = remotes("flickr8k_photos"), remotes("flickr8k_captions")

    def _schemes(self) -> dict[str, Scheme]:
        files = [remote(f"dataset_{self.published_name}.json"), *self.official]
        return {**super()._schemes(), "jina": (self._jina, files)}

    def _jina(self) -> dict[str, Captions]:
        """Return the notebook's train (the first caption lines less test), val and test.

        The notebook has no val. Kaggle's file, which it reads, keeps quotes around a caption that
        has a comma, as CLIP_benchmark's files do.
        """
        kept, splits = find(self.root, "captions.txt", *self.texts), self._karpathy()
        read = caption_files.benchmark if kept.name == "captions.txt" else caption_files.token
        lines = [(n, text) for n, own in read(kept).items() if n.endswith(".jpg") for text in own]
        train: Captions = {}
        for name, text in sorted(lines, key=lambda line: line[0])[:JINA_LINES]:
            if name not in splits["test"]:
                train.setdefault(name, []).append(text)
        val = {name: own for name, own in splits["val"].items() if name not in train}
        self.rules = {
            "train": f"the first {JINA_LINES:,} caption lines by name, less Karpathy's test",
            "val": "Karpathy's less the images of train",
        }
        return {"train": train, "val": val, "test": splits["test"]}


class Flickr30kDataModule(FlickrDataModule):
    """31,014 photos in Karpathy's splits, 29,000 / 1,014 / 1,000.

    The authors gave no splits to their 31,783 photos; ``official`` are those of Flickr30k Entities
    (Plummer et al. 2015), 29,783 / 1,000 / 1,000.
    """

    published_name = "flickr30k"
    folders = (
        "flickr30k-images",
        "flickr30k_images/flickr30k_images",
        "flickr30k_images",
        "Images",
    )
    texts: Mapping[str, Callable[[Path], Captions]] = {
        "results_20130124.token": caption_files.token,
        "results.csv": caption_files.results,  # Kaggle's, here or there
        "flickr30k_images/results.csv": caption_files.results,
    }
    listed: Mapping[str, str] = {name: f"{name}.txt" for name in ("train", "val", "test")}
    official = remotes("flickr30k_lists")
    instructions = read("downloads")["instructions"]["flickr30k"]
