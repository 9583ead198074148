import gzip
import io
import lzma
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset

from clipbench.core.errors import UserError
from clipbench.datamodules.captions import CaptionsDataModule
from clipbench.datamodules.imagefolder import ImageFolderDataModule
from clipbench.loading.images.decoding import content
from clipbench.loading.readers import tar_index
from clipbench.loading.readers.webdataset import files, matches
from tests.datamodules.folders import AUGMENT, TINY, draw

REAL = Path(os.environ.get("CLIPBENCH_DATA", "nowhere")) / "coco"
real_photos = pytest.mark.skipif(not REAL.is_dir(), reason="needs CLIPBENCH_DATA/coco")
CLASSES = ["cat", "dog", "owl"]


@pytest.fixture(autouse=True)
def _outputs(outputs):
    """An index is kept under the outputs root."""


def jpeg(tmp_path, k):
    path = tmp_path / ".drawn" / f"{k}.jpg"
    if not path.exists():
        draw(path, seed=k)
    return path.read_bytes()


def sample(tmp_path, k, **more):
    """As webdataset's writers put them: key, image, label, captions and more."""
    return {
        "__key__": f"some/{k:06d}",
        "jpg": jpeg(tmp_path, k),
        "cls": str(k % 3),
        "txt": f"image {k}\n",
        "json": {"width": 24, "url": "https://example.org/a.jpg", "label": 9, "caption": "no"},
        **more,
    }


def write(path, samples):
    path.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(path)) as writer:
        for one in samples:
            writer.write(one)
    return path


def shards(tmp_path, form, count=3, each=8, **more):
    return [
        write(
            tmp_path / "set" / form.format(s),
            [sample(tmp_path, s * each + k, **more) for k in range(each)],
        )
        for s in range(count)
    ]


def reference(paths):
    """What webdataset itself reads: key, bytes, label, caption of each sample."""
    dataset = webdataset.WebDataset(list(map(str, paths)), shardshuffle=False, empty_check=False)
    return [
        (row["__key__"], row["jpg"], int(row["cls"]), row["txt"].decode().splitlines())
        for row in dataset
    ]


def images(root, **keys):
    data = ImageFolderDataModule(root=root, **keys)
    data.prepare(0)
    return data


def captions(file, **keys):
    data = CaptionsDataModule(file=file, **keys)
    data.prepare(0)
    return data


def test_split_folders_hold_what_webdataset_reads(tmp_path):
    parts = {"train": shards(tmp_path, "train/{:05d}.tar")}
    for name, first in (("val", 100), ("test", 200), ("test_night", 300)):
        own = [sample(tmp_path, first + k) for k in range(6)]
        parts[name] = [write(tmp_path / "set" / name / "0.tar", own)]
    labelled, captioned = images(tmp_path / "set"), captions(tmp_path / "set")
    for data in (labelled, captioned):
        data.check()
        assert list(data.splits) == ["train", "val", "test", "test_night"]
        for name, split in data.splits.items():
            expected = reference(parts[name])
            assert split.ids == [f"{name}/{key}" for key, *_ in expected]
            assert [content(source) for source in split.images] == [row[1] for row in expected]
            assert split.expected == len(expected)
    for name, split in labelled.splits.items():
        assert split.labels.tolist() == [row[2] for row in reference(parts[name])]
    for name, split in captioned.splits.items():
        assert list(split.captions) == [row[3] for row in reference(parts[name])]
        assert (split.labels == -1).all()
    assert labelled.classes == ["0", "1", "2"]


def test_prefixes_and_patterns_name_the_same_shards(tmp_path):
    shards(tmp_path, "train-{:03d}.tar", 11)
    write(tmp_path / "set" / "test-000.tar", [sample(tmp_path, 900 + k) for k in range(3)])
    by_folder = files(tmp_path / "set")
    assert {name: len(own) for name, own in by_folder.items()} == {"train": 11, "test": 1}
    train = by_folder["train"]
    for pattern in ("train-{000..010}.tar", "train-0{00..10}.tar", "train-0{0{0..9},10}.tar"):
        assert sorted(files(tmp_path / "set" / pattern)["train"]) == train
    assert files(tmp_path / "set" / "train-*.tar")["train"] == train
    assert files(tmp_path / "set" / "{train,test}-000.tar") == {
        "train": train[:1],
        "test": by_folder["test"],
    }
    whole = images(tmp_path / "set" / "{train-{000..010},test-000}.tar")
    assert {n: s.fingerprint() for n, s in whole.splits.items()} == {
        n: s.fingerprint() for n, s in images(tmp_path / "set").splits.items()
    }


