import json
import os
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CocoCaptions

from clipbench.core.errors import UserError
from clipbench.datamodules.coco import COCODataModule
from tests.datamodules.folders import draw

REAL = Path(os.environ.get("CLIPBENCH_DATA", "nowhere")) / "coco"
real_photos = pytest.mark.skipif(not REAL.is_dir(), reason="needs CLIPBENCH_DATA/coco")
IDS = {"train": [9, 25, 30, 34, 36, 49, 61, 64, 71, 72], "val": [139, 285, 632, 724]}
# Karpathy's: all of train2014 and most of val2014 are trained on
KARPATHY = {"train": IDS["train"], "restval": [285], "val": [632], "test": [724, 139]}


def texts(i):
    return [f"photo {i} ", f"a picture of {i}.\n", *(f"{k} things" for k in range(3 + i % 2))]


def image(i, year, part):
    return f"COCO_{part}2014_{i:012d}.jpg" if year == 2014 else f"{i:012d}.jpg"


def official(root, year):
    """Annotations out of order, as they are, and the images of both parts."""
    (root / "annotations").mkdir(parents=True)
    for part, ids in IDS.items():
        for i in ids:
            draw(root / f"{part}{year}" / image(i, year, part), seed=i)
        told = [(i, text) for i in ids for text in texts(i)]
        order = np.random.default_rng(0).permutation(len(told))
        notes = [{"image_id": told[k][0], "id": int(100 + k), "caption": told[k][1]} for k in order]
        images = [{"id": i, "file_name": image(i, year, part)} for i in reversed(ids)]
        path = root / "annotations" / f"captions_{part}{year}.json"
        path.write_text(json.dumps({"images": images, "annotations": notes}))


def karpathy(root):
    images = []
    for split, ids in KARPATHY.items():
        for i in ids:
            part = "train" if split == "train" else "val"
            images.append(
                {
                    "filename": image(i, 2014, part),
                    "filepath": f"{part}2014",
                    "split": split,
                    "cocoid": i,
                    "sentences": [{"raw": text} for text in texts(i)],
                }
            )
    (root / "dataset_coco.json").write_text(json.dumps({"images": images, "dataset": "coco"}))


def rows(split):
    return [(i, list(own)) for i, own in zip(split.ids, split.captions, strict=True)]


def expected(ids):
    return [(f"{i:012d}.jpg", texts(i)) for i in ids]


def torchvisions(root, part, year):
    dataset = CocoCaptions(
        root / f"{part}{year}", root / "annotations" / f"captions_{part}{year}.json"
    )
    return [(f"{i:012d}.jpg", dataset._load_target(i)) for i in dataset.ids]


@pytest.mark.parametrize("year", [2017, 2014])
def test_official_splits_equal_torchvision(tmp_path, year):
    official(tmp_path, year)
    data = COCODataModule(root=tmp_path, scheme="official", year=year, val_fraction=0.2)
    data.prepare(0)
    data.check()
    splits = data.splits
    assert rows(splits["test"]) == torchvisions(tmp_path, "val", year)
    whole = torchvisions(tmp_path, "train", year)
    assert [len(splits[name]) for name in ("train", "val")] == [8, 2]
    assert sorted(rows(splits["train"]) + rows(splits["val"])) == whole
    assert splits["val"].rule == "0.2 of each annotation file by lowest sha256 of the id"
    assert splits["test"].rule == f"val{year}: the test captions are not public"
    assert splits["test"].images[0].name == image(139, year, "val")


@pytest.mark.parametrize("year", [2017, 2014])
def test_karpathys_splits_find_the_images_of_either_year(tmp_path, year):
    official(tmp_path, year)
    karpathy(tmp_path)
    data = COCODataModule(root=tmp_path)
    data.prepare(0)
    data.check()
    assert rows(data.splits["train"]) == expected([*KARPATHY["train"], *KARPATHY["restval"]])
    assert data.splits["train"].rule == "Karpathy's train and restval"
    assert rows(data.splits["val"]) == expected(KARPATHY["val"])
    assert rows(data.splits["test"]) == expected(KARPATHY["test"])


def test_schemes_and_years_agree_on_an_image(tmp_path):
    fingerprints = []
    for year in (2014, 2017):
        official(tmp_path / str(year), year)
        splits = COCODataModule(
            root=tmp_path / str(year), scheme="official", year=year
        ).read_splits()
        fingerprints.append({name: split.fingerprint() for name, split in splits.items()})
    assert fingerprints[0] == fingerprints[1]


