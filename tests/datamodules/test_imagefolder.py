import json
import os
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from clipbench.core.errors import UserError
from clipbench.datamodules.imagefolder import ImageFolderDataModule
from tests.datamodules.folders import class_folders, draw

CLASSES = ["black_cat", "dog", "owl"]
REAL = Path(os.environ.get("CLIPBENCH_DATA", ""))
real_photos = pytest.mark.skipif("CLIPBENCH_DATA" not in os.environ, reason="no photos at hand")


def prepared(root: Path, **kwargs: object) -> ImageFolderDataModule:
    data = ImageFolderDataModule(root=root, **kwargs)
    data.prepare(0)
    data.check()
    return data


def sizes(data: ImageFolderDataModule) -> dict[str, list[int]]:
    return {name: np.bincount(split.labels).tolist() for name, split in data.splits.items()}


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_folders_for_every_split(tmp_path, val):
    for name, each in (("train", 4), (val, 2), ("test", 3), ("test_night", 1)):
        class_folders(tmp_path / name, CLASSES, each)
    data = prepared(tmp_path)
    assert sizes(data) == {
        "train": [4] * 3,
        "val": [2] * 3,
        "test": [3] * 3,
        "test_night": [1] * 3,
    }
    assert data.classes == ["black cat", "dog", "owl"]
    assert data.templates == ["a photo of a {}."]
    assert all(split.rule is None for split in data.splits.values())
    assert data.splits["val"].ids[0] == f"{val}/black_cat/black_cat_0.jpg"
    assert data.warnings == []


@pytest.mark.parametrize("present", [["train"], ["train", "test"], ["train", "val"]])
def test_what_has_no_folder_is_carved_from_train(tmp_path, present):
    for name in present:
        class_folders(tmp_path / name, CLASSES, 10)
    data = prepared(tmp_path)
    assert list(data.splits) == ["train", "val", "test"]
    carved = [name for name in ("test", "val") if name not in present]
    assert sizes(data)["train"] == [10 - 2 * len(carved)] * 3
    for name in carved:
        assert sizes(data)[name] == [2] * 3
        assert "sha256" in data.splits[name].rule
        assert all(i.startswith("train/") for i in data.splits[name].ids)


def test_one_folder_is_divided_by_a_fixed_rule(tmp_path):
    class_folders(tmp_path / "here", CLASSES, 10)
    class_folders(tmp_path / "there", reversed(CLASSES), 10)
    here, there = prepared(tmp_path / "here"), prepared(tmp_path / "there")
    assert sizes(here) == {"train": [6] * 3, "val": [2] * 3, "test": [2] * 3}
    assert [s.sha256 for s in here.record().values()] == [s.sha256 for s in there.record().values()]
    other = prepared(tmp_path / "here", test_fraction=0.5, val_fraction=0.4)
    assert sizes(other) == {"train": [3] * 3, "val": [2] * 3, "test": [5] * 3}
    assert set(other.splits["test"].ids) > set(here.splits["test"].ids)


def test_a_class_may_be_called_train(tmp_path):
    class_folders(tmp_path, ["train", "bus"], 5)
    assert prepared(tmp_path).classes == ["bus", "train"]


def test_a_class_folder_that_val_lacks_names_or_leaves_empty(tmp_path):
    for name in ("train", "val", "test"):
        class_folders(tmp_path / name, CLASSES, 2)
    (tmp_path / "val" / "dog").rename(tmp_path / "val" / "dogs")
    for path in (tmp_path / "test" / "owl").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="3 class folders are wrong, first val/dogs") as refusal:
        prepared(tmp_path)
    assert refusal.value.details == [
        "val/dogs: train has no class folder of that name; did you mean dog?",
        "val/dog: missing, train has it",
        "test/owl: no image in this class folder",
    ]


def test_of_many_wrong_names_the_first_few_get_a_hint(tmp_path):
    for split, word in (("train", "class"), ("val", "klass"), ("test", "class")):
        class_folders(tmp_path / split, [f"{word}{i:03d}" for i in range(40)], 1)
    with pytest.raises(UserError, match="80 class folders are wrong") as refusal:
        prepared(tmp_path)
    assert [line for line in refusal.value.details if "did you mean" in line] == [
        f"val/klass{i:03d}: train has no class folder of that name; did you mean class{i:03d}?"
        for i in range(10)
    ]


def test_an_empty_class_folder_of_train(tmp_path):
    class_folders(tmp_path, CLASSES, 5)
    (tmp_path / "zebra").mkdir()
    (tmp_path / "zebra" / "notes.txt").write_text("to come")
    with pytest.raises(UserError, match="zebra: no image"):
        prepared(tmp_path)


