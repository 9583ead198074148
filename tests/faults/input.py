"""A campaign: folders of images, changed in the ways of disks, systems and people.

Each case is built from its seed with a known truth, of every image its split and class; then it is
changed one to three times, and read as a run reads it before its first step. It must come to
exactly the truth, or be refused in one line. The same against planted faults must be seen to fail.

Run: make faults-input, or python -m tests.faults.input CASES [SEED]
"""

import contextlib
import functools
import hashlib
import io
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from clipbench.core.errors import UserError
from clipbench.datamodules import base, imagefolder
from clipbench.loading import split
from clipbench.loading.images import folder_walk
from clipbench.loading.readers import folder_layouts, image_files, table_files
from clipbench.results.record import plain

READ, REFUSED, EITHER = "read", "refused", "either"
LONGEST = 1500  # characters of a refusal

NAMES = (
    *(
        "cat",
        "dog",
        "owl",
        "black_cat",
        "photos (1)",
        "it's",
        "a,b",
        "caf\u00e9",
        "猫",
        "no",
        "yes",
    ),
    *("007", "1", "2", "10", "12", "type_2", "type_10", "Müller's #2 [x] {y}", "=cmd()", "${x}"),
    *("-rf", "ñandú", "trash", "train station", "Straße", "çay", "null", "1e3", "a=b", "😀", "%20"),
)
SPLITS = (
    {"train": "train", "val": "val", "test": "test"},
    {"train": "Training", "val": "Validation", "test": "Testing"},
    {"train": "TRAIN", "val": "VALID", "test": "TEST"},
    {"train": "images_train", "val": "images_val", "test": "images_test"},
    {"train": "train2017", "val": "val2017", "test": "test2017"},
    {"train": "seg_train", "val": "seg_val", "test": "seg_test"},
    {"train": "train", "test": "test"},
    {"train": "Train Set", "val": "dev", "test_night": "test_night"},
)
FORMATS = {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP", ".gif": "GIF"}
FORMATS |= {".tif": "TIFF", ".ppm": "PPM", ".avif": "AVIF", ".jfif": "JPEG"}


@functools.cache
def drawn(number, suffix=".png"):
    """The bytes of one small image, unlike all others."""
    pixels = np.random.default_rng([number, 7]).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, FORMATS.get(suffix, "PNG"))
    return buffer.getvalue()


@dataclass
class Shot:
    """An image of the truth."""

    path: Path
    content: bytes
    split: str | None
    name: str


@dataclass
class Case:
    """A tree on disk, and what it must be read as.

    Attributes:
        home: a folder for everything of it.
        root: what is given to the datamodule.
        draw: of everything random.
        shots: the truth.
        expected: whether it must be read, must be refused, or may be either.
        unread: images that were damaged.
        told: words that a warning must have, for what is left out on purpose.
        options: of the datamodule.
        changes: what was done.
    """

    home: Path
    root: Path
    draw: random.Random
    shots: list[Shot] = field(default_factory=list)
    expected: str = READ
    told: set[str] = field(default_factory=set)
    unread: list[Shot] = field(default_factory=list)
    options: dict = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    drawn: int = 0

    def image(self, suffix=".png"):
        """Bytes of an image that is nowhere else in the case."""
        self.drawn += 1
        return drawn(self.drawn, suffix)

    def add(self, folder, split, name, number):
        """Put images of a class into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for k in range(number):
            suffix = self.draw.choice([".jpg", ".jpg", ".png", *FORMATS])
            content = self.image(suffix)
            path = folder / f"{self.draw.choice(['IMG_', 'x', name[:3]])}{k:02}{suffix}"
            path.write_bytes(content)
            self.shots.append(Shot(path, content, split, unicodedata.normalize("NFC", name)))

    def folders(self):
        """The folders that hold images."""
        return sorted({shot.path.parent for shot in self.shots})

    def stray(self, path, content):
        """Write a file that is no part of the truth."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def expect(self, what):
        """Lower what is expected: a refusal stays one."""
        rank = (READ, EITHER, REFUSED)
        self.expected = max(self.expected, what, key=rank.index)


