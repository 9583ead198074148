import csv
import json
import os
from pathlib import Path

import pytest
from torchvision.datasets import Flickr30k

from clipbench.core.errors import UserError
from clipbench.datamodules import flickr
from clipbench.datamodules.flickr import Flickr8kDataModule, Flickr30kDataModule
from tests.datamodules.folders import draw

REAL = Path(os.environ.get("CLIPBENCH_DATA", "nowhere")) / "flickr8k"
real_photos = pytest.mark.skipif(not REAL.is_dir(), reason="needs CLIPBENCH_DATA/flickr8k")
TEXTS = [" two dogs , one ball .", "a dog !", 'a sign says " stop " ', "A dog", "dog #3 runs"]
LISTS = {"train": ["30", "1", "22"], "val": ["4"], "test": ["9", "5"]}
OFFICIAL_8K = {"train": "train", "val": "dev", "test": "test"}


def captions(name):
    return [f"{text} {name}" if text[-1] != " " else text for text in TEXTS]


def photos(folder, lists=LISTS):
    for k, name in enumerate(name for names in lists.values() for name in names):
        draw(folder / f"{name}.jpg", seed=k)


def token_lines(lists=LISTS):
    names = sorted(name for own in lists.values() for name in own)
    return [f"{n}.jpg#{k}\t{text}\n" for n in names for k, text in enumerate(captions(n))]


def official_8k(root):
    photos(root / "Flicker8k_Dataset")
    (root / "Flickr8k_text").mkdir()
    (root / "Flickr8k_text" / "Flickr8k.token.txt").write_text("".join(token_lines()))
    for split, names in LISTS.items():
        path = root / "Flickr8k_text" / f"Flickr_8k.{OFFICIAL_8K[split]}Images.txt"
        path.write_text("".join(f"{name}.jpg\n" for name in names))


def karpathy(root, dataset):
    images = [
        {
            "filename": f"{name}.jpg",
            "imgid": k,
            "split": split,
            "sentids": list(range(5 * k, 5 * k + 5)),
            "sentences": [{"raw": text, "tokens": text.split()} for text in captions(name)],
        }
        for k, (split, name) in enumerate((s, n) for s, own in LISTS.items() for n in own)
    ]
    path = root / f"dataset_{dataset}.json"
    path.write_text(json.dumps({"dataset": dataset, "images": images}))
    return path


def rows(split):
    return [(i, list(own)) for i, own in zip(split.ids, split.captions, strict=True)]


EXPECTED = {split: [(f"{n}.jpg", captions(n)) for n in own] for split, own in LISTS.items()}


@pytest.mark.parametrize("scheme", ["karpathy", "official"])
def test_flickr8k_is_the_same_in_both_schemes(tmp_path, scheme):
    official_8k(tmp_path)
    karpathy(tmp_path, "flickr8k")
    data = Flickr8kDataModule(root=tmp_path, scheme=scheme)
    data.prepare(0)
    data.check()
    assert {name: rows(split) for name, split in data.splits.items()} == EXPECTED
    assert all((split.labels == -1).all() for split in data.splits.values())
    assert data.warnings == []


def test_captions_equal_torchvision(tmp_path):
    """torchvision takes blanks off a caption's end; nothing else differs."""
    official_8k(tmp_path)
    reference = Flickr30k(
        tmp_path / "Flicker8k_Dataset", tmp_path / "Flickr8k_text" / "Flickr8k.token.txt"
    )
    splits = Flickr8kDataModule(root=tmp_path, scheme="official").read_splits()
    for split in splits.values():
        for name, own in rows(split):
            assert [text.rstrip() for text in own] == reference.annotations[name]


