"""The files in which captions of well-known images are published, read as they stand.

Each reader gives the captions of each image's file name, in the file's order. A caption is kept
to the letter, blanks at its end included; only line ends are taken off.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clipbench.core.errors import UserError
from clipbench.loading.download.files import Remote
from clipbench.loading.readers.text_files import lines, whole
from clipbench.loading.split import Split

Captions = dict[str, list[str]]

KARPATHY = "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip"
BENCHMARK = "https://github.com/mehdidc/retrieval_annotations/releases/download/1.0.0"

# The fourth split of his COCO, what is left of val2014, is everybody's training data.
_KARPATHY = {"train": "train", "restval": "train", "val": "val", "test": "test"}


def remote(name: str) -> Remote:
    """Return where an annotation file of Karpathy's or CLIP_benchmark's may be fetched."""
    if name.startswith("dataset_"):
        # The size as in public listings of it; its author states no checksum.
        return Remote(KARPATHY, "caption_datasets.zip", size=36_745_453, unpack=".", makes=(name,))
    return Remote(f"{BENCHMARK}/{name}", name)  # neither size nor checksum is stated


def find(root: Path, *names: str) -> Path:
    """Return the first of some files that is below a root.

    Raises:
        UserError: if there is none.
    """
    for name in names:
        if (root / name).is_file():
            return root / name
    raise UserError(
        f"{names[0]} is not in {root}. Run python -m clipbench.data fetch, or use another "
        "dataset.scheme"
    )


def load(path: Path, kind: str) -> Any:
    """Read a JSON file.

    Raises:
        UserError: if it is damaged.
    """
    try:
        return json.loads(whole(path))
    except ValueError as error:
        raise UserError(f"{path} is not a whole {kind} ({error}). Download it again") from error


def karpathy(path: Path) -> dict[str, Captions]:
    """Read Karpathy's ``dataset_*.json`` by split; its restval is added to train.

    Raises:
        UserError: if it is of another form, or an image occurs twice.
    """
    splits: dict[str, Captions] = {"train": {}, "val": {}, "test": {}}
    wrong = []
    try:
        for image in load(path, "Karpathy json")["images"]:
            name, texts = image["filename"], [text["raw"] for text in image["sentences"]]
            if any(name in captions for captions in splits.values()):
                wrong.append(f"{name}: occurs twice")
            splits[_KARPATHY[image["split"]]][name] = texts
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not of Karpathy's form ({error!r}). Download it again"
        ) from error
    _refuse(path, wrong + [fault for captions in splits.values() for fault in _bare(captions)])
    return {name: captions for name, captions in splits.items() if captions}


def coco(path: Path) -> Captions:
    """Read COCO's ``captions_*.json``, images by their id as torchvision has them.

    Raises:
        UserError: if it is of another form, or has captions of images that it does not list.
    """
    content = load(path, "COCO json")
    try:
        names = {image["id"]: image["file_name"] for image in content["images"]}
        captions: Captions = {names[i]: [] for i in sorted(names)}
        for annotation in content["annotations"]:
            captions[names[annotation["image_id"]]].append(annotation["caption"])
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is not of COCO's form ({error!r}). Download it again") from error
    _refuse(path, _bare(captions))
    return captions


def _bare(captions: Captions) -> list[str]:
    """Return what is wrong with images without a caption, or with one that is not text."""
    bare = (n for n, own in captions.items() if not own or not all(isinstance(c, str) for c in own))
    return [f"{name}: has no caption" for name in bare]


def evaluation(root: Path, form: str) -> dict[str, Captions]:
    """Read CLIP_benchmark's files of a dataset: test and, if it is there, val.

    Args:
        root: their folder.
        form: their name with ``{}`` for the split's; ``.json`` are COCO's form.

    Raises:
        UserError: if there is none of test.
    """
    test = find(root, form.format("test"))
    paths = {"val": root / form.format("val"), "test": test}
    read = coco if form.endswith(".json") else benchmark
    return {name: read(path) for name, path in paths.items() if path.exists()}


def token(path: Path) -> Captions:
    """Read Flickr's format: lines of ``name#number``, a tab, the caption."""
    return _by_line(path, re.compile(r"([^\t]+)#\d+\t(.*)"))