def built(seed, home):
    """The case of a seed, before it is changed."""
    draw = random.Random(seed)
    case = Case(home, home / draw.choice(["set", "my photos", "Müller's (1)"]), draw)
    names = draw.sample(NAMES, draw.randint(2, 4))
    layout = draw.choice(["classes", "splits", "splits", "below", "table"])
    case.changes.append(layout)
    if draw.random() < 0.25:
        case.options["bad_images"] = "skip"
    if layout in ("classes", "table"):
        for name in names:
            case.add(case.root / name, None, name, draw.randint(5, 7))
    else:
        for split_name, folder in draw.choice(SPLITS[: 5 if layout == "below" else None]).items():
            for name in names:
                parts = (folder, name) if layout == "splits" else (name, folder)
                number = 4 if split_name == "train" else 1
                case.add(case.root.joinpath(*parts), split_name, name, draw.randint(number, 6))
    return case


# What a disk, a system or a person does to a folder of images.


def rename(case, name):
    """Give an image another name; its ending stays where {} is not in the name."""
    shot = case.draw.choice(case.shots)
    path = shot.path.with_name(name.replace("{}", shot.path.suffix))
    if not path.exists() and not path.is_symlink():
        shot.path.rename(path)
        shot.path = path


def odd_file_name(case):
    names = (
        *("a b (1){}", "it's{}", "a,b=c{}", "[x]{y}{}", "new\nline{}", "tab\t{}", "ü\u0308{}"),
        *("-x{}", "${home}{}", "#1%20{}", "é" * 100 + "{}", "😀{}", "x.y.z{}", "CON{}", "x .{}"),
        *("e\u0301{}", os.fsdecode(b"caf\xe9{}"), os.fsdecode(b"\xff\xfe{}"), "a\\b{}", '"q"{}'),
    )
    rename(case, case.draw.choice(names))


def odd_ending(case):
    rename(case, case.draw.choice(["UPPER.JPG", "photo.JfIf", "photo", "photo.PNG", "a.jpg?w=1"]))


def decomposed_class(case):
    folder = case.draw.choice(case.folders())
    other = folder.with_name(unicodedata.normalize("NFD", folder.name))
    if other.name != folder.name and not other.exists():
        move(case, folder, other)


def class_not_utf8(case):
    folder = case.draw.choice(case.folders())
    if case.changes[0] != "below":
        move(case, folder, folder.with_name(os.fsdecode(b"ch\xe2t")))
        case.expect(EITHER if "deeper" in case.changes else REFUSED)  # it may be below a class


def move(case, folder, other):
    folder.rename(other)
    for shot in case.shots:
        if shot.path.is_relative_to(folder):
            shot.path = other / shot.path.relative_to(folder)


def class_twin_by_case(case):
    name = case.draw.choice(case.shots).name
    other = name.swapcase()
    known = {shot.name for shot in case.shots}
    apart = "one_too_high" in case.changes
    if case.changes[0] == "classes" and other not in known and not apart:
        case.add(case.root / other, None, other, 5)


def misspelt_class(case):
    splits = [shot for shot in case.shots if shot.split not in (None, "train")]
    if splits and case.changes[0] == "splits":
        folder = case.draw.choice(splits).path.parent
        other = folder.with_name(folder.name + case.draw.choice(["s", "_new", " "]))
        if not other.exists():
            move(case, folder, other)
            case.expect(REFUSED)


def linked_folder(case):
    folder = case.draw.choice(case.folders())
    away = case.home / "store" / f"{case.drawn}{case.draw.random()}"
    away.parent.mkdir(exist_ok=True)
    if not folder.is_symlink() and folder != case.root:
        folder.rename(away)
        folder.symlink_to(away)


def linked_file(case):
    shot = case.draw.choice(case.shots)
    away = case.home / "files" / f"{case.draw.random()}.bin"
    away.parent.mkdir(exist_ok=True)
    if not shot.path.is_symlink():
        shot.path.rename(away)
        shot.path.symlink_to(away)


def loop(case):
    folder = case.draw.choice(case.folders())
    above = case.draw.choice([folder, folder.parent, case.root, case.home])
    with contextlib.suppress(FileExistsError):
        (folder / "loop").symlink_to(above)


def folder_twice(case):
    first, second = case.draw.choice(case.folders()), case.draw.choice(case.folders())
    if first.resolve() != second.resolve() and not (second / "again").exists():
        (second / "again").symlink_to(first)
        case.expect(REFUSED)


