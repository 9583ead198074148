"""Miniatures in the official layouts: every class, every list, few images, all of them drawn."""

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
from scipy.io import savemat
from torchvision import datasets

from clipbench.datamodules.metadata import read
from tests.datamodules.folders import draw

KNOWN = read("class_names")


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def aircraft(root: Path, sizes=(2, 1, 1), images=True) -> None:
    """Images are numbered; each list has `<number> <class>`, its lines shuffled."""
    data = root / "fgvc-aircraft-2013b" / "data"
    data.mkdir(parents=True)
    variants = [f"{'Boeing ' * (k % 3 == 0)}7{k:02d}-{k % 9}00" for k in range(100)]
    variants[7] = "F-16A/B"
    families = [f"Family {k:02d}" for k in range(70)]
    makers = [f"Maker {k:02d}" for k in range(41)]
    family = [k * 70 // 100 for k in range(100)]
    maker = [of * 41 // 70 for of in family]
    for name, lines in (("variants", variants), ("families", families), ("manufacturers", makers)):
        (data / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    numbers = iter(np.random.default_rng(0).permutation(10_000_000)[:1000])
    for split, each in zip(("train", "val", "test"), sizes, strict=True):
        rows = [(f"{next(numbers):07d}", k) for k in range(100) for _ in range(each)]
        rows = [rows[i] for i in np.random.default_rng(1).permutation(len(rows))]
        for number, _ in rows if images else ():
            draw(data / "images" / f"{number}.jpg", seed=int(number))
        for level, name in (
            ("variant", variants.__getitem__),
            ("family", lambda k: families[family[k]]),
            ("manufacturer", lambda k: makers[maker[k]]),
        ):
            text = "".join(f"{number} {name(k)}\n" for number, k in rows)
            (data / f"images_{level}_{split}.txt").write_text(text)


def cifar10(root: Path, monkeypatch, each=4) -> None:
    """Six batches of the real form, their md5s made known to torchvision."""
    home = root / "cifar-10-batches-py"
    home.mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    for name in names:
        labels = rng.permutation(np.arange(10 * each) % 10).tolist()
        pixels = rng.integers(0, 255, (len(labels), 3072), dtype=np.uint8)
        (home / name).write_bytes(pickle.dumps({"data": pixels, "labels": labels}))
    meta = {"label_names": KNOWN["cifar10"]["classes"]}
    (home / "batches.meta").write_bytes(pickle.dumps(meta))
    sums = [[name, md5(home / name)] for name in names]
    monkeypatch.setattr(datasets.CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", sums[5:])
    known = {**datasets.CIFAR10.meta, "md5": md5(home / "batches.meta")}
    monkeypatch.setattr(datasets.CIFAR10, "meta", known)


def eurosat(root: Path, monkeypatch, each=10) -> None:
    """Class folders, and three lists of names whose md5s are made known."""
    from clipbench.datamodules.eurosat import EuroSATDataModule

    home = root / "eurosat"
    names = []
    for k, folder in enumerate(KNOWN["eurosat"]["classes"]):
        for i in range(1, each + 1):
            draw(home / "2750" / folder / f"{folder}_{i}.jpg", seed=100 * k + i)
            names.append((i % 5, f"{folder}_{i}.jpg"))
    shuffled = [names[i] for i in np.random.default_rng(0).permutation(len(names))]
    for split, parts in (("train", (0, 1, 2)), ("val", (3,)), ("test", (4,))):
        text = "".join(f"{name}\n" for part, name in shuffled if part in parts)
        (home / f"eurosat-{split}.txt").write_text(text)
    sums = {s: md5(home / f"eurosat-{s}.txt") for s in ("train", "val", "test")}
    monkeypatch.setattr(EuroSATDataModule, "lists_md5", sums)


def dtd(root: Path, each=2) -> None:
    """Ten partitions, of which the first is the one in use; lines as `class/file`."""
    home = root / "dtd" / "dtd"
    (home / "labels").mkdir(parents=True)
    for partition in range(1, 11):
        rng = np.random.default_rng(partition)
        lines = {"train": [], "val": [], "test": []}
        for name in KNOWN["dtd"]["classes"]:
            files = [f"{name}/{name}_{i:04d}.jpg" for i in rng.permutation(3 * each)]
            for s, split in enumerate(lines):
                lines[split] += files[s * each : (s + 1) * each]
        for split, files in lines.items():
            (home / "labels" / f"{split}{partition}.txt").write_text("\n".join(files) + "\n")
    for k, name in enumerate(KNOWN["dtd"]["classes"]):
        for i in range(3 * each):
            draw(home / "images" / name / f"{name}_{i:04d}.jpg", seed=100 * k + i)


def pets(root: Path, each=(4, 2)) -> None:
    """Breeds by file name, cats capitalised; lines as `file label species breed`."""
    home = root / "oxford-iiit-pet"
    (home / "annotations").mkdir(parents=True)
    lines = {"trainval": [], "test": []}
    for k, name in enumerate(KNOWN["oxford_pets"]["classes"]):
        breed, species = name.replace(" ", "_"), 1 if name[0].isupper() else 2
        for i in range(sum(each)):
            file = f"{breed}_{i + 1}"
            draw(home / "images" / f"{file}.jpg", seed=100 * k + i)
            split = "trainval" if i < each[0] else "test"
            lines[split].append(f"{file} {k + 1} {species} {k % 25 + 1}\n")
    for split, rows in lines.items():
        order = np.random.default_rng(2).permutation(len(rows))
        (home / "annotations" / f"{split}.txt").write_text("".join(rows[i] for i in order))


def cars(root: Path, each=(3, 1)) -> None:
    """MATLAB structs with box, class from 1, and file name, as in the devkit."""
    home = root / "stanford_cars"
    (home / "devkit").mkdir(parents=True)
    names = KNOWN["stanford_cars"]["classes"]
    boxes = [(f"bbox_{side}", "O") for side in ("x1", "y1", "x2", "y2")]
    places = ("devkit/cars_train_annos.mat", "cars_test_annos_withlabels.mat")
    for split, count, place in zip(("train", "test"), each, places, strict=True):
        order = np.random.default_rng(3).permutation(np.arange(196 * count) % 196)
        rows = np.zeros((1, len(order)), dtype=[*boxes, ("class", "O"), ("fname", "O")])
        for i, k in enumerate(order):
            rows[0, i] = (1, 1, 9, 9, int(k) + 1, f"{i + 1:05d}.jpg")
            draw(home / f"cars_{split}" / f"{i + 1:05d}.jpg", seed=1000 * count + i)
        savemat(home / place, {"annotations": rows})
    savemat(home / "devkit" / "cars_meta.mat", {"class_names": np.array([names], dtype=object)})


def food(root: Path, each=(3, 1)) -> None:
    """Two JSON files from class to `class/number`."""
    home = root / "food-101"
    (home / "meta").mkdir(parents=True)
    numbers = iter(np.random.default_rng(4).permutation(4_000_000)[:1000].tolist())
    folders = [name.replace(" ", "_") for name in KNOWN["food101"]["classes"]]
    for split, count in zip(("train", "test"), each, strict=True):
        listed = {name: [f"{name}/{next(numbers)}" for _ in range(count)] for name in folders}
        (home / "meta" / f"{split}.json").write_text(json.dumps(listed))
        for files in listed.values():
            for file in files:
                draw(home / "images" / f"{file}.jpg", seed=int(file.split("/")[1]))