def test_a_folder_that_is_there_is_no_pattern(tmp_path):
    home = tmp_path / "{a,b} {1..2} [x]"
    there = [write(home / f"train-{k}.tar", [sample(tmp_path, k)]) for k in range(3)]
    assert files(home / "train-{0..2}.tar") == {"train": there}
    assert files(there[1]) == {"train": there[1:2]}
    odd = write(home / "{0..9}.tar", [sample(tmp_path, 9)])
    assert files(odd) == {"": [odd]}


def test_without_splits_they_are_carved_whatever_the_sharding(tmp_path):
    shards(tmp_path, "part{}.tar", 3, 10)
    rows = [sample(tmp_path, k) for k in range(30)]
    one = write(tmp_path / "whole.tar", rows)
    several, single = images(tmp_path / "set"), images(one)
    assert {n: np.bincount(s.labels).tolist() for n, s in single.splits.items()} == {
        "train": [6, 6, 6],
        "val": [2, 2, 2],
        "test": [2, 2, 2],
    }
    for name, split in single.splits.items():
        assert several.splits[name].fingerprint() == split.fingerprint()
    texts = captions(one)
    assert {n: len(s) for n, s in texts.splits.items()} == {"train": 19, "val": 5, "test": 6}


def test_labels_in_words_and_in_json(tmp_path):
    rows = [sample(tmp_path, k, cls=CLASSES[k % 3]) for k in range(15)]
    data = images(write(tmp_path / "words.tar", rows), class_names={c: f"a {c}" for c in CLASSES})
    assert data.classes == ["a cat", "a dog", "a owl"]
    bare = [
        {"__key__": r["__key__"], "png": r["jpg"], "json": {"label": k % 3}}
        for k, r in enumerate(rows)
    ]
    (tmp_path / "classnames.txt").write_text("tabby cat\ndog\nbarn owl\n")
    data = images(write(tmp_path / "json.tar", bare))
    assert data.classes == ["tabby cat", "dog", "barn owl"]
    for split in data.splits.values():
        assert [int(i.split("/")[-1]) % 3 for i in split.ids] == split.labels.tolist()


def test_several_captions_and_those_in_json(tmp_path):
    rows = [
        {"__key__": "a", "jpg": jpeg(tmp_path, 1), "txt": "one\ntwo\r\n\nthree "},
        {"__key__": "b", "jpg": jpeg(tmp_path, 2), "json": {"caption": "four"}},
        {"__key__": "c", "jpg": jpeg(tmp_path, 3), "json": {"captions": ["five", "six\nseven"]}},
        {"__key__": "d", "jpg": jpeg(tmp_path, 4), "json": {"caption": "x"}, "txt": "eight"},
    ]
    data = captions(write(tmp_path / "a.tar", rows))
    found = {
        i: list(own)
        for split in data.splits.values()
        for i, own in zip(split.ids, split.captions, strict=True)
    }
    assert found == {
        "a": ["one", "two", "three "],
        "b": ["four"],
        "c": ["five", "six\nseven"],
        "d": ["eight"],
    }
    assert "a.tar: images have 1 to 3 captions" in data.warnings


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_shuffled_as_files_are(tmp_path, workers):
    shards(tmp_path, "train-{}.tar", 3, 10)
    data = images(tmp_path / "set", workers=workers)
    data.attach(preprocess=TINY, augment=AUGMENT, batch_size=7, seed=3)
    loader = data.train_dataloader()
    orders = []
    for epoch in (0, 1, 0):
        loader.sampler.set_epoch(epoch)
        batches = list(loader)
        orders.append([k for batch in batches for k in batch["index"].tolist()])
        assert batches[0]["image"].shape == (7, 3, 16, 16)
    assert orders[0] == orders[2] != orders[1]
    assert sorted(orders[0]) == list(range(len(data.splits["train"])))


# the index


def test_a_shard_is_listed_once_until_it_changes(tmp_path, monkeypatch):
    (path,) = shards(tmp_path, "a.tar", 1, 9)
    first = images(path)
    listed = tar_index._listed
    monkeypatch.setattr(tar_index, "_listed", lambda shard: pytest.fail("listed again"))
    again = images(path)
    assert again.record() == first.record()
    assert again.splits["train"].images == first.splits["train"].images
    monkeypatch.setattr(tar_index, "_listed", listed)
    write(path, [sample(tmp_path, 50 + k) for k in range(12)])
    assert sum(map(len, images(path).splits.values())) == 12