def test_names_that_are_no_images_are_left_out_and_told(tmp_path):
    """As in copies that go round: 13 more names on a list, a name with .jpg.1, unlisted photos."""
    official_8k(tmp_path)
    text = tmp_path / "Flickr8k_text"
    with (text / "Flickr8k.token.txt").open("a") as more:
        more.write("7.jpg.1#0\ta\n7.jpg.1#1\tb\n77.jpg#0\tc\n")
    with (text / "Flickr_8k.devImages.txt").open("a") as more:
        more.write("".join(f"strange{k}.jpg\n" for k in range(13)))
    data = Flickr8kDataModule(root=tmp_path, scheme="official")
    data.prepare(0)
    assert {name: rows(split) for name, split in data.splits.items()} == EXPECTED
    assert data.warnings == [
        "13 names of Flickr_8k.devImages.txt have no caption and no image, left out: "
        "strange0.jpg, strange1.jpg, strange2.jpg ...",
        "2 names with 3 captions are on no list, left out: 7.jpg.1, 77.jpg",
    ]


def test_an_image_that_lost_its_captions_is_not_left_out(tmp_path):
    official_8k(tmp_path)
    token = tmp_path / "Flickr8k_text" / "Flickr8k.token.txt"
    token.write_text("".join(line for line in token_lines() if not line.startswith("22.jpg")))
    with pytest.raises(UserError, match="1 names of the lists are wrong") as refusal:
        Flickr8kDataModule(root=tmp_path, scheme="official").prepare(0)
    path = tmp_path / "Flickr8k_text" / "Flickr_8k.trainImages.txt"
    assert refusal.value.details == [f"{path}:3: 22.jpg has an image but no caption"]


def test_a_name_on_two_lists(tmp_path):
    official_8k(tmp_path)
    with (tmp_path / "Flickr8k_text" / "Flickr_8k.testImages.txt").open("a") as more:
        more.write("30.jpg\n")
    with pytest.raises(UserError, match="names of the lists are wrong") as refusal:
        Flickr8kDataModule(root=tmp_path, scheme="official").prepare(0)
    assert "testImages.txt:3: 30.jpg is in train already" in refusal.value.details[0]


@pytest.mark.parametrize(
    "broken", ["22.jpg\tno number\n", "22.jpg#0 a space for the tab\n", "#0\tno name\n"]
)
def test_a_damaged_line_of_captions(tmp_path, broken):
    official_8k(tmp_path)
    token = tmp_path / "Flickr8k_text" / "Flickr8k.token.txt"
    token.write_text(token.read_text() + broken)
    with pytest.raises(UserError, match=r"1 wrong entries, first .*token\.txt:31: "):
        Flickr8kDataModule(root=tmp_path, scheme="official").prepare(0)


@pytest.mark.parametrize("form", ["token", "csv"])
def test_flickr30k_by_the_lists_of_entities(tmp_path, form):
    photos(tmp_path / "flickr30k-images")
    if form == "token":
        (tmp_path / "results_20130124.token").write_text("".join(token_lines()))
    else:  # Kaggle's, one line of which lacks a bar
        parts = [
            line.rstrip("\n").replace("#", "| ", 1).replace("\t", "| ") for line in token_lines()
        ]
        parts[4] = parts[4].replace("| 4| ", "| 4   ")
        text = "image_name| comment_number| comment\r\n" + "\r\n".join(parts) + "\r\n"
        (tmp_path / "results.csv").write_bytes(text.encode())
    for split, names in LISTS.items():
        (tmp_path / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    data = Flickr30kDataModule(root=tmp_path, scheme="official")
    assert not [file for file in data.files if not file.there(tmp_path)]
    data.prepare(0)
    data.check()
    found = {name: rows(split) for name, split in data.splits.items()}
    assert found == EXPECTED


def test_clip_benchmarks_files_are_read_as_there(tmp_path):
    """Written by pandas as CSV, read by splitting each line: quotes stay where there are commas."""
    photos(tmp_path)
    with (tmp_path / "flickr30k_test_karpathy.txt").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["image", "caption"])
        table.writerows((f"{n}.jpg", text) for n in LISTS["test"] for text in captions(n))
    data = Flickr30kDataModule(root=tmp_path, scheme="clip_benchmark")
    data.prepare(0)
    assert list(data.splits) == ["test"]
    reference = {}
    for line in (tmp_path / "flickr30k_test_karpathy.txt").read_text().splitlines()[1:]:
        name, text = line.strip().split(".jpg,")
        reference.setdefault(name + ".jpg", []).append(text)
    assert dict(rows(data.splits["test"])) == reference
    assert reference["9.jpg"][0] == '" two dogs , one ball . 9"'


