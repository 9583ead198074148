"""The data door: what it finds in a folder of pictures, and what it says of what is not there."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from clipbench import data
from clipbench.core import paths
from clipbench.core.config.instantiate import build
from clipbench.datamodules import audit
from clipbench.datamodules.imagefolder import ImageFolderDataModule
from tests.conftest import clipbench, composed
from tests.datamodules.folders import class_folders, draw


@pytest.fixture
def root(tmp_path):
    for split, each in {"train": 4, "val": 2, "test": 3}.items():
        class_folders(tmp_path / "set" / split, ["rose", "iris"], each)
        for i, path in enumerate(sorted((tmp_path / "set" / split).rglob("*.jpg"))):
            draw(path, seed=1000 * len(split) + i)
    return tmp_path / "set"


def look(root, tmp_path, **options):
    return audit.audit(ImageFolderDataModule(root=root, **options), "mine", tmp_path / "m.parquet")


def test_a_sound_folder_has_nothing_to_say(root, tmp_path):
    found = look(root, tmp_path)
    assert [(row["split"], row["n"], row["expected"]) for row in found.rows] == [
        ("train", 8, 8),
        ("val", 4, 4),
        ("test", 6, 6),
    ]
    assert (found.faults, found.warnings, found.classes) == ({}, [], (2, None))
    module = ImageFolderDataModule(root=root)
    module.prepare(0)
    assert {r["split"]: r["sha256"] for r in found.rows} == {
        name: split.sha256 for name, split in module.record().items()
    }


def test_images_in_two_splits_are_a_fault_and_named(root, tmp_path):
    twin = root / "test" / "rose" / "again.jpg"
    twin.write_bytes((root / "train" / "iris" / "iris_1.jpg").read_bytes())
    found = look(root, tmp_path)
    assert found.faults == {
        "1 image is byte for byte in train and in test": [
            "train: train/iris/iris_1.jpg = test: test/rose/again.jpg"
        ]
    }
    assert found.warnings == []


def test_only_what_a_whole_decoding_finds_is_found_too(root, tmp_path):
    spoilt = root / "train" / "rose" / "rose_0.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(spoilt)
    content = bytearray(spoilt.read_bytes())
    start = content.index(b"\xff\xda") + 14
    content[start + 40 : start + 400] = bytes(360)
    spoilt.write_bytes(content)
    assert look(root, tmp_path).faults.keys() == {"1 of 18 images cannot be read"}
    ((line,),) = look(root, tmp_path).faults.values()
    assert line.startswith(f"{spoilt}: ")


def test_unequal_classes_and_changed_files_are_worth_a_word(root, tmp_path):
    look(root, tmp_path)
    for i in range(60):
        draw(root / "train" / "rose" / f"more_{i}.jpg", seed=5000 + i)
    draw(root / "val" / "iris" / "iris_0.jpg", seed=7)
    unequal, changed = sorted(look(root, tmp_path).warnings, reverse=True)[:2]
    assert "1 files changed since the last check" in unequal + changed
    assert "classes are unequal: 64 of rose, 4 of iris in train" in unequal + changed


def test_every_count_is_one_number_of_one_source():
    table = pd.read_csv(paths.EXPERIMENTS / "datasets.csv", dtype=str, keep_default_na=False)
    options = {path.stem for path in (paths.CONF / "dataset").glob("*.yaml")}
    assert set(table["dataset"]) <= options
    assert not table.duplicated(["dataset", "scheme", "split"]).any()
    assert table["n"].str.fullmatch("[0-9]+").all()
    assert (table["source"] != "").all()
    assert set(table["verified"]) <= {"yes", "secondhand"}
    # Every dataset that people compare has its counts, or is drawn, or is somebody's own.
    own = {"shapes", "imagefolder", "captions"}
    assert options - own <= set(table["dataset"])


def test_lists_that_are_not_the_published_ones_are_named(tmp_path):
    known = audit.published("flowers102")
    shapes = build(composed("dataset=shapes")["dataset"])
    lists = {name: split for name, split in shapes.lists(0).items() if name in ("train", "val")}
    assert audit._compare(lists, known) == [
        "train lists 1,920 images, 1,020 are published: another split",
        "val lists 480 images, 1,020 are published: another split",
    ]
    joined = known.assign(split=["train+val", "none", "none+val"], n="2400")
    assert audit._compare(lists, joined) == []


def test_the_door_checks_and_reports(root, tmp_path):
    for split in ("train", "val", "test"):
        (root / split / "iris").rename(root / split / "[b]_10")
        (root / split / "rose").rename(root / split / "[b]_9")
    env = {"CLIPBENCH_OUTPUTS": str(tmp_path / "outputs")}
    (root / "test" / "[b]_9" / "rose_0.jpg").write_bytes(b"")
    leaked = (root / "train" / "[b]_9" / "rose_1.jpg").read_bytes()
    (root / "val" / "[b]_9" / "rose_1.jpg").write_bytes(leaked)
    done = clipbench("check", "dataset=imagefolder", f"dataset.root={root}", module="data", env=env)
    assert done.returncode == 1
    assert "fault: 1 of 18 images cannot be read" in done.stdout
    assert "rose_0.jpg: empty, 0 bytes" in done.stdout
    table = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.stdout.split("\n")]
    assert [row for row in table if len(row) == 3 and row[0].isdigit()] == [
        ["0", "[b]_9", "[b] 9"],
        ["1", "[b]_10", "[b] 10"],
    ]
    report = json.loads((tmp_path / "outputs" / "data" / "imagefolder.json").read_text())
    assert report["labels"] == [[0, "[b]_9", "[b] 9"], [1, "[b]_10", "[b] 10"]]
    assert [row["split"] for row in report["rows"]] == ["train", "val", "test"]
    assert list(report["faults"]) == [
        "1 of 18 images cannot be read",
        "1 image is byte for byte in train and in val",
    ]
    assert all(len(row["content"]) == 64 for row in report["rows"])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["check"], 2, "Run: "),
        (["look", "dataset=shapes"], 2, "Run: "),
        (["check", "dataset=flower"], 2, "did you mean flowers102"),
        (["check", "dataset=shapes", "dataset.rot=x"], 2, "did you mean dataset.root"),
        (["fetch", "dataset=shapes"], 0, "shapes has nothing to download"),
        (["check", "dataset=fmow", "dataset.root=/nowhere"], 1, "there is no folder /nowhere: "),
        (["fetch", "dataset=fmow"], 1, "wilds"),
    ],
)
def test_the_door_says_what_is_wrong_in_a_line(words, code, said, monkeypatch, capsys, outputs):
    monkeypatch.setattr("sys.argv", ["data", *words])
    with pytest.raises(SystemExit) as left:
        data.main()
    assert left.value.code == code
    assert said in capsys.readouterr().err