@pytest.mark.parametrize("each", [1, 2])
def test_too_few_images_to_share(tmp_path, each):
    class_folders(tmp_path, CLASSES, 10)
    class_folders(tmp_path, ["yak"], each)
    with pytest.raises(UserError, match="class yak has too few images"):
        prepared(tmp_path)


def test_other_files_are_counted_and_hidden_ones_ignored(tmp_path):
    class_folders(tmp_path, CLASSES, 5)
    draw(tmp_path / "dog" / "deeper" / "UPPER.JPG")
    for name in ("labels.csv", "dog/raw.xml", "owl/clip.mp4", "loose.png"):
        (tmp_path / name).write_text("something else")
    for name in (".DS_Store", "dog/._dog_0.jpg", ".thumbs/x.jpg", "__MACOSX/dog/y.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("hidden")
    data = prepared(tmp_path)
    assert sum(len(split) for split in data.splits.values()) == 16
    assert any("deeper/UPPER.JPG" in i for split in data.splits.values() for i in split.ids)
    warning = "4 files are not images in a class folder, left out: dog/raw.xml, labels.csv, "
    assert data.warnings == [warning + "loose.png ..."]


def test_links_are_followed_but_not_round_in_circles(tmp_path):
    class_folders(tmp_path / "store", CLASSES, 5)
    (tmp_path / "set").mkdir()
    for name in CLASSES:
        (tmp_path / "set" / name).symlink_to(tmp_path / "store" / name)
    (tmp_path / "store" / "dog" / "loop").symlink_to(tmp_path / "store")
    assert sum(len(split) for split in prepared(tmp_path / "set").splits.values()) == 15


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda root: None, "is not a folder"),
        (lambda root: root.mkdir(), "no class folders"),
        (lambda root: class_folders(root, ["only"], 9), "1 class"),
        (lambda root: class_folders(root / "val", CLASSES, 2), "no train/"),
        (
            lambda root: [class_folders(root / n, CLASSES, 2) for n in ("train", "val", "valid")],
            "val and valid",
        ),
    ],
)
def test_what_is_no_dataset_says_why(tmp_path, build, message):
    build(tmp_path / "set")
    with pytest.raises(UserError, match=message):
        prepared(tmp_path / "set")


def test_an_unset_root_says_how_to_set_it():
    with pytest.raises(UserError, match=r"dataset\.root is not set"):
        ImageFolderDataModule().prepare(0)


NAMES = {"black_cat": "panther", "dog": "hound", "owl": "owl"}


def test_class_names_in_any_form(tmp_path):
    class_folders(tmp_path / "set", CLASSES, 5)
    forms = [NAMES, list(NAMES.values()), OmegaConf.create(NAMES)]
    for name, text in (
        ("map.yaml", "".join(f"{k}: {v}\n" for k, v in reversed(NAMES.items()))),
        ("list.yaml", "".join(f"- {v}\n" for v in NAMES.values())),
        ("map.json", json.dumps(NAMES)),
    ):
        (tmp_path / name).write_text(text)
        forms.append(str(tmp_path / name))
    for form in forms:
        data = prepared(tmp_path / "set", class_names=form, templates=["a {} at night"])
        assert data.classes == ["panther", "hound", "owl"]
        assert data.templates == ["a {} at night"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"black_cat": "x", "dog": "y"}, "first owl"),
        ({**NAMES, "cow": "cow"}, "first cow"),
        (["a", "b"], "2 names for 3"),
        (["a", "a", "b"], "occur twice"),
        (["a", None, "b"], "are empty"),
        ("nowhere.yaml", "cannot be read"),
    ],
)
def test_class_names_that_do_not_fit(tmp_path, names, message):
    class_folders(tmp_path, CLASSES, 5)
    with pytest.raises(UserError, match=message):
        prepared(tmp_path, class_names=names)


@pytest.mark.parametrize("text", ["a: [", "{'a': 1"])
def test_a_damaged_names_file(tmp_path, text):
    class_folders(tmp_path / "set", CLASSES, 5)
    (tmp_path / "names.yaml").write_text(text)
    with pytest.raises(UserError, match=r"names\.yaml"):
        prepared(tmp_path / "set", class_names=str(tmp_path / "names.yaml"))


@real_photos
def test_real_castings():
    root = REAL / "casting" / "casting_data"
    if not root.is_dir():
        pytest.skip("no castings at hand")
    data = prepared(root, class_names={"def_front": "defective part", "ok_front": "good part"})
    assert sizes(data) == {"train": [200, 200], "val": [50, 50], "test": [75, 75]}
    assert data.classes == ["defective part", "good part"]


@real_photos
def test_real_satellite_scenes():
    root = REAL / "satellite_rsscn7"
    if not root.is_dir():
        pytest.skip("no scenes at hand")
    data = prepared(root)
    assert sizes(data) == {"train": [38] * 7, "val": [10] * 7, "test": [12] * 7}
    assert any("labels.csv" in warning for warning in data.warnings)