def benchmark(path: Path) -> Captions:
    """Read CLIP_benchmark's text files: a header, then lines of ``name.jpg,caption``.

    They were written as CSV and are read by the line, here as there: a caption with a comma keeps
    the quotes around it, with which the published numbers were measured.
    """
    return _by_line(path, re.compile(r"\s*(.+?\.jpg),(.*?)\s*"), header=True)


def results(path: Path) -> Captions:
    """Read Kaggle's ``results.csv`` of Flickr30k: a header, then ``name| number| caption``.

    One line of it lacks the second bar: ``2199200615.jpg| 4   A dog runs across the grass .``
    """
    return _by_line(path, re.compile(r"([^|]+?)\s*\|\s*\d+(?:\s*\|[ ]?|\s+)(.*)"), header=True)


def _by_line(path: Path, form: re.Pattern[str], header: bool = False) -> Captions:
    captions: Captions = {}
    wrong = []
    for place, (number, line) in enumerate(lines(path)):
        if match := form.fullmatch(line):
            captions.setdefault(match[1], []).append(match[2])
        elif place or not header:
            wrong.append(f"{path}:{number}: {line[:60]}")
    _refuse(path, wrong)
    if not captions:
        raise UserError(f"{path} holds no captions. Download it again")
    return captions


def _refuse(path: Path, wrong: Sequence[str]) -> None:
    if wrong:
        raise UserError(
            f"{path} has {len(wrong):,} wrong entries, first {wrong[0]}. Download it again", wrong
        )


def by_lists(
    captions: Captions, lists: Mapping[str, Path], image: Callable[[str], Path]
) -> tuple[dict[str, Captions], list[str]]:
    """Divide captions by files that list the images of each split.

    Some copies of the lists and of the captions have names that are no image's. A name with
    neither captions nor an image is left out of its split; captions of a name on no list are
    left out; both are told.

    Args:
        captions: of all images.
        lists: of each split the file with its names, ``.jpg`` at their end or not.
        image: where the image of a name is.

    Returns:
        The captions of each split in its list's order, and what was left out, as warnings.

    Raises:
        UserError: if a name occurs twice, or its image is there and its captions are not.
    """
    splits: dict[str, Captions] = {}
    owner: dict[str, str] = {}
    wrong, warnings = [], []
    for split, path in lists.items():
        splits[split], unknown = {}, []
        for number, line in lines(path):
            name = line.strip() if line.strip().endswith(".jpg") else f"{line.strip()}.jpg"
            if name in owner:
                wrong.append(f"{path}:{number}: {name} is in {owner[name]} already")
            elif name in captions:
                splits[split][name] = captions[name]
            elif image(name).exists():
                wrong.append(f"{path}:{number}: {name} has an image but no caption")
            else:
                unknown.append(name)
            owner[name] = split
        if unknown:
            warnings.append(_left_out(unknown, f"of {path.name} have no caption and no image"))
    if wrong:
        raise UserError(f"{len(wrong):,} names of the lists are wrong. Download them again", wrong)
    if unlisted := sorted(captions.keys() - owner.keys()):
        count = sum(len(captions[name]) for name in unlisted)
        unlisted.sort(key=lambda name: name.endswith(".jpg"))  # 2258277193_586949ec62.jpg.1 first
        warnings.append(_left_out(unlisted, f"with {count:,} captions are on no list"))
    return splits, warnings


def _left_out(names: Sequence[str], why: str) -> str:
    shown = ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
    return f"{len(names):,} names {why}, left out: {shown}"


def split_of(
    captions: Mapping[str, Sequence[str]],
    image: Callable[[str], Path],
    rule: str | None = None,
) -> Split:
    """Return a split of images with captions; its ids are the file names."""
    return Split(
        ids=list(captions),
        labels=np.full(len(captions), -1, dtype=np.int64),
        images=[image(name) for name in captions],
        expected=len(captions),
        captions=list(captions.values()),
        rule=rule,
    )