def test_a_header_that_is_missing_costs_no_caption(tmp_path):
    photos(tmp_path)
    (tmp_path / "flickr8k_test_karpathy.txt").write_text("9.jpg,a dog\n5.jpg,a cat\n")
    splits = Flickr8kDataModule(root=tmp_path, scheme="clip_benchmark").read_splits()
    assert rows(splits["test"]) == [("9.jpg", ["a dog"]), ("5.jpg", ["a cat"])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [', "not a whole Karpathy json"),
        ('{"pictures": []}', "not of Karpathy's form"),
        ('{"images": [{"filename": "1.jpg", "split": "new", "sentences": [{"raw": "a"}]}]}', "new"),
        ('{"images": [{"filename": "1.jpg", "split": "val", "sentences": []}]}', "has no caption"),
        (
            '{"images": [{"filename": "1.jpg", "split": "val", "sentences": [{"raw": null}]}]}',
            "has no caption",
        ),
        ('{"images": "caf\xe9"}', "is not UTF-8"),
    ],
)
def test_a_damaged_karpathy_json(tmp_path, text, message):
    photos(tmp_path / "Images")
    (tmp_path / "dataset_flickr8k.json").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=message):
        Flickr8kDataModule(root=tmp_path).prepare(0)


def test_an_image_that_stands_twice_in_karpathys_json(tmp_path):
    photos(tmp_path / "Images")
    told = json.loads(karpathy(tmp_path, "flickr8k").read_text())
    told["images"].append({**told["images"][0], "split": "test"})
    (tmp_path / "dataset_flickr8k.json").write_text(json.dumps(told))
    with pytest.raises(UserError, match=r"30\.jpg: occurs twice"):
        Flickr8kDataModule(root=tmp_path).prepare(0)


def test_what_is_not_there_says_how_to_bring_it(tmp_path):
    with pytest.raises(UserError, match=r"forms\.illinois\.edu/sec/229675"):
        Flickr30kDataModule(root=tmp_path).prepare(0)
    with pytest.raises(
        UserError, match=r"dataset_flickr8k\.json is not in .*clipbench\.data fetch"
    ):
        Flickr8kDataModule(root=tmp_path).read_splits()
    with pytest.raises(UserError, match=r"dataset\.scheme=coop: unknown\. Use one of karpathy"):
        Flickr8kDataModule(root=tmp_path, scheme="coop")


def test_only_what_is_missing_would_be_fetched(tmp_path):
    def missing(data):
        return [file.name for file in data.files if not file.there(tmp_path)]

    archives = ["Flickr8k_Dataset.zip", "Flickr8k_text.zip"]
    assert missing(Flickr8kDataModule(root=tmp_path, scheme="official")) == archives
    assert missing(Flickr30kDataModule(root=tmp_path)) == []  # of no use without the photos
    photos(tmp_path / "Images")
    assert missing(Flickr8kDataModule(root=tmp_path, scheme="official")) == archives[1:]
    assert missing(Flickr8kDataModule(root=tmp_path)) == ["caption_datasets.zip"]
    assert missing(Flickr30kDataModule(root=tmp_path)) == ["caption_datasets.zip"]