def test_clip_benchmarks_file(tmp_path):
    official(tmp_path, 2014)
    path = tmp_path / "annotations" / "captions_val2014.json"
    told = json.loads(path.read_text())
    told["images"] = [image for image in told["images"] if image["id"] in KARPATHY["test"]]
    told["annotations"] = [n for n in told["annotations"] if n["image_id"] in KARPATHY["test"]]
    (tmp_path / "coco_test_karpathy.json").write_text(json.dumps(told))
    data = COCODataModule(root=tmp_path, scheme="clip_benchmark")
    data.prepare(0)
    dataset = CocoCaptions(tmp_path / "val2014", tmp_path / "coco_test_karpathy.json")
    reference = [(f"{i:012d}.jpg", dataset._load_target(i)) for i in dataset.ids]
    assert {name: rows(split) for name, split in data.splits.items()} == {"test": reference}
    assert [i for i, _ in reference] == ["000000000139.jpg", "000000000724.jpg"]


def test_an_image_that_is_nowhere(tmp_path):
    official(tmp_path, 2017)
    karpathy(tmp_path)
    for i in (724, 632):
        (tmp_path / "val2017" / f"{i:012d}.jpg").unlink()
    with pytest.raises(UserError, match="1 of the 1 images of val are not on disk"):
        COCODataModule(root=tmp_path).prepare(0)
    draw(tmp_path / "val2017" / f"{632:012d}.jpg")
    data = COCODataModule(root=tmp_path)
    data.prepare(0)
    assert (len(data.splits["test"]), data.splits["test"].expected) == (1, 2)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"scheme": "mine"}, r"dataset\.scheme=mine: unknown"),
        ({"year": 2015}, r"dataset\.year=2015: unknown"),
        ({"val_fraction": 0}, r"dataset\.val_fraction=0: not between"),
    ],
)
def test_what_there_is_not(tmp_path, keys, message):
    with pytest.raises(UserError, match=message):
        COCODataModule(root=tmp_path, **keys)


@pytest.mark.parametrize("broken", ["images", "annotations"])
def test_annotations_that_lack_a_part(tmp_path, broken):
    official(tmp_path, 2017)
    path = tmp_path / "annotations" / "captions_val2017.json"
    path.write_text(
        json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != broken})
    )
    with pytest.raises(UserError, match="not of COCO's form"):
        COCODataModule(root=tmp_path, scheme="official").prepare(0)


def test_captions_of_an_image_that_is_not_listed_and_an_image_without(tmp_path):
    official(tmp_path, 2017)
    path = tmp_path / "annotations" / "captions_val2017.json"
    told = json.loads(path.read_text())
    lost = {**told, "annotations": [n for n in told["annotations"] if n["image_id"] != 632]}
    path.write_text(json.dumps(lost))
    with pytest.raises(UserError, match=r"first 000000000632\.jpg: has no caption"):
        COCODataModule(root=tmp_path, scheme="official").prepare(0)
    path.write_text(json.dumps({**told, "images": told["images"][1:]}))
    with pytest.raises(UserError, match="not of COCO's form"):
        COCODataModule(root=tmp_path, scheme="official").prepare(0)


def test_only_what_is_missing_would_be_fetched(tmp_path):
    def missing(**keys):
        data = COCODataModule(root=tmp_path, **keys)
        return [file.name for file in data.files if not file.there(tmp_path)]

    images = ["train2017.zip", "val2017.zip"]
    assert missing() == [*images, "caption_datasets.zip"]
    assert missing(scheme="official") == [*images, "annotations_trainval2017.zip"]
    (tmp_path / "images" / "train2017").mkdir(parents=True)
    assert missing() == ["val2017.zip", "caption_datasets.zip"]
    (tmp_path / "val2014").mkdir()
    assert missing() == ["caption_datasets.zip"]


@real_photos
def test_real_photos_by_the_official_files():
    data = COCODataModule(root=REAL, scheme="official")
    data.prepare(0)
    data.check()
    whole = torchvisions(REAL, "train", 2017)
    splits = data.splits
    assert sorted(rows(splits["train"]) + rows(splits["val"])) == whole
    assert rows(splits["test"]) == torchvisions(REAL, "val", 2017)
    assert [len(splits[n]) for n in ("train", "val", "test")] == [76, 4, 283]
    assert sum(map(len, splits["test"].captions)) == 1416