@pytest.mark.parametrize("kept", ["", "{}", '{"samples": [1], "others": 0}', "\x00"])
def test_a_damaged_index_is_made_anew(tmp_path, outputs, kept):
    (path,) = shards(tmp_path, "a.tar", 1, 9)
    first = images(path).record()
    (cached,) = (outputs / "cache" / "shards").iterdir()
    cached.write_text(kept)
    assert images(path).record() == first


def test_an_index_that_cannot_be_kept(tmp_path, outputs):
    (path,) = shards(tmp_path, "a.tar", 1, 9)
    outputs.mkdir()
    (outputs / "cache").write_text("in the way")
    assert sum(map(len, images(path).splits.values())) == 9


# what is wrong


@pytest.mark.parametrize(
    ("pack", "tool"),
    [(gzip.compress, "gunzip"), (lzma.compress, "unxz"), (lambda b: b"\x28\xb5\x2f\xfd", "unzstd")],
)
@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_a_compressed_tar_says_what_to_do(tmp_path, pack, tool, name):
    (path,) = shards(tmp_path, "b.tar", 1, 3)
    packed = tmp_path / name
    packed.write_bytes(pack(path.read_bytes()))
    with pytest.raises(UserError, match=rf"{name} is compressed.*; {tool} it"):
        images(packed)


def test_a_tar_that_is_cut_off_anywhere(tmp_path):
    (path,) = shards(tmp_path, "b.tar", 1, 3)
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1]
    end = last.offset_data + -(-last.size // 512) * 512
    cut = tmp_path / "cut.tar"
    for size in [
        *np.random.default_rng(0).integers(1, end, 30),
        512,
        700,
        last.offset,
        end,
        end + 9,
    ]:
        cut.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"cut\.tar is cut off or damaged.*ownload it again"):
            images(cut)
    cut.write_bytes(whole[: end + 512])  # one block of zeros is an end, if a careless one
    tar_index.index(cut)


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path):
    (path,) = shards(tmp_path, "b.tar", 1, 3)
    with tarfile.open(path) as tar:
        offsets = [member.offset for member in tar.getmembers()]
    whole = bytearray(path.read_bytes())
    for at in offsets:
        damaged = bytearray(whole)
        damaged[at + 150] ^= 0xFF
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"b\.tar is cut off or damaged"):
            images(path)


def raw(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_names_that_lead_elsewhere_are_only_names(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    names = ["../../out", "/abs/x", "..\\y", "a/../b", "C:/z", "~/q"]
    members = []
    for k, name in enumerate(names):
        members += [(f"{name}.jpg", jpeg(tmp_path, k)), (f"{name}.txt", b"a thing")]
    before = sorted(path for path in tmp_path.rglob("*"))
    data = captions(raw(home / "a.tar", members))
    data.check()
    after = sorted(path for path in tmp_path.rglob("*") if "outputs" not in path.parts)
    assert after == sorted([*before, home / "a.tar"])
    # ../../out has its first dot before its name, as in webdataset, which drops it
    kept = {name for name in names if webdataset.tariterators.base_plus_ext(name + ".jpg")[0]}
    assert {i for split in data.splits.values() for i in split.ids} == kept


def test_members_of_no_sample_are_told(tmp_path):
    image = jpeg(tmp_path, 0)
    members = [(f"{k}.{kind}", d) for k in range(6) for kind, d in (("jpg", image), ("cls", b"1"))]
    members += [(".hidden.jpg", image), ("__meta__/x.jpg", image), ("README", b"hello")]
    path = raw(tmp_path / "a.tar", [*members, ("7.jpg", image), ("7.cls", b"0")])
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("8.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "7.jpg"
        tar.addfile(link)
    data = ImageFolderDataModule(root=path, test_fraction=0.4, val_fraction=0.4)
    with pytest.raises(UserError, match="too few images"):
        data.prepare(0)
    assert data.warnings == [
        f"{path}: 4 members belong to no sample (folders, links, hidden files)"
    ]


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"cls": None}, images, "1 samples are faulty, first .*000003.jpg: no label"),
        ({"txt": " \n"}, captions, "000003.jpg: no caption"),
        ({"jpg": None}, captions, "000003: 0 images, not one"),
        ({"png": b"x"}, images, "000003: 2 images, not one"),
        ({"txt": b"\xff\xfe"}, captions, "000003.txt is damaged"),
        ({"json": b"{"}, captions, "000003.json is damaged"),
        ({"cls": "cat"}, images, None),
    ],
)
def test_faulty_samples_are_named(tmp_path, change, kind, message):
    rows = [sample(tmp_path, k, json={}) for k in range(9)]
    rows[3] = {k: v for k, v in {**rows[3], **change}.items() if v is not None}
    path = write(tmp_path / "a.tar", rows)
    if message is None:  # one word among numbers: all are words
        data = ImageFolderDataModule(root=path)
        with pytest.raises(UserError, match="too few images"):
            data.prepare(0)
        return
    with pytest.raises(UserError, match=message):
        kind(path)


