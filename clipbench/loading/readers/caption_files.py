"""Files in which captions of well-known images are published, by the images' file names.

Captions are kept to the letter, in the file's order, with the blanks at their end; only line ends
are taken off.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clipbench.core.errors import UserError
from clipbench.loading.download.files import Remote
from clipbench.loading.readers.text_files import lines, whole
from clipbench.loading.split import Split

Captions = dict[str, list[str]]

KARPATHY = "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip"
BENCHMARK = "https://github.com/mehdidc/retrieval_annotations/releases/download/1.0.0"

# The fourth split of his COCO, the rest of val2014, is everybody's training data.
_KARPATHY = {"train": "train", "restval": "train", "val": "val", "test": "test"}


def remote(name: str) -> Remote:
    """Return where an annotation file of Karpathy's or CLIP_benchmark's can be fetched."""
    if name.startswith("dataset_"):
        # The size as in public listings of it; its author states no checksum.
        return Remote(KARPATHY, "caption_datasets.zip", size=36_745_453, unpack=".", makes=(name,))
    return Remote(f"{BENCHMARK}/{name}", name)  # neither size nor checksum is stated


def find(root: Path, *names: str) -> Path:
    """Return the first of some files that is below a root; raise a UserError if none is."""
    for name in names:
        if (root / name).is_file():
            return root / name
    raise UserError(
        f"{names[0]} is not in {root}. Run python -m clipbench.data fetch, or use another "
        "dataset.scheme"
    )


@contextmanager
def _form(path: Path, form: str) -> Iterator[Any]:
    """Yield what a JSON file holds, and refuse it if it is damaged or of another form."""
    try:
        content = json.loads(whole(path))
    except ValueError as error:
        raise UserError(
            f"{path} is not a whole {form} json ({error}). Download it again"
        ) from error
    try:
        yield content
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is not of {form}'s form ({error!r}). Download it again") from error


def karpathy(path: Path) -> dict[str, Captions]:
    """Read Karpathy's ``dataset_*.json`` by split; its restval is added to train.

    Raises:
        UserError: if it is of another form, or an image occurs twice.
    """
    splits: dict[str, Captions] = {"train": {}, "val": {}, "test": {}}
    wrong = []
    with _form(path, "Karpathy") as content:
        for image in content["images"]:
            name, texts = image["filename"], [text["raw"] for text in image["sentences"]]
            if any(name in captions for captions in splits.values()):
                wrong.append(f"{name}: occurs twice")
            splits[_KARPATHY[image["split"]]][name] = texts
    _refuse(path, wrong + [fault for captions in splits.values() for fault in _bare(captions)])
    return {name: captions for name, captions in splits.items() if captions}


def coco(path: Path) -> Captions:
    """Read COCO's ``captions_*.json``, images by their id as torchvision has them.

    Raises:
        UserError: if it is of another form, or has captions of images that it does not list.
    """
    with _form(path, "COCO") as content:
        names = {image["id"]: image["file_name"] for image in content["images"]}
        captions: Captions = {names[i]: [] for i in sorted(names)}
        for annotation in content["annotations"]:
            captions[names[annotation["image_id"]]].append(annotation["caption"])
    _refuse(path, _bare(captions))
    return captions


def _bare(captions: Captions) -> list[str]:
    """Return what is wrong with images that have no caption, or one that is not text."""
    return [
        f"{name}: has no caption"
        for name, texts in captions.items()
        if not texts or not all(isinstance(text, str) for text in texts)
    ]


def evaluation(root: Path, form: str) -> dict[str, Captions]:
    """Read CLIP_benchmark's files of a dataset below a root: test and, if it exists, val.

    Their names are ``form`` with ``{}`` for the split's; ``.json`` are of COCO's form.

    Raises:
        UserError: if there is none of test.
    """
    test = find(root, form.format("test"))
    paths = {"val": root / form.format("val"), "test": test}
    read = coco if form.endswith(".json") else benchmark
    return {name: read(path) for name, path in paths.items() if path.exists()}


def token(path: Path) -> Captions:
    """Read Flickr's format: lines of ``name#number``, a tab, the caption."""
    return _by_line(path, r"([^\t]+)#\d+\t(.*)")


def benchmark(path: Path) -> Captions:
    """Read CLIP_benchmark's text files: a header, then lines of ``name.jpg,caption``.

    They were written as CSV and are read by the line, here as there: a caption with a comma keeps
    the quotes around it, with which the published numbers were measured.
    """
    return _by_line(path, r"\s*(.+?\.jpg),(.*?)\s*", header=True)


def results(path: Path) -> Captions:
    """Read Kaggle's ``results.csv`` of Flickr30k: a header, then ``name| number| caption``.

    One line of it lacks the second bar: ``2199200615.jpg| 4   A dog runs across the grass .``
    """
    return _by_line(path, r"([^|]+?)\s*\|\s*\d+(?:\s*\|[ ]?|\s+)(.*)", header=True)


def _by_line(path: Path, form: str, header: bool = False) -> Captions:
    captions: Captions = {}
    wrong = []
    for place, (number, line) in enumerate(lines(path)):
        if match := re.fullmatch(form, line):
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
    """Divide captions by files that list the names of each split, with ``.jpg`` or without.

    Some copies of the lists and of the captions have names without an image. A name with neither
    captions nor an image is left out of its split, captions of a name on no list are left out, and
    a warning says so.

    Raises:
        UserError: if a name occurs twice, or has an image but no captions.
    """
    splits: dict[str, Captions] = {}
    owner: dict[str, str] = {}
    wrong, warnings = [], []
    for split, path in lists.items():
        splits[split], unknown = {}, []
        for number, line in lines(path):
            name = f"{line.strip().removesuffix('.jpg')}.jpg"
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
    first = ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
    return f"{len(names):,} names {why}, left out: {first}"


def split_of(captions: Captions, image: Callable[[str], Path], rule: str | None = None) -> Split:
    """Return a split of images with captions; its ids are the file names."""
    images = {name: image(name) for name in captions}
    return Split.unlabelled(images, list(captions.values()), rule)
