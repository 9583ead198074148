"""Decoded images kept on disk give what decoding anew gives, to the last bit, or are not used."""

import fcntl
import json
import multiprocessing
import os
import pickle
import shutil
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from clipbench.loading import cache
from clipbench.loading.dataset import ImageDataset, collate
from clipbench.loading.samplers import KeyedSampler
from clipbench.loading.split import Split
from clipbench.transforms.augment import Augment
from clipbench.transforms.preprocess import Preprocess, View

PREPROCESS = Preprocess(size=24, resize=28, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
VIEWS = {
    "evaluation": View(PREPROCESS),
    "pad": View(PREPROCESS.with_mode("pad")),
    "flip": View(PREPROCESS, Augment(hflip=0.5)),
    "crop and flip": View(PREPROCESS, Augment(scale=(0.3, 1.0), hflip=0.5)),
    "randaugment and erasing": View(PREPROCESS, Augment(randaugment="rand-m9", erasing=0.5)),
    "crop of squashed": View(PREPROCESS.with_mode("squash"), Augment(scale=(0.3, 1.0))),
}
COUNT = 13


@pytest.fixture
def split(tmp_path):
    """Photos and drawings of many sizes, in the formats that take different ways in."""
    generator = np.random.default_rng(0)
    found = []
    for i in range(COUNT):
        pixels = generator.integers(0, 256, (30 + 5 * i, 70 - 3 * i, 3), dtype=np.uint8)
        image = Image.fromarray(pixels)
        path = tmp_path / f"{i:02d}{('.jpg', '.png', '.gif')[i % 3]}"
        exif = Image.Exif()
        exif[0x0112] = 6 if i == 3 else 1  # one was taken with the camera on its side
        image.convert("L" if i == 6 else "RGB").save(path, **({"exif": exif} if not i % 3 else {}))
        found.append(path)
    return Split([p.name for p in found], np.arange(COUNT) % 3, found, COUNT)


def epochs(images, workers, count=2):
    sampler = KeyedSampler(len(images), seed=5)
    loader = DataLoader(
        images, batch_size=4, sampler=sampler, num_workers=workers, collate_fn=collate
    )
    seen = []
    for epoch in range(count):
        sampler.set_epoch(epoch)
        seen += list(loader)
    return seen


def folders(outputs):
    return sorted(p for p in (outputs / "cache").iterdir() if p.is_dir())


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("decoder", ["torchvision", "pillow"])
@pytest.mark.parametrize("view", VIEWS)
def test_whole_epochs_are_bit_identical(outputs, split, view, decoder, workers):
    plain = ImageDataset(split, VIEWS[view], 7, decoder=decoder)
    kept = ImageDataset(split, VIEWS[view], 7, decoder=decoder, cache_gb=1.0)
    assert kept.kept is not None
    expected = epochs(plain, workers)
    for path in split.images:  # what is not read again may be anything
        os.truncate(path, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = epochs(kept, workers)
    assert len(found) == len(expected) == 8
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_second_job_reads_what_the_first_made(outputs, split, monkeypatch):
    ImageDataset(split, VIEWS["evaluation"], cache_gb=1.0)
    (made,) = folders(outputs)
    before = {p.name: (p.stat().st_mtime_ns, p.stat().st_mode & 0o222) for p in made.iterdir()}
    assert before["pixels"][1] == before["shapes.npy"][1] == 0, "the pixels can be written"
    monkeypatch.setattr(Split, "pixels", None)
    again = ImageDataset(split, VIEWS["flip"], cache_gb=1.0)  # the flip comes after what is kept
    assert len([again[0, i, 0] for i in range(COUNT)]) == COUNT
    assert folders(outputs) == [made]
    assert {p.name: p.stat().st_mtime_ns for p in made.iterdir()} == {
        name: time for name, (time, _) in before.items()
    }


def key_of(split, view="evaluation", **options):
    return ImageDataset(split, VIEWS[view], cache_gb=1.0, **options).kept.folder.name


def test_all_that_changes_a_pixel_changes_the_key(outputs, split):
    keys = [
        key_of(split),
        key_of(split, decoder="pillow"),
        key_of(split, value_range=(0.0, 9.0)),
        key_of(split, "pad"),
        key_of(split, "crop and flip"),
        key_of(split.take(np.arange(COUNT)[::-1])),
        key_of(split.take(np.arange(COUNT - 1))),
    ]
    # another time, another size, and another of the same size and time
    os.utime(split.images[2], ns=(0, 1))
    keys.append(key_of(split))
    split.images[2].write_bytes(split.images[2].read_bytes() + b"\0")
    os.utime(split.images[2], ns=(0, 1))
    keys.append(key_of(split))
    assert len(set(keys)) == len(keys)
    assert key_of(split, "flip") == keys[-1]


SPOILT = {
    "cut off": lambda home: os.truncate(home / "pixels", 100),
    "grown": lambda home: os.truncate(home / "pixels", 10**6),
    "overwritten": lambda home: (home / "pixels").write_bytes(
        b"\0" * (home / "pixels").stat().st_size
    ),
    "no shapes": lambda home: (home / "shapes.npy").unlink(),
    "foreign": lambda home: (home / "about.json").write_text(json.dumps({"layout": 0})),
    "no JSON": lambda home: (home / "about.json").write_text("{"),
    "without its word": lambda home: (home / "about.json").unlink(),
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_torn_or_foreign_file_is_never_used(outputs, split, how):
    expected = torch.stack(
        [ImageDataset(split, VIEWS["evaluation"])[i]["image"] for i in range(COUNT)]
    )
    ImageDataset(split, VIEWS["evaluation"], cache_gb=1.0)
    (home,) = folders(outputs)
    for path in home.iterdir():
        path.chmod(0o644)
    SPOILT[how](home)
    again = ImageDataset(split, VIEWS["evaluation"], cache_gb=1.0)
    assert torch.equal(torch.stack([again[i]["image"] for i in range(COUNT)]), expected)


def test_making_it_is_all_or_nothing(outputs, split, monkeypatch):
    split.images[-1].write_bytes(b"not an image")
    with pytest.raises(Exception, match=split.images[-1].name):
        ImageDataset(split, VIEWS["evaluation"], cache_gb=1.0)
    assert folders(outputs) == []
    left = outputs / "cache" / f"{key_of(split.take(np.arange(5)))}.0.part"
    left.mkdir()
    shutil.rmtree(left.with_name(left.name[:16]))
    key_of(split.take(np.arange(5)))
    assert not left.exists(), "what a killed job left lies there for ever"


def make(split, started, outputs):
    os.environ["CLIPBENCH_OUTPUTS"] = str(outputs)
    torch.set_num_threads(1)
    started.wait(30)
    images = ImageDataset(split, VIEWS["evaluation"], cache_gb=1.0)
    assert torch.equal(images[3]["image"], ImageDataset(split, VIEWS["evaluation"])[3]["image"])


def refused(file, how):
    raise OSError("no locks here")


@pytest.mark.parametrize("locks", [True, False])
def test_jobs_that_start_together_are_safe(outputs, split, locks, monkeypatch):
    if not locks:
        monkeypatch.setattr(fcntl, "flock", refused)
    context = multiprocessing.get_context("fork")
    started = context.Event()
    jobs = [context.Process(target=make, args=(split, started, outputs)) for _ in range(3)]
    for job in jobs:
        job.start()
    started.set()
    for job in jobs:
        job.join(60)
    assert [job.exitcode for job in jobs] == [0, 0, 0]
    (home,) = folders(outputs)
    assert {p.name for p in home.iterdir()} == {"about.json", "pixels", "shapes.npy"}


def test_what_does_not_fit_is_decoded_each_time_and_said_once(outputs, split, capsys, monkeypatch):
    bytes_each = 3 * 24 * 24
    fits = COUNT * bytes_each / cache.GB
    assert ImageDataset(split, VIEWS["evaluation"], cache_gb=fits).kept is not None
    # a second cache, though it would fit alone
    assert ImageDataset(split, VIEWS["pad"], cache_gb=fits).kept is None
    said = capsys.readouterr().out
    assert said.startswith("no cache of decoded images: it would take more than dataset.cache_gb")
    assert "are taken in" in said
    assert len(said.splitlines()) == 1
    whole = sum(3 * np.prod(Image.open(p).size) for p in split.images)
    assert ImageDataset(split, VIEWS["crop and flip"], cache_gb=whole / cache.GB).kept is None
    assert (
        ImageDataset(split, VIEWS["crop and flip"], cache_gb=whole / cache.GB + fits).kept
        is not None
    )
    usage = shutil.disk_usage(outputs)
    tight = usage._replace(free=2 * COUNT * bytes_each - 1)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: tight)
    capsys.readouterr()
    assert ImageDataset(split, VIEWS["pad"], cache_gb=1.0).kept is None
    assert "more than half of the 0.0 GB free on the disk" in capsys.readouterr().out
    assert ImageDataset(split, VIEWS["pad"])[0]["image"].shape == (3, 24, 24)


def test_pixels_in_memory_and_a_limit_of_0_keep_nothing(outputs, split):
    drawn = replace(split, images=np.zeros((COUNT, 30, 40, 3), np.uint8))
    assert ImageDataset(drawn, VIEWS["evaluation"], cache_gb=1.0).kept is None
    assert ImageDataset(split, VIEWS["evaluation"]).kept is None
    assert not (outputs / "cache").exists()


def test_a_worker_is_sent_the_place_and_not_the_pixels(outputs, split):
    images = ImageDataset(split, VIEWS["evaluation"], cache_gb=1.0)
    first = images[0]["image"]
    sent = pickle.dumps(images.kept)
    assert len(sent) < 2_000
    assert torch.equal(images.view.finish(pickle.loads(sent)(0)), first)
