"""Each dataset that torchvision reads, against torchvision, on official miniatures."""

from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

from clipbench.core.errors import UserError
from clipbench.datamodules.cifar10 import CIFAR10DataModule
from clipbench.datamodules.eurosat import EuroSATDataModule
from clipbench.datamodules.torchvision_sets import (
    DTDDataModule,
    Food101DataModule,
    OxfordPetsDataModule,
    StanfordCarsDataModule,
)
from tests.datamodules import official

BY_FILES = {
    "dtd": (DTDDataModule, official.dtd),
    "oxford_pets": (OxfordPetsDataModule, official.pets),
    "stanford_cars": (StanfordCarsDataModule, official.cars),
    "food101": (Food101DataModule, official.food),
}
COUNTS = {"dtd": 47, "oxford_pets": 37, "stanford_cars": 196, "food101": 101}


@pytest.fixture(scope="module", params=BY_FILES)
def built(request, tmp_path_factory):
    """A dataset's name, its prepared datamodule, and its root."""
    kind, build = BY_FILES[request.param]
    root = tmp_path_factory.mktemp(request.param)
    build(root)
    data = kind(root=root)
    data.prepare(0)
    data.check()
    return request.param, data, root


def reference(name: str, root: Path) -> dict[str, list[tuple[Path, int]]]:
    """The rows of torchvision's own datasets, by its own names."""
    if name == "dtd":
        found = {s: datasets.DTD(root, split=s, partition=1) for s in ("train", "val", "test")}
        return {s: list(zip(d._image_files, d._labels, strict=True)) for s, d in found.items()}
    if name == "oxford_pets":
        found = {s: datasets.OxfordIIITPet(root, split=s) for s in ("trainval", "test")}
        rows = {s: list(zip(d._images, d._labels, strict=True)) for s, d in found.items()}
        return {"train": rows["trainval"], "test": rows["test"]}
    if name == "stanford_cars":
        found = {s: datasets.StanfordCars(root, split=s) for s in ("train", "test")}
        return {s: [(Path(p), k) for p, k in d._samples] for s, d in found.items()}
    found = {s: datasets.Food101(root, split=s) for s in ("train", "test")}
    return {s: list(zip(d._image_files, d._labels, strict=True)) for s, d in found.items()}


def rows(split) -> list[tuple[Path, int]]:
    return list(zip(split.images, split.labels.tolist(), strict=True))


def test_rows_are_torchvisions(built):
    name, data, root = built
    theirs = reference(name, root)
    assert list(data.splits) == ["train", "val", "test"]
    assert rows(data.splits["test"]) == theirs["test"]
    if "val" in theirs:
        assert rows(data.splits["train"]) == theirs["train"]
        assert rows(data.splits["val"]) == theirs["val"]
        assert data.splits["val"].rule is None
    else:  # carved: both keep torchvision's order, and make it up together
        taken = set(data.splits["val"].ids)
        for split, inside in (("val", True), ("train", False)):
            kept = [(p, k) for p, k in theirs["train"] if (_id(p, root) in taken) is inside]
            assert rows(data.splits[split]) == kept
        assert data.splits["val"].rule == "0.1 of each class by lowest sha256 of the id"
        assert np.bincount(data.splits["val"].labels).tolist() == [1] * len(data.classes)
    assert data.splits["train"].ids[0] == _id(data.splits["train"].images[0], root)


def _id(path: Path, root: Path) -> str:
    return Path(path).relative_to(root).as_posix()


def test_classes_are_in_torchvisions_order(built):
    name, data, root = built
    assert len(data.classes) == COUNTS[name]
    split = {"oxford_pets": "trainval"}.get(name, "train")
    theirs = type(data).source(root, split=split).classes
    plain = [c.replace("_", " ").casefold() for c in theirs]
    assert [c.casefold() for c in data.classes] == plain
    assert {t.count("{}") for t in data.templates} == {1}
    wanted = {"dtd": 8, "oxford_pets": 1, "stanford_cars": 8, "food101": 1}
    assert len(data.templates) == wanted[name]


def test_names_are_clips():
    pets = OxfordPetsDataModule(root=".")
    assert (pets.classes[1], pets.classes[5]) == ("american bulldog", "Bengal")
    assert pets.templates == ["a photo of a {}, a type of pet."]
    assert pets.metrics[0] == "mean_per_class"
    assert Food101DataModule(root=".").templates == ["a photo of {}, a type of food."]
    assert StanfordCarsDataModule(root=".").classes[0] == "AM General Hummer SUV 2000"
    assert len(CIFAR10DataModule(root=".").templates) == 18
    euro = EuroSATDataModule(root=".")
    assert dict(zip(euro.keys, euro.classes, strict=True))["SeaLake"] == "lake or sea"


