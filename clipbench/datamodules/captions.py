"""Anyone's own images and captions, from a CSV, TSV or JSONL file or from webdataset shards."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Unpack

from clipbench.core import paths
from clipbench.core.errors import UserError
from clipbench.datamodules.base import carve_missing
from clipbench.datamodules.base_captions import CaptionDataModule
from clipbench.datamodules.options import Options
from clipbench.loading.images.folder_walk import Finder
from clipbench.loading.readers import table_files, webdataset
from clipbench.loading.readers.caption_files import split_of
from clipbench.loading.readers.text_files import split_name
from clipbench.loading.split import Split

CONTEXT = 77  # tokens that a CLIP reads, its two marks included; open_clip cuts off what is over
CAPTION_KEYS = (
    *("caption", "captions", "text", "title", "sentence", "sentences", "comment", "description"),
)


class CaptionsDataModule(CaptionDataModule):
    """Images with captions, a row of a file for each caption.

    Captions are kept to the letter. A faulty row is refused, never left out.

    Args:
        file: the CSV, TSV or JSONL file; in JSONL a caption may be a list of them. Or webdataset
            shards: a tar, a pattern ``train-{000..099}.tar``, or a folder of them.
        root: the folder that its paths begin in; None for the file's own.
        path_key: the column of paths; None for the one whose name says so.
        caption_key: the column of captions; None for the one whose name says so.
        split_key: the column with train, val, test or test_<name>; None for ``split``, if any.
        test_fraction: share of the images carved as test, where there is none.
        val_fraction: share of what is left carved as val, where there is none.
        options: see :class:`clipbench.datamodules.base.Options`.
    """

    def __init__(
        self,
        *,
        file: str | Path | None = None,
        root: str | Path | None = None,
        path_key: str | None = None,
        caption_key: str | None = None,
        split_key: str | None = None,
        test_fraction: float = 0.2,
        val_fraction: float = 0.2,
        **options: Unpack[Options],
    ) -> None:
        if file is None:
            raise UserError("dataset.file is not set. Name yours: dataset.file=/my/captions.csv")
        self.file = paths.expanded(file)
        super().__init__(root=root or self.file.parent, **options)
        self.column_keys = {"path": path_key, "caption": caption_key, "split": split_key}
        self.fractions = {"test": test_fraction, "val": val_fraction}

    def read_splits(self) -> dict[str, Split]:
        """Return the splits that the file names, and those carved from train.

        Raises:
            UserError: if the file cannot be read, or with ``file:line: reason`` of each faulty row.
        """
        if webdataset.matches(self.file):
            return self._shards()
        table = table_files.read(self.file)
        gathered = Gathered(self.file.name, self.root.absolute(), list(table.wrong))
        usual = {
            "path": table_files.PATH_KEYS,
            "caption": CAPTION_KEYS,
            "split": table_files.SPLIT_KEYS,
        }
        columns = table_files.columns(self.file, table, usual, self.column_keys)
        for line, cells in table.rows:
            gathered.add(line, *(cells.get(c, "") if c is not None else "" for c in columns))
        table_files.refuse(self.file, gathered.wrong)
        if not gathered.captions:
            raise UserError(f"{self.file} has no rows. Give it one for each caption")
        self.warnings += table.warnings + report(self.file.name, gathered.captions)
        return self._carved(gathered.splits())

    def _shards(self) -> dict[str, Split]:
        splits, warnings = webdataset.captioned(self.file)
        pairs = [zip(s.ids, s.captions or (), strict=True) for s in splits.values()]
        self.warnings += warnings + report(self.file.name, dict(chain(*pairs)))
        return self._carved(splits)

    def _carved(self, splits: Mapping[str, Split]) -> dict[str, Split]:
        whole = carve_missing(splits, self.fractions, of="caption file")
        if "train" in whole and not len(whole["train"]):
            raise UserError("too few images to share between train, val and test. Add some")
        return whole


@dataclass
class Gathered:
    """Captions by image, gathered from rows."""

    file: str  # its name, for messages
    root: Path  # the folder that paths begin in
    wrong: list[str]  # ``file:line: reason`` of each faulty row
    captions: dict[str, list[str]] = field(default_factory=dict)  # of each image
    owner: dict[str, str] = field(default_factory=dict)  # the split of each image

    def add(self, line: int, path: Any, caption: Any, split: Any) -> None:
        """Add a row, or what is wrong with it to :attr:`wrong`."""
        texts = caption if isinstance(caption, list) else [caption]
        name = table_files.image_name(path, self.root)
        written = str(split) if split != "" else "train"
        home = split_name(written)
        present = bool(texts) and all(isinstance(text, str) and text.strip() for text in texts)
        reason = table_files.fault(name, "caption", present, written)
        if reason is None and (before := self.owner.get(name, home)) != home:
            reason = f"{name} is in {home}, and in {before} above"
        if reason:
            self.wrong.append(f"{self.file}:{line}: {reason}")
            return
        self.captions.setdefault(name, []).extend(texts)
        self.owner[name] = home

    def splits(self) -> dict[str, Split]:
        """Return the splits, images in the order in which they first occur."""
        by_split: dict[str, dict[str, list[str]]] = {}
        for name, texts in self.captions.items():
            by_split.setdefault(self.owner[name], {})[name] = texts
        image = Finder(self.root).find
        return {name: split_of(captions, image) for name, captions in by_split.items()}


def report(file: str, captions: Mapping[str, Sequence[str]]) -> list[str]:
    """Return warnings about captions of a file, by image, that are unusual and yet valid."""
    twice = {name: len(texts) - len(set(texts)) for name, texts in captions.items()}
    first = next((name for name, count in twice.items() if count), "")
    each = sorted(map(len, captions.values()))
    texts = list(chain(*captions.values()))
    broken = sum("\n" in text for text in texts)
    homes = Counter(chain(*map(set, captions.values())))
    ((common, count),) = homes.most_common(1)
    notes = {
        f"{sum(twice.values()):,} captions occur twice at their image, first at {first}; "
        "kept": bool(first),
        f"images have {each[0]} to {each[-1]} captions": each[0] != each[-1],
        f"{broken:,} captions go over several lines": broken > 0,
        f"{count:,} of {len(captions):,} images have the caption {common!r}: no search tells "
        "them apart by it": count > 1 and 2 * count > len(captions),
    }
    return [f"{file}: {what}" for what, so in notes.items() if so] + too_long(texts)


def too_long(captions: Sequence[str]) -> list[str]:
    """Return the warning that captions have more tokens than a CLIP reads, if any have."""
    from open_clip import SimpleTokenizer  # takes seconds, and short captions need none

    # a token is a byte at least
    long = [text for text in captions if len(text.encode()) > CONTEXT - 2]
    tokenizer = SimpleTokenizer() if long else None
    counts = [len(tokenizer.encode(text)) + 2 for text in long] if tokenizer else []
    over = [count for count in counts if count > CONTEXT]
    if not over:
        return []
    return [
        f"{len(over):,} captions have more than {CONTEXT} tokens, up to {max(over):,}: a CLIP "
        f"reads the first {CONTEXT}"
    ]
