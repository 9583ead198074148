"""Folders as people have them: read as they are meant, or refused with what to type."""

import os
import shutil
import unicodedata
from collections import Counter

import pytest
from PIL import Image

from clipbench.core.errors import UserError
from clipbench.datamodules.imagefolder import ImageFolderDataModule
from clipbench.loading.readers.image_files import loose
from tests.datamodules.folders import class_folders, draw

CLASSES = ["cat", "dog", "owl"]


def prepared(root, **options):
    data = ImageFolderDataModule(root=root, **options)
    data.prepare(0)
    data.check()
    return data


def counts(data):
    """How many images of each class each split has."""
    return {
        name: dict(Counter(data.keys[label] for label in split.labels))
        for name, split in data.splits.items()
    }


def total(data):
    """How many images of each class there are in all splits."""
    return sum(map(Counter, counts(data).values()), Counter())


def each(number, classes=CLASSES):
    return dict.fromkeys(classes, number)


@pytest.mark.parametrize(
    "names",
    [
        ("Training", "Validation", "Testing"),
        ("TRAIN", "VAL", "TEST"),
        ("images_train", "images_val", "images_test"),
        ("train2017", "val2017", "test2017"),
        ("Training Set", "dev-set", "TestSet"),
        ("seg_train", "seg_dev", "seg_test"),
    ],
)
def test_a_split_is_known_by_any_usual_name(tmp_path, names):
    for name, number in zip(names, (4, 2, 3), strict=True):
        class_folders(tmp_path / name, CLASSES, number)
    data = prepared(tmp_path)
    assert counts(data) == {"train": each(4), "val": each(2), "test": each(3)}
    assert data.warnings == []


def test_a_split_may_be_wrapped_once_more(tmp_path):
    for name, number in (("seg_train", 4), ("seg_test", 3)):
        class_folders(tmp_path / name / name, CLASSES, number)
    class_folders(tmp_path, ["seg_pred"], 5)
    data = prepared(tmp_path, val_fraction=0.5)
    assert counts(data) == {"train": each(2), "val": each(2), "test": each(3)}
    (warning,) = data.warnings
    assert warning.startswith("5 files are not images in a class folder, left out: seg_pred/")


def test_splits_below_the_classes(tmp_path):
    for name in CLASSES:
        for split, number in (("train", 3), ("valid", 2), ("Test", 1)):
            class_folders(tmp_path / name, [split], number)
    assert counts(prepared(tmp_path)) == {"train": each(3), "val": each(2), "test": each(1)}


def test_a_class_without_the_split_that_others_have(tmp_path):
    for name in CLASSES:
        class_folders(tmp_path / name, ["train", "test"], 3)
    shutil.rmtree(tmp_path / "owl" / "test")
    with pytest.raises(UserError, match="test/owl: missing, train has it"):
        prepared(tmp_path)
    shutil.rmtree(tmp_path / "owl")
    class_folders(tmp_path, ["owl"], 5)
    with pytest.raises(UserError, match=r"owl/ is not divided so.*dataset\.splits=none"):
        prepared(tmp_path)
    assert set(prepared(tmp_path, splits="none").keys) == set(CLASSES)


FOLDS = ("fold0", "fold1", "fold2")


