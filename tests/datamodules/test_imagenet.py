"""ImageNet and its shift sets on miniatures of some classes, against torchvision and timm."""

import shutil
import zlib
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from clipbench.core.errors import UserError
from clipbench.datamodules import imagenet
from clipbench.datamodules.imagenet import SHIFTS, WNIDS, ImageNetDataModule, classes_of, merged
from clipbench.loading.dataset import ImageDataset
from clipbench.metrics import classification
from clipbench.transforms.preprocess import View
from tests.datamodules.folders import TINY, draw

# goldfish and great white shark (in R), two alarm clocks (one class of ObjectNet, one of them
# in A), sundial (in A), sunglasses
LABELS = [1, 2, 409, 530, 835, 837]
SUBSET = [WNIDS[label] for label in LABELS]


def images(home: Path, folders, each: int, ending=".JPEG") -> None:
    for folder in folders:
        for i in range(each):
            path = home / folder / f"{Path(folder).name}_{i}{ending}"
            draw(path, seed=zlib.crc32("/".join(path.parts[-3:]).encode()))  # none is in two splits


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    home = tmp_path_factory.mktemp("data")
    images(home / "imagenet" / "train", SUBSET, 6)
    images(home / "imagenet" / "val", SUBSET, 3)
    images(home / "imagenetv2-matched-frequency-format-val", map(str, LABELS), 2, ".jpeg")
    images(home / "imagenet-r", SUBSET[:2], 3, ".jpg")
    images(home / "imagenet-a", [WNIDS[835]], 2, ".jpg")
    images(home / "sketch", SUBSET, 2)
    images(home / "objectnet-1.0" / "images", ["alarm_clock", "sunglasses", "vase"], 2, ".png")
    return home / "imagenet"


@pytest.fixture
def data(root):
    found = ImageNetDataModule(root=root, subset=SUBSET)
    found.prepare(0)
    found.check()
    return found


def test_the_order_of_classes_is_that_of_the_sorted_ids():
    assert len(WNIDS) == len(set(WNIDS)) == len(open_clip.IMAGENET_CLASSNAMES) == 1000
    assert sorted(WNIDS) == list(WNIDS)
    data = ImageNetDataModule(root=".")
    assert data.classes[0:2] == ["tench", "goldfish"]
    assert len(data.templates) == 80
    assert [t.replace("{}", "x") for t in data.templates] == [
        template("x") for template in open_clip.OPENAI_IMAGENET_TEMPLATES
    ]
    names = data.classes
    assert {n for n in names if names.count(n) > 1} == set(data.homonyms)


@pytest.mark.parametrize("letter", ["a", "r"])
def test_the_classes_of_r_and_a_are_timms(letter):
    info = files("timm.data") / "_info"
    wnids = (info / f"imagenet_{letter}_synsets.txt").read_text().split()
    indices = (info / f"imagenet_{letter}_indices.txt").read_text().split()
    found = classes_of(f"test_{letter}")
    assert found == dict(zip(wnids, map(int, indices), strict=True))
    assert len(found) == 200


def test_objectnet_shares_113_classes():
    found = classes_of("test_objectnet")
    assert len(found) == len(set(found.values())) == len(merged()) == 113
    assert sum(map(len, merged().values())) == 125
    assert len({k for same in merged().values() for k in same}) == 125
    assert found["alarm_clock"] == 409
    assert merged()[409] == (409, 530)
    assert all(label == same[0] for label, same in merged().items())


def test_rows_are_imagefolders(data, root):
    official = ImageFolder(root / "val")
    split = data.splits["test"]
    assert list(map(str, split.images)) == [path for path, _ in official.samples]
    places = {wnid: k for k, wnid in enumerate(SUBSET)}
    assert split.labels.tolist() == [places[official.classes[k]] for _, k in official.samples]
    train, val = data.splits["train"], data.splits["val"]
    whole = {path: places[ImageFolder(root / "train").classes[k]]
             for path, k in ImageFolder(root / "train").samples}  # fmt: skip
    both = [*zip(train.images, train.labels, strict=True)]
    both += [*zip(val.images, val.labels, strict=True)]
    assert {str(path): int(k) for path, k in both} == whole
    assert (len(train), len(val)) == (30, 6)
    assert val.rule.startswith("0.02 of each class by lowest sha256 of the id")
    assert train.ids[0].startswith("train/n01443537/")


def test_the_shift_sets_that_are_there_are_splits(data):
    assert list(data.splits) == ["train", "val", "test", *SHIFTS]
    counts = {name: len(data.splits[name]) for name in SHIFTS}
    assert counts == {
        **{"test_v2": 12, "test_r": 6, "test_a": 2, "test_sketch": 12},
        "test_objectnet": 4,  # a vase is not among the classes asked for
    }
    assert data.splits["test_v2"].ids[0] == ("imagenetv2-matched-frequency-format-val/1/1_0.jpeg")
    by_number = {int(Path(p).parent.name): k for p, k in _rows(data.splits["test_v2"])}
    assert by_number == {label: k for k, label in enumerate(LABELS)}
    by_wnid = {Path(p).parent.name: k for p, k in _rows(data.splits["test_sketch"])}
    assert by_wnid == {wnid: k for k, wnid in enumerate(SUBSET)}