def dangling(case):
    place = case.draw.choice([*case.folders(), case.root])
    link = place / case.draw.choice(["gone", "gone.jpg", "more"])
    with contextlib.suppress(FileExistsError):
        link.symlink_to(case.home / "nowhere")
        if link.suffix != ".jpg":
            case.expect(REFUSED)
        elif place == case.root:  # an image of no class
            case.told.add("left out")
        else:
            skipped(case)


def deeper(case):
    """Images of a class in folders of their own below it."""
    shot = case.draw.choice(case.shots)
    folder = shot.path.parent / case.draw.choice(["2021", "more", "photo.jpg.d"])
    folder.mkdir(exist_ok=True)
    shot.path.rename(folder / shot.path.name)
    shot.path = folder / shot.path.name


def one_too_high(case):
    case.root = case.root.parent
    inner = case.home / "archive"
    inner.mkdir(exist_ok=True)
    for path in list(case.home.iterdir()):
        if path.is_dir() and path.name not in ("store", "files", "archive"):
            move(case, path, inner / path.name)
    case.root = inner
    case.expect(EITHER)


def empty_class(case):
    (case.root / "zebra").mkdir(exist_ok=True)
    case.expect(EITHER if case.changes[0] == "splits" else REFUSED)


def class_less(case):
    """A split lacks a class that train has."""
    others = [shot for shot in case.shots if shot.split not in (None, "train")]
    if others:
        folder = case.draw.choice(others).path.parent
        case.shots = [shot for shot in case.shots if not shot.path.is_relative_to(folder)]
        (folder.unlink if folder.is_symlink() else lambda: shutil.rmtree(folder))()
        case.expect(EITHER if case.changes[0] == "below" else REFUSED)


def folder_of_no_split(case):
    if case.changes[0] == "splits":
        for name in {shot.name for shot in case.shots}:
            case.stray(case.root / "holdout" / name / "1.png", case.image())
        case.expect(REFUSED)


def loose_image(case):
    case.stray(case.root / "loose.png", case.image())
    case.told.add("left out")