def test_folders_that_all_hold_the_same_folders_are_refused_with_what_to_type(tmp_path):
    for name in FOLDS:
        class_folders(tmp_path / name, CLASSES, 3)
    with pytest.raises(UserError, match=r"fold0, fold1, fold2 hold no images.*dataset\.splits="):
        prepared(tmp_path)
    data = prepared(
        tmp_path, splits={"train": ["fold0", "fold1"], "test": "fold2"}, val_fraction=0.5
    )
    assert counts(data) == {"train": each(3), "val": each(3), "test": each(3)}
    assert {i.split("/")[0] for i in data.splits["test"].ids} == {"fold2"}
    assert prepared(tmp_path, splits="none").keys == list(FOLDS)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": "fold7"}, "train=fold7 is not a folder"),
        ({"trian": "fold0"}, "trian is not a split"),
        ({"test": "fold0"}, "has no train"),
        ("fold0", "is not a mapping"),
    ],
)
def test_splits_that_are_not_there(tmp_path, splits, message):
    for name in FOLDS:
        class_folders(tmp_path / name, CLASSES, 3)
    with pytest.raises(UserError, match=message):
        prepared(tmp_path, splits=splits)


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("train/cat", "train/dog", "holdout/cat", "holdout/dog"), "holdout/ has class folders as"),
        (("train/steam", "train/diesel", "bus"), "train/ may be a split or a class beside bus/"),
        (("train", "test"), "test and train hold images and no class folders"),
        (("images", "masks"), "images, masks are kinds of files"),
        (("training/cat", "training/dog", "train/cat", "train/dog"), "both of which may be train"),
        (
            ("bottle/train/good", "bottle/test/bent", "nut/train/good", "nut/test/bent"),
            "dataset.root=.*bottle",
        ),
        (("pets/cat", "pets/dog"), "one folder, which holds further ones"),
    ],
)
def test_folders_that_may_be_one_thing_or_another(tmp_path, folders, message):
    for folder in folders:
        class_folders((tmp_path / folder).parent, [folder.split("/")[-1]], 6)
    with pytest.raises(UserError, match=message) as refusal:
        prepared(tmp_path)
    assert "\n" not in str(refusal.value)


def test_what_is_below_a_class_is_of_the_class_and_is_told(tmp_path):
    class_folders(tmp_path / "animals", ["cat", "dog"], 5)
    class_folders(tmp_path / "vehicles", ["bus", "car"], 5)
    data = prepared(tmp_path)
    assert data.keys == ["animals", "vehicles"]
    assert data.warnings == [
        "2 class folders hold further folders, such as animals/cat/: their images are of the top "
        "folder's class"
    ]


STRAY = (
    *("@eaDir/cat_0.jpg/SYNOPHOTO_THUMB_XL.jpg", "cat/@eaDir/x.jpg", "#recycle/old.jpg"),
    *("$RECYCLE.BIN/S-1-5/a.jpg", ".Trash-1000/files/b.jpg", "cat/._cat_0.jpg", "cat/Thumbs.db"),
    *("dog/.thumbnails/c.jpg", "__MACOSX/cat/._cat_0.jpg", "lost+found/d.png", "cat/desktop.ini"),
    *("train/@eaDir/e.jpg", "@Recycle/cat/f.jpg", "System Volume Information/g.jpg"),
    *("cat/.ipynb_checkpoints/cat_0-checkpoint.jpg", "Network Trash Folder/h.jpg"),
)


@pytest.mark.parametrize("home", ["", "train"])
def test_what_a_system_puts_beside_images_is_neither_image_nor_class(tmp_path, home):
    class_folders(tmp_path / home, CLASSES, 5)
    for path in STRAY:
        draw(tmp_path / home / path.replace(".db", ".db.jpg").replace(".ini", ".ini.jpg"), seed=9)
        if path.endswith((".db", ".ini")):
            (tmp_path / home / f"{path}.jpg").rename(tmp_path / home / path)
    shutil.rmtree(tmp_path / home / "train")  # it would be a class
    data = prepared(tmp_path)
    assert data.keys == CLASSES
    assert sum(map(len, data.splits.values())) == 15
    assert data.warnings == []
    assert len(loose(tmp_path)) == 15


def test_folders_of_small_copies_are_left_out_and_named(tmp_path):
    class_folders(tmp_path, CLASSES, 5)
    class_folders(tmp_path / "dog", ["Thumbnails"], 3)
    data = prepared(tmp_path)
    assert sum(map(len, data.splits.values())) == 15
    assert data.warnings == ["1 folders of small copies are left out: dog/Thumbnails"]


def test_every_walk_follows_links_once(tmp_path):
    class_folders(tmp_path / "store", CLASSES, 5)
    home = tmp_path / "set"
    home.mkdir()
    for name in CLASSES:
        (home / name).symlink_to(tmp_path / "store" / name)
    (tmp_path / "store" / "dog" / "up").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "dog" / "round").symlink_to(home)
    trained = sorted(i for split in prepared(home).splits.values() for i in split.ids)
    assert trained == sorted(loose(home).ids)
    assert len(trained) == 15