def _rows(split):
    return list(zip(split.images, split.labels.tolist(), strict=True))


def test_a_prediction_chooses_among_the_classes_of_its_shift(data):
    assert data.splits["test_v2"].among is data.splits["test_sketch"].among is None
    assert data.splits["test_r"].among == (0, 1)  # of the six, goldfish and shark
    assert data.splits["test_a"].among == (3, 4)
    labels = torch.tensor([0])
    logits = torch.tensor([[1.0, 0.0, 0.0, 0.0, 9.0, 9.0]])
    assert data.measure("test_r", logits, labels)["acc"] == 1
    assert data.measure("test_sketch", logits, labels)["acc"] == 0


def test_several_classes_count_as_one_of_objectnet(data):
    split = data.splits["test_objectnet"]
    assert split.among == {2: (2, 3), 5: (5,)}
    assert [Path(p).parent.name for p in split.images] == 2 * ["alarm_clock"] + 2 * ["sunglasses"]
    assert split.labels.tolist() == [2, 2, 5, 5]
    labels = torch.tensor([2])
    as_digital = torch.tensor([[9.0, 0.0, 0.0, 5.0, 9.0, 4.0]])  # goldfish is no choice here
    as_sunglasses = torch.tensor([[0.0, 0.0, 0.0, 3.0, 0.0, 4.0]])
    assert data.measure("test_objectnet", as_digital, labels)["acc"] == 1
    assert data.measure("test_objectnet", as_sunglasses, labels)["acc"] == 0


def test_the_projection_is_wise_fts():
    """Over all 113: the maximum over the classes of each, as its project_logits takes it."""
    logits = torch.randn(50, 1000, generator=torch.Generator().manual_seed(0))
    projected = np.stack([logits[:, list(same)].numpy().max(1) for same in merged().values()], 1)
    expected = [list(merged())[i] for i in projected.argmax(1)]
    assert classification.among(logits, merged()).argmax(1).tolist() == expected


def test_the_frame_of_objectnet_is_cut_off(data):
    split = data.splits["test_objectnet"]
    whole = np.asarray(Image.open(split.images[0]))
    assert np.array_equal(np.asarray(split.image(0)), whole[2:-2, 2:-2])
    assert np.array_equal(split.pixels(0).permute(1, 2, 0).numpy(), whole[2:-2, 2:-2])
    assert data.splits["test"].image(0).size == (24, 20)


def test_a_cache_of_decoded_images_knows_the_frame(data, outputs):
    framed = data.splits["test_objectnet"]
    view = View(TINY)
    for split in (framed, replace(framed, border=0)):
        kept = ImageDataset(split, view, cache_gb=0.1)
        assert kept.kept is not None
        for i in range(len(split)):
            assert torch.equal(kept[i]["image"], ImageDataset(split, view)[i]["image"])
    assert not torch.equal(
        ImageDataset(framed, view, cache_gb=0.1)[0]["image"],
        ImageDataset(replace(framed, border=0), view, cache_gb=0.1)[0]["image"],
    )


def test_shifts_may_be_elsewhere_or_nowhere(root, tmp_path):
    alone = ImageNetDataModule(root=root, shifts=tmp_path, subset=SUBSET)
    alone.prepare(0)
    assert list(alone.splits) == ["train", "val", "test"]
    shutil.copytree(root.parent / "imagenet-r", tmp_path / "imagenet-r")
    alone.prepare(0)
    assert list(alone.splits) == ["train", "val", "test", "test_r"]


def test_all_class_folders_are_needed_unless_a_subset_is_asked_for(root, tmp_path):
    with pytest.raises(
        UserError, match="lacks 994 of 1,000 class folders, first n01440764"
    ) as refusal:
        ImageNetDataModule(root=root).prepare(0)
    assert len(refusal.value.details) == 994
    assert "image-net.org" in str(refusal.value)
    with pytest.raises(UserError, match=r"ILSVRC2012_img_train\.tar"):
        ImageNetDataModule(root=tmp_path / "none", subset=SUBSET).prepare(0)


def test_a_whole_train_is_needed_and_a_short_test_is_said(root, monkeypatch):
    """With six classes for all there are, whose counts are known."""
    monkeypatch.setattr(imagenet, "WNIDS", SUBSET)
    monkeypatch.setattr(imagenet, "range", lambda _: [0, 1, 2, 3, 4, 5], raising=False)
    monkeypatch.setattr(imagenet, "SHIFTS", {})
    monkeypatch.setattr(imagenet, "TRAIN", 37)
    data = ImageNetDataModule(root=root)
    with pytest.raises(UserError, match=r"train holds 36 of 37 images\. Download the rest"):
        data.read_splits()
    monkeypatch.setattr(imagenet, "TRAIN", 36)
    monkeypatch.setattr(imagenet, "VAL", 20)
    test = data.read_splits()["test"]
    assert (len(test), test.expected) == (18, 20)
    assert "2 of the 20 images of test are not on disk" in data.warnings[0]