def test_a_key_or_a_member_that_stands_twice(tmp_path):
    for s in range(2):
        write(tmp_path / "set" / f"train-{s}.tar", [sample(tmp_path, k) for k in range(3)])
    with pytest.raises(UserError, match=r"train-1\.tar#some/000000: also in train-0\.tar"):
        images(tmp_path / "set")
    image = jpeg(tmp_path, 0)
    with pytest.raises(UserError, match=r"0\.JPG occurs twice"):
        images(raw(tmp_path / "a.tar", [("0.jpg", image), ("0.cls", b"1"), ("0.JPG", image)]))


def test_a_label_that_train_has_not(tmp_path):
    for name in ("train", "val", "test"):
        words = CLASSES if name != "val" else [*CLASSES[:2], "emu"]
        rows = [sample(tmp_path, k, cls=words[k % 3]) for k in range(6)]
        write(tmp_path / "set" / f"{name}-0.tar", rows)
    with pytest.raises(UserError, match=r"2 samples are faulty.*val-0\.tar.*: train has no emu"):
        images(tmp_path / "set")


def test_shards_that_are_not_there(tmp_path):
    shards(tmp_path, "train-{:02d}.tar", 3)
    with pytest.raises(UserError, match=r"2 of 5 shards are not there, first .*train-03\.tar"):
        images(tmp_path / "set" / "train-{00..04}.tar")
    with pytest.raises(UserError, match="1 of 1 shards are not there"):
        images(tmp_path / "nothing*.tar")
    (tmp_path / "set" / "more.tar").write_bytes(bytes(1024))
    with pytest.raises(UserError, match=r"more\.tar is of no split, while other shards are"):
        images(tmp_path / "set")
    with pytest.raises(UserError, match="holds no samples"):
        images(tmp_path / "set" / "more.tar")
    for name in ("only/test-0.tar", "folder/test/0.tar"):
        path = write(tmp_path / name, [sample(tmp_path, 0)])
        with pytest.raises(UserError, match="has shards of test, none of train"):
            images(tmp_path / name.split("/")[0])
        assert set(captions(tmp_path / name.split("/")[0]).splits) == {"test"}
    assert files(path) == {"": [path]}


def test_a_folder_of_classes_is_no_folder_of_shards(tmp_path):
    for name in CLASSES:
        for k in range(5):
            draw(tmp_path / "set" / name / f"{k}.jpg", seed=k)
    (tmp_path / "set" / "backup.tar").write_bytes(bytes(1024))
    assert not matches(tmp_path / "set")
    assert images(tmp_path / "set").classes == CLASSES
    assert matches(tmp_path / "x.tgz")
    assert not matches(tmp_path / "captions.csv")


@real_photos
def test_real_photos_in_shards_equal_the_files(tmp_path):
    """COCO's val2017, packed by webdataset: the same images, captions and batches."""
    from clipbench.datamodules.coco import COCODataModule

    coco = COCODataModule(root=REAL, scheme="official")
    coco.prepare(0)
    split = coco.splits["test"]
    rows = [
        {"__key__": i.removesuffix(".jpg"), "jpg": path.read_bytes(), "json": {"captions": own}}
        for i, path, own in zip(split.ids, split.images, split.captions, strict=True)
    ]
    for k in range(3):
        write(tmp_path / f"test-{k}.tar", rows[k::3])
    packed = CaptionsDataModule(file=tmp_path)
    packed.prepare(0)
    found = packed.splits["test"]
    place = {i.removeprefix("test/"): k for k, i in enumerate(found.ids)}
    for k in range(0, len(split), 7):
        other = place[split.ids[k].removesuffix(".jpg")]
        assert list(found.captions[other]) == list(split.captions[k])
        assert np.array_equal(np.asarray(found.image(other)), np.asarray(split.image(k)))
    assert len(found) == 283