@real_photos
@pytest.mark.parametrize("scheme", ["karpathy", "official"])
def test_real_photos_by_the_official_lists(scheme):
    data = Flickr8kDataModule(root=REAL, scheme=scheme)
    data.prepare(0)
    data.check()
    assert {n: (len(s), s.expected) for n, s in data.splits.items()} == {
        "train": (900, 900),
        "val": (150, 150),
        "test": (150, 150),
    }
    text = REAL / "Flickr8k_text"
    told = Flickr30k(REAL / "Flicker8k_Dataset", text / "Flickr8k.token.txt").annotations
    for split, name in OFFICIAL_8K.items():
        listed = (text / f"Flickr_8k.{name}Images.txt").read_text().split()
        assert rows(data.splits[split]) == [(i, told[i]) for i in listed]
    assert data.warnings == []


@real_photos
def test_all_official_captions_can_be_read(tmp_path):
    """40,460 captions of 8,092 names, one of which is no image's."""
    photos(tmp_path / "Flicker8k_Dataset", {"train": ["1"]})
    text = tmp_path / "Flickr8k_text"
    text.mkdir()
    whole = REAL / "Flickr8k_text" / "Flickr8k.token.full.txt"
    (text / "Flickr8k.token.txt").write_bytes(whole.read_bytes())
    for name in OFFICIAL_8K.values():
        listed = (REAL / "Flickr8k_text" / f"Flickr_8k.{name}Images.txt").read_bytes()
        (text / f"Flickr_8k.{name}Images.txt").write_bytes(listed)
    data = Flickr8kDataModule(root=tmp_path, scheme="official")
    splits = data.read_splits()
    assert sum(len(own) for split in splits.values() for own in split.captions) == 6000
    (warning,) = data.warnings
    assert warning.startswith("6,892 names with 34,460 captions are on no list, left out: ")
    assert warning.split(": ")[1].startswith("2258277193_586949ec62.jpg.1, ")


@pytest.mark.parametrize("kaggle", [True, False])
def test_jinas_lines_are_the_first_of_the_file_less_test(tmp_path, monkeypatch, kaggle):
    """By name 1, 22, 30, 4, 5, 9 have five lines each; 5 and 9 are of test, 4 is of val."""
    official_8k(tmp_path)
    karpathy(tmp_path, "flickr8k")
    if kaggle:
        lines = [line.replace("\t", ",").split("#", 1) for line in token_lines()]
        text = "".join(f"{name},{rest.split(',', 1)[1]}" for name, rest in lines)
        (tmp_path / "captions.txt").write_text(f"image,caption\n{text}")
    monkeypatch.setattr(flickr, "JINA_LINES", 27)
    data = Flickr8kDataModule(root=tmp_path, scheme="jina")
    splits = {name: dict(rows(split)) for name, split in data.read_splits().items()}
    assert {name: len(own) for name, own in splits["train"].items()} == {
        **{"1.jpg": 5, "22.jpg": 5, "30.jpg": 5, "4.jpg": 5},
    }
    assert [text.strip() for text in splits["train"]["4.jpg"]] == [
        text.strip() for text in captions("4")
    ]
    assert splits["val"] == {}
    assert set(splits["test"]) == {"9.jpg", "5.jpg"}
    monkeypatch.setattr(flickr, "JINA_LINES", 14)
    splits = {name: dict(rows(split)) for name, split in data.read_splits().items()}
    assert {name: len(own) for name, own in splits["train"].items()} == {
        **{"1.jpg": 5, "22.jpg": 5, "30.jpg": 4},
    }
    assert set(splits["val"]) == {"4.jpg"}
    assert "less the images of train" in data.read_splits()["val"].rule


@real_photos
def test_jinas_lines_of_the_real_file():
    data = Flickr8kDataModule(root=REAL, scheme="jina")
    train = data.read_splits()["train"]
    named = [line.split("#")[0] for line in (REAL / "captions.txt").read_text().splitlines()[1:]]
    first = [line.split(",")[0] for line in named][:5001]
    test = set(data.read_splits()["test"].ids)
    assert sum(len(own) for own in train.captions) == sum(name not in test for name in first)