def test_two_ways_to_one_folder_are_refused(tmp_path):
    class_folders(tmp_path, CLASSES, 5)
    (tmp_path / "owl" / "more").symlink_to(tmp_path / "cat")
    with pytest.raises(UserError, match="cat and owl/more are one folder, by a link"):
        prepared(tmp_path)
    assert len(loose(tmp_path)) == 15


def test_a_class_folder_that_is_a_link_to_nowhere(tmp_path):
    class_folders(tmp_path, CLASSES, 5)
    (tmp_path / "emu").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match=r"links lead nowhere, first .*emu"):
        prepared(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list any folder")
def test_a_folder_that_may_not_be_listed(tmp_path):
    class_folders(tmp_path, CLASSES, 5)
    (tmp_path / "owl").chmod(0)
    with pytest.raises(UserError, match="owl: this folder cannot be listed"):
        prepared(tmp_path)
    (tmp_path / "owl").chmod(0o755)


def test_numbered_folders_sort_as_numbers(tmp_path):
    class_folders(tmp_path / "bare", [str(n) for n in range(1, 13)], 5)
    assert prepared(tmp_path / "bare").keys == [str(n) for n in range(1, 13)]
    class_folders(tmp_path / "led", [f"type_{n}" for n in (1, 2, 10)], 5)
    assert prepared(tmp_path / "led").keys == ["type_1", "type_2", "type_10"]
    class_folders(tmp_path / "mixed", ["787-8", "a10", "a2", "747"], 5)
    assert prepared(tmp_path / "mixed").keys == ["747", "787-8", "a10", "a2"]


NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def test_a_name_written_either_way_is_one_class_and_one_id(tmp_path):
    for split, name in (("train", NFC), ("val", NFD), ("test", NFC)):
        class_folders(tmp_path / split, [name, "dog"], 2)
    data = prepared(tmp_path)
    assert data.keys == [NFC, "dog"]
    assert data.splits["val"].ids[0] == f"val/{NFC}/{NFC}_0.jpg"
    assert data.splits["val"].images[0].name == f"{NFD}_0.jpg"


def test_two_folders_that_look_the_same_are_one_class(tmp_path):
    class_folders(tmp_path, [NFC, NFD, "dog"], 5)
    data = prepared(tmp_path)
    assert data.keys == [NFC, "dog"]
    assert sorted(np_counts := sum(map(Counter, counts(data).values()), Counter()).values()) == [
        5,
        10,
    ]
    assert np_counts
    assert any("look the same" in warning for warning in data.warnings)
    assert len({i for split in data.splits.values() for i in split.ids}) == 15


def test_classes_that_differ_by_case_alone_are_told(tmp_path):
    class_folders(tmp_path, ["A", "a", "b"], 5)
    data = prepared(tmp_path)
    assert data.keys == ["A", "a", "b"]
    assert data.warnings == ["classes differ by upper and lower case alone: A and a"]


def test_a_file_name_that_is_no_utf8_is_read_and_shown_as_text(tmp_path):
    class_folders(tmp_path, CLASSES, 5)
    strange = os.fsdecode(b"caf\xe9\n1.jpg")
    (tmp_path / "cat" / "cat_0.jpg").rename(tmp_path / "cat" / strange)
    data = prepared(tmp_path)
    ids = [i for split in data.splits.values() for i in split.ids]
    assert r"cat/caf\xe9\n1.jpg" in ids
    assert len(ids) == 15
    "".join(ids).encode()
    assert data.record()["train"].sha256


def test_a_damaged_file_whose_name_is_no_utf8_is_refused_in_text(tmp_path):
    class_folders(tmp_path, CLASSES, 5)
    strange = os.fsdecode(b"caf\xe9.jpg")
    (tmp_path / "cat" / strange).write_bytes(b"")
    with pytest.raises(UserError, match="1 of 16 images") as refusal:
        prepared(tmp_path)
    assert refusal.value.details[0].encode()
    assert r"caf\xe9.jpg" in refusal.value.details[0]


def test_a_class_folder_whose_name_is_no_utf8(tmp_path):
    class_folders(tmp_path, CLASSES, 5)
    (tmp_path / "cat").rename(tmp_path / os.fsdecode(b"ch\xe2t"))
    with pytest.raises(UserError, match=r"ch\\xe2t: the name of this class folder is not UTF-8"):
        prepared(tmp_path)


@pytest.mark.parametrize(
    "name", ["photo.jfif", "photo.AVIF", "photo.pgm", "photo", "photo.jpg?w=9"]
)
def test_an_image_is_known_by_its_name_or_its_content(tmp_path, name):
    class_folders(tmp_path, CLASSES, 5)
    kind = {"jfif": "JPEG", "AVIF": "AVIF", "pgm": "PPM"}.get(name.rpartition(".")[2], "PNG")
    Image.effect_noise((30, 20), 90).save(tmp_path / "owl" / name, kind)
    data = prepared(tmp_path)
    splits = data.splits.values()
    (found,) = [s.image(s.ids.index(f"owl/{name}")) for s in splits if f"owl/{name}" in s.ids]
    assert found.size == (30, 20)
    assert f"owl/{name}" in loose(tmp_path).ids


@pytest.mark.parametrize("name", ["photo.heic", "photo.CR2", ".photo.jpg.icloud"])
def test_an_image_that_is_not_read_is_refused_or_skipped_and_never_lost(tmp_path, name):
    class_folders(tmp_path, CLASSES, 5)
    (tmp_path / "owl" / name).write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(UserError, match="1 of 16 images cannot be read") as refusal:
        prepared(tmp_path)
    assert name in refusal.value.details[0]
    data = prepared(tmp_path, bad_images="skip")
    assert sum(split.expected for split in data.splits.values()) == 16
    assert any(name in warning for warning in data.warnings)
    assert f"owl/{name}" in loose(tmp_path).ids


def test_a_raw_file_beside_its_jpeg_is_no_image_more(tmp_path):
    class_folders(tmp_path, CLASSES, 5)
    (tmp_path / "owl" / "owl_0.CR2").write_bytes(b"raw")
    data = prepared(tmp_path)
    assert sum(map(len, data.splits.values())) == 15
    assert "owl/owl_0.CR2" in data.warnings[0]


def test_a_damaged_file_without_an_ending_is_not_lost_beside_others(tmp_path):
    class_folders(tmp_path, CLASSES, 5)
    for path in tmp_path.rglob("*.jpg"):
        path.rename(path.with_suffix(""))
    (tmp_path / "dog" / "README").write_text("Photos of dogs.")
    assert sum(map(len, prepared(tmp_path).splits.values())) == 15
    (tmp_path / "dog" / "dog_3").write_bytes(b"")
    with pytest.raises(UserError, match="1 of 15 images cannot be read"):
        prepared(tmp_path)


def inspection(root):
    class_folders(root / "train", ["good"], 10)
    for name, number in (("good", 5), ("bent", 5), ("scratch", 6)):
        class_folders(root / "test", [name], number)
    class_folders(root / "ground_truth", ["bent", "scratch"], 5)


def test_mvtec_is_read_as_good_or_defect(tmp_path):
    inspection(tmp_path)
    data = prepared(tmp_path)
    assert total(data) == {"good": 15, "defect": 11}
    assert list(data.splits) == ["train", "val", "test"]
    assert all(
        split.rule.startswith("all splits of the layout joined") for split in data.splits.values()
    )
    assert any("as MVTec's" in warning for warning in data.warnings)
    assert not any("ground_truth" in i for split in data.splits.values() for i in split.ids)


def test_mvtec_is_read_by_kind_of_defect(tmp_path):
    inspection(tmp_path)
    data = prepared(tmp_path, labels="folder")
    assert data.keys == ["bent", "good", "scratch"]
    assert sum(map(Counter, counts(data).values()), Counter()) == {
        "bent": 5,
        "good": 15,
        "scratch": 6,
    }


def test_good_or_defect_of_any_folders(tmp_path):
    class_folders(tmp_path, ["OK", "bent", "scratch"], 5)
    data = prepared(tmp_path, labels="good_or_defect")
    assert total(data) == {"OK": 5, "defect": 10}
    shutil.rmtree(tmp_path / "OK")
    with pytest.raises(UserError, match="no class folder is called good"):
        prepared(tmp_path, labels="good_or_defect")
    with pytest.raises(UserError, match=r"dataset\.labels=kinds"):
        prepared(tmp_path, labels="kinds")