def test_addresses_and_sums_are_torchvisions():
    tv = {file.url: file.md5 for kind in (
        CIFAR10DataModule, DTDDataModule, Food101DataModule, OxfordPetsDataModule
    ) for file in kind.files}  # fmt: skip
    assert tv == {
        datasets.CIFAR10.url: datasets.CIFAR10.tgz_md5,
        datasets.DTD._URL: datasets.DTD._MD5,
        datasets.Food101._URL: datasets.Food101._MD5,
        **dict(datasets.OxfordIIITPet._RESOURCES),
    }
    lists = {f.name.rpartition("-")[2]: f.md5 for f in EuroSATDataModule.files[1:]}
    assert lists == {f"{k}.txt": v for k, v in EuroSATDataModule.lists_md5.items()}


def test_other_classes_than_the_official_are_refused(tmp_path):
    official.dtd(tmp_path)
    lists = (tmp_path / "dtd" / "dtd" / "labels").glob("*1.txt")
    for path in lists:
        kept = [line for line in path.read_text().split() if not line.startswith("banded")]
        path.write_text("\n".join(kept) + "\n")
    with pytest.raises(UserError, match="the 47 official classes: banded differs"):
        DTDDataModule(root=tmp_path).prepare(0)


def test_cars_say_how_to_bring_them(tmp_path):
    for root in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(UserError) as refusal:
            StanfordCarsDataModule(root=root).prepare(0)
        for text in ("cars_test_annos_withlabels.mat", "car_devkit.tgz", "dataset.root"):
            assert text in str(refusal.value)
        assert "\n" not in str(refusal.value)


def test_a_damaged_list_is_refused_in_one_line(tmp_path):
    official.food(tmp_path, each=(1, 1))
    (tmp_path / "food-101" / "meta" / "test.json").write_text("{")
    with pytest.raises(UserError, match=r"food-101 is absent or damaged \(Expecting"):
        Food101DataModule(root=tmp_path).prepare(0)


class TestCIFAR10:
    @pytest.fixture
    def root(self, tmp_path, monkeypatch):
        official.cifar10(tmp_path, monkeypatch)
        return tmp_path

    def test_rows_are_torchvisions(self, root):
        data = CIFAR10DataModule(root=root)
        data.prepare(0)
        data.check()
        train, test = (datasets.CIFAR10(root, train=t) for t in (True, False))
        assert data.classes == train.classes
        assert np.array_equal(data.splits["test"].images, test.data)
        assert data.splits["test"].labels.tolist() == test.targets
        whole = {**{f"train/{i:05d}": i for i in range(len(train.data))}}
        for name in ("train", "val"):
            split = data.splits[name]
            at = [whole[i] for i in split.ids]
            assert at == sorted(at)
            assert np.array_equal(split.images, train.data[at])
            assert split.labels.tolist() == [train.targets[i] for i in at]
        assert (len(data.splits["train"]), len(data.splits["val"])) == (180, 20)

    def test_a_pickle_that_is_another_is_never_opened(self, root, tmp_path):
        evil = b"cos\nsystem\n(S'touch " + str(tmp_path / "opened").encode() + b"'\ntR."
        (root / "cifar-10-batches-py" / "data_batch_3").write_bytes(evil)
        with pytest.raises(UserError, match="cifar-10-batches-py is absent or damaged"):
            CIFAR10DataModule(root=root).prepare(0)
        assert not (tmp_path / "opened").exists()


class TestEuroSAT:
    @pytest.fixture
    def root(self, tmp_path, monkeypatch):
        official.eurosat(tmp_path, monkeypatch)
        return tmp_path

    def test_rows_are_torchvisions_that_the_lists_name(self, root):
        data = EuroSATDataModule(root=root)
        data.prepare(0)
        data.check()
        samples = [(Path(path), label) for path, label in datasets.EuroSAT(root).samples]
        for name in ("train", "val", "test"):
            lines = (root / "eurosat" / f"eurosat-{name}.txt").read_text().split()
            kept = [(p, k) for p, k in samples if p.name in set(lines)]
            assert rows(data.splits[name]) == kept
        assert [len(s) for s in data.splits.values()] == [60, 20, 20]
        assert data.keys == datasets.EuroSAT(root).classes
        assert "Neumann" in data.splits["test"].rule

    def test_another_list_is_refused(self, root):
        with (root / "eurosat" / "eurosat-test.txt").open("a") as file:
            file.write("Forest_1.jpg\n")
        with pytest.raises(UserError, match=r"eurosat-test\.txt is not the"):
            EuroSATDataModule(root=root).prepare(0)

    def test_an_image_that_is_listed_and_absent_stops_training(self, root):
        next((root / "eurosat" / "2750" / "Forest").glob("*_5.jpg")).unlink()
        with pytest.raises(UserError, match="1 of the 60 images of train are not on disk"):
            EuroSATDataModule(root=root).prepare(0)