def damaged(case):
    shot = case.draw.choice(case.shots)
    content = shot.content
    wrong = case.draw.choice(
        [b"", content[: len(content) // 2], content[:-3], b"no image", content[:1], bytes(99)]
    )
    if wrong == content or shot.content not in shot.path.read_bytes():
        return
    shot.path.write_bytes(wrong)
    named = folder_walk.is_image(shot.path.name)
    if named or case.changes[0] == "table":
        skipped(case)
    else:  # alone it cannot be told from any other file; beside others of its kind it can
        case.expect(EITHER)
    if case.options or not named:
        case.shots.remove(shot)
        case.unread.append(shot)


def skipped(case):
    """An image that cannot be read stops the case, or is left out of it and told."""
    if not case.options:
        case.expect(REFUSED)
        return
    case.told.add("cannot be read")
    case.expect(EITHER)  # without it a class may be too small


def foreign(case):
    folder = case.draw.choice(case.folders())
    name = case.draw.choice(["IMG_1.HEIC", "a.heic", "b.jp2", ".c.jpg.icloud", "d.CR2"])
    case.stray(folder / name, b"\0\0\0\x18ftypheic" + bytes(40))
    skipped(case)


SYSTEM = (
    *("@eaDir/{}/SYNOPHOTO_THUMB_M.jpg", "#recycle/{}", "$RECYCLE.BIN/S-1/{}", "._{}", ".{}"),
    *(".Trash-1000/files/{}", "__MACOSX/._{}", ".thumbnails/{}", "lost+found/{}", ".@__thumb/{}"),
    *("@Recycle/{}", ".ipynb_checkpoints/{}", "System Volume Information/{}", ".DS_Store"),
    *("Thumbs.db", "desktop.ini", "@eaDir/x.jpg@SynoEAStream", "{}:Zone.Identifier"),
)


def of_a_system(case):
    place = case.draw.choice([case.root, *case.folders(), *{f.parent for f in case.folders()}])
    for pattern in case.draw.sample(SYSTEM, 3):
        case.stray(place / pattern.format(f"{case.drawn}.jpg"), case.image(".jpg"))


def other_files(case):
    place = case.draw.choice([case.root, *case.folders()])
    for name in case.draw.sample(["a.csv", "a.txt", "b.xml", "README", "clip.mp4", "c.pdf"], 2):
        case.stray(place / name, b"BM II* P5 text, and no image\n")
    if case.changes[0] != "table":
        case.told.add("left out")


def small_copies(case):
    folder = case.draw.choice(case.folders())
    case.stray(folder / "Thumbnails" / "1.jpg", case.image(".jpg"))
    case.told.add("small copies")


def pipe(case):
    folder = case.draw.choice(case.folders())
    name = case.draw.choice(["pipe.jpg", "pipe"])
    os.mkfifo(folder / name)
    if name == "pipe.jpg":
        skipped(case)
    else:
        case.told.add("left out")


CHANGES = (
    *(odd_file_name, odd_file_name, odd_ending, decomposed_class, class_not_utf8),
    *(class_twin_by_case, misspelt_class, linked_folder, linked_file, loop, folder_twice, dangling),
    *(deeper, one_too_high, empty_class, class_less, folder_of_no_split, loose_image, damaged),
    *(damaged, foreign, of_a_system, of_a_system, other_files, small_copies, pipe),
)
OF_A_TABLE = (odd_file_name, odd_ending, linked_folder, linked_file, damaged, of_a_system, loop)


def changed(seed, home):
    """The case of a seed, changed."""
    case = built(seed, home)
    table = case.changes[0] == "table"
    for change in case.draw.sample(OF_A_TABLE if table else CHANGES, case.draw.randint(1, 3)):
        change(case)
        case.changes.append(change.__name__)
    if table:
        write_table(case)
    return case


def write_table(case):
    """The truth as a CSV, as pandas or Excel write it."""
    rows, sign = [], case.draw.choice([",", ";", "\t"])
    for shot in [*case.shots, *case.unread]:
        path = shot.path.relative_to(case.root).as_posix()
        if folder_walk.NOT_UTF8.search(path) or not path.isprintable():
            shot.path.rename(shot.path.with_name(plain := f"plain{len(rows)}.png"))
            path = f"{path.rpartition('/')[0]}/{plain}"
        cells = [unicodedata.normalize(case.draw.choice(["NFC", "NFD"]), path), shot.name]
        rows.append(sign.join('"' + cell.replace('"', '""') + '"' for cell in cells))
    head = ["sep=" + sign] if case.draw.random() < 0.5 else []
    text = "\n".join([*head, sign.join(("path", "label")), *rows])
    case.root /= "list.csv"
    case.root.write_text(text, encoding=case.draw.choice(["utf-8", "utf-8-sig", "utf-16"]))


def wrong(case):
    """How a case ended, and what is wrong with that; None if nothing is."""
    data = imagefolder.ImageFolderDataModule(root=case.root, **case.options)
    try:
        data.prepare(0)
        data.check()
        json.dumps([plain(data.record()), data.classes, data.warnings], ensure_ascii=False).encode()
        found = [(image, *own) for image, own in read(data)]
    except UserError as refused:
        text = str(refused)
        if "\n" in text or len(text) > LONGEST or len(text) < 20:
            return REFUSED, f"not one line: {text[:200]!r}"
        "".join([text, *refused.details]).encode()
        if case.expected == READ:
            return REFUSED, f"refused, and should be read: {text[:300]}"
        return REFUSED, None
    except Exception as error:
        return "traceback", f"{type(error).__name__}: {error}"
    if case.expected == REFUSED:
        return READ, "read, and should be refused"
    fault = differing(case, found, set(data.splits)) or untold(case, data.warnings)
    return READ, fault or walked_apart(case)


def read(data):
    """Of every image what training reads of it: its bytes, its split and its class."""
    for name, images in data.splits.items():
        for index, (source, label) in enumerate(zip(images.images, images.labels, strict=True)):
            if not source.is_file():  # a pipe would be waited for
                raise ValueError(f"{source} is no file")
            images.pixels(index)
            yield source.read_bytes(), (name, data.keys[label])


def differing(case, found, splits):
    """What is not as the truth has it."""
    truth = {shot.content: shot for shot in case.shots}
    counted = Counter(content for content, *_ in found)
    if twice := [content for content, n in counted.items() if n > 1]:
        return f"{len(twice)} images twice"
    if lost := [str(shot.path) for content, shot in truth.items() if content not in counted]:
        return f"{len(lost)} images lost: {lost[0]}"
    if len(counted) > len(truth):
        return f"{len(counted) - len(truth)} images that are none"
    given = {shot.split for shot in case.shots}
    for content, name, label in found:
        shot = truth[content]
        if label != shot.name:
            return f"{shot.path} is {label}"
        carved = {"train", *({"val", "test"} - given)}
        if name not in ({shot.split} if shot.split not in (None, "train") else carved):
            return f"{shot.path} is in {name}"
    return None if given - {None} <= splits else "a split is lost"


def untold(case, warnings):
    """A loss on purpose that no warning has."""
    silent = [words for words in case.told if not any(words in text for text in warnings)]
    return f"nothing tells: {silent}" if silent else None


def walked_apart(case):
    """What the walk of predict and search finds otherwise than training's."""
    if case.root.is_file():
        return None
    found = image_files.loose(case.root)
    seen = {source.read_bytes() for source in found.images if source.is_file()}
    lost = [shot for shot in case.shots if shot.content not in seen]
    return f"predict does not see {lost[0].path}" if lost else None


def run(seeds, said=print):
    """How the cases of seeds ended: counts, and the faults by seed."""
    ends, faults, changes = Counter(), {}, Counter()
    for seed in seeds:
        with tempfile.TemporaryDirectory(prefix="input-") as home:
            case = changed(seed, Path(home))
            end, fault = wrong(case)
            ends[end] += 1
            changes.update(case.changes)
            if fault:
                faults[seed] = f"{'+'.join(case.changes)}: {fault}"
                said(f"  {seed}: {faults[seed]}")
    return ends, faults, changes


def without_last(carve):
    def carved(images, fraction, of="class"):
        rest, part = carve(images, fraction, of)
        return rest.take(np.arange(len(rest) - 1)), part

    return carved


def shifted(split_of):
    def of(classes, images, find, rule):
        return split_of([*classes[1:], classes[0]], images, find, rule)

    return of


# Faults as they were, or could come back: each must be found.
PLANTED = {
    "system files are images": (folder_walk, "set_aside", lambda name: False),
    "hidden files alone are set aside": (folder_walk, "SYSTEM", frozenset()),
    "splits in one spelling": (
        folder_layouts,
        "split_name",
        lambda n: n * (n in ("train", "test")),
    ),
    "letters composed one way": (folder_layouts, "identifier", str),
    "bytes of names as they are": (imagefolder, "identifier", str),
    "an image is lost when divided": (base, "carve", without_last(split.carve)),
    "labels of another order": (imagefolder, "_split", shifted(imagefolder._split)),
    "endings alone tell": (folder_walk, "holds_image", lambda path: False),
    "damage is not looked for": (base, "check_images", None),
    "empty classes are classes": (imagefolder, "_refuse_disagreement", lambda listed: None),
    "links to nowhere are no matter": (folder_layouts, "_refuse_broken", lambda tree: None),
    "Excel's first line is a row": (table_files, "_SEPARATOR", re.compile("(?!)")),
}


def teeth(cases, first=0):
    """Of each planted fault the first seed that finds it, None if none does."""
    found = {}
    for name, (module, attribute, planted) in PLANTED.items():
        stand_in = planted if planted is not None else (lambda *_: None)
        with mock.patch.object(module, attribute, stand_in):
            found[name] = next(
                (seed for seed in range(first, first + cases) if run([seed], lambda _: None)[1]),
                None,
            )
    return found


def main(cases, first=0):
    """Print how it went; exit 1 if a case is wrong, or a planted fault is not found."""
    started = time.monotonic()
    ends, faults, changes = run(range(first, first + cases))
    seconds = time.monotonic() - started
    print(f"{cases} cases: {ends[READ]} read as they are, {ends[REFUSED]} refused in one line")
    print(f"  {ends['traceback']} tracebacks, {len(faults)} wrong, {seconds:.0f} s")
    print("  " + ", ".join(f"{n} {what}" for what, n in sorted(changes.items())))
    blind = []
    for name, seed in teeth(min(cases, 400), first).items():
        print(f"  planted: {name}: " + ("NOT FOUND" if seed is None else f"found by case {seed}"))
        blind += [name] if seed is None else []
    digest = hashlib.sha256(json.dumps([sorted(ends.items()), sorted(faults)]).encode()).hexdigest()
    print(f"  {digest[:16]}")
    return 1 if faults or blind or ends[READ] < cases // 3 else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
