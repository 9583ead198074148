import csv
import os
import tarfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import Flowers102
from torchvision.datasets.utils import calculate_md5

from clipbench.core import paths
from clipbench.core.errors import UserError
from clipbench.core.jobs import Job
from clipbench.datamodules.flowers102 import Flowers102DataModule
from clipbench.loading.download import http
from clipbench.training.run import execute
from tests.conftest import composed
from tests.datamodules.folders import flowers
from tests.servers import Site, serving

REAL = Path(os.environ.get("CLIPBENCH_DATA", "")) / "flowers102"
real_photos = pytest.mark.skipif(
    "CLIPBENCH_DATA" not in os.environ or not REAL.is_dir(), reason="no real photos at hand"
)


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    flowers(tmp_path)
    home = tmp_path / "flowers-102"
    files = {"label": "imagelabels.mat", "setid": "setid.mat"}
    sums = {key: (name, calculate_md5(home / name)) for key, name in files.items()}
    monkeypatch.setattr(Flowers102, "_file_dict", {**Flowers102._file_dict, **sums})
    return tmp_path


def test_splits_are_torchvisions_row_for_row(root):
    data = Flowers102DataModule(root=root)
    data.prepare(0)
    data.check()
    assert [len(split) for split in data.splits.values()] == [6, 6, 12]
    for name, split in data.splits.items():
        official = Flowers102(root, split=name)
        assert split.images == official._image_files
        assert split.labels.tolist() == official._labels
    assert min(data.splits["train"].labels) == 0
    assert data.splits["train"].ids[0].startswith("flowers-102/jpg/image_")


def test_names_are_clips_in_label_order(root):
    data = Flowers102DataModule(root=root)
    assert len(set(data.classes)) == 102
    pairs = zip(data.classes, Flowers102.classes, strict=True)
    assert {k: a for k, (a, b) in enumerate(pairs) if a != b} == {
        15: "globe flower",
        59: "pink and yellow dahlia",
        92: "air plant",
    }
    assert data.templates == ["a photo of a {}, a type of flower."]


def test_other_metadata_than_the_official_is_refused(root, monkeypatch):
    known(monkeypatch, "http://127.0.0.1:9", home=root / "flowers-102")
    (root / "flowers-102" / "setid.mat").write_bytes(b"another split")
    with pytest.raises(UserError, match=r"setid\.mat is not the official file, 13 bytes"):
        Flowers102DataModule(root=root).prepare(0)


def known(monkeypatch, url: str, archive: Path | None = None, home: Path | None = None) -> None:
    """Have the miniature's own sums for the official ones, and its files at another address."""
    files = []
    for file in Flowers102DataModule.files:
        name = file.name.rpartition("/")[2]
        path = archive if file.unpack else home and home / name
        sums = {"size": path.stat().st_size, "md5": calculate_md5(path)} if path else {}
        files.append(replace(file, url=f"{url}/{name}", **sums))
    monkeypatch.setattr(Flowers102DataModule, "files", tuple(files))


def test_addresses_and_sums_are_torchvisions():
    prefix = Flowers102._download_url_prefix
    theirs = {prefix + name: md5 for name, md5 in Flowers102._file_dict.values()}
    assert {file.url: file.md5 for file in Flowers102DataModule.files} == theirs


def test_no_network_names_files_address_and_folder(tmp_path, monkeypatch):
    known(monkeypatch, "http://127.0.0.1:9/flowers")
    started = time.monotonic()
    with pytest.raises(UserError) as refusal:
        Flowers102DataModule(root=tmp_path).prepare(0)
    assert time.monotonic() - started < 5
    wanted = "102flowers.tgz imagelabels.mat setid.mat http://127.0.0.1:9/flowers/ dataset.root"
    for text in [*wanted.split(), str(tmp_path)]:
        assert text in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_nothing_is_fetched_that_is_there(root, monkeypatch):
    known(monkeypatch, "http://127.0.0.1:9/flowers")
    Flowers102DataModule(root=root).prepare(0)


@pytest.fixture
def oxford(root, tmp_path_factory, monkeypatch) -> Iterator[Site]:
    """A server with the miniature, whose sums are taken for the official ones."""
    home = root / "flowers-102"
    archive = tmp_path_factory.mktemp("served") / "102flowers.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(home / "jpg", "jpg")
    files = {f"/{name}": (home / name).read_bytes() for name in ("imagelabels.mat", "setid.mat")}
    with serving(Site({**files, "/102flowers.tgz": archive.read_bytes()})) as site:
        known(monkeypatch, site.url, archive, home)
        monkeypatch.setattr(http, "_PAUSE", 0.001)
        yield site


def test_an_absent_dataset_is_downloaded(oxford, root, tmp_path):
    data = Flowers102DataModule(root=tmp_path / "fresh")
    data.prepare(0)
    data.check()
    assert [len(split) for split in data.splits.values()] == [6, 6, 12]
    assert data.record().keys() == {"train", "val", "test"}
    assert sorted(path.name for path in (tmp_path / "fresh" / "flowers-102").iterdir()) == [
        *("imagelabels.mat", "jpg", "setid.mat"),
    ]


def test_a_download_that_is_cut_off_is_refused_and_gone_on_with(oxford, tmp_path):
    data = Flowers102DataModule(root=tmp_path / "fresh")
    oxford.cut, oxford.ranges = 1000, False
    with pytest.raises(UserError, match=r"cannot be fetched \(cut off at 1,000 of"):
        data.prepare(0)
    assert not (tmp_path / "fresh" / "flowers-102" / "jpg").exists()
    oxford.cut, oxford.ranges = None, True
    oxford.seen.clear()
    data.prepare(0)
    assert oxford.seen[0] == "bytes=1000-"
    assert len(data.splits["test"]) == 12


def test_the_published_zero_shot_numbers_are_of_this_test_split():
    table = paths.EXPERIMENTS / "published" / "clip_benchmark.csv"
    rows = list(csv.DictReader(table.open()))
    name = Flowers102DataModule.published_name
    found = {row["pretrained"] for row in rows if row["dataset"] == name}
    assert {"openai", "laion400m_e32"} <= found
    for path in table.parent.glob("*.csv"):
        assert {row["verified"] for row in csv.DictReader(path.open())} <= {"yes", "secondhand"}


@real_photos
def test_the_real_photos():
    data = Flowers102DataModule(root=REAL)
    data.prepare(0)
    data.check()
    record = data.record()
    assert [record[name].expected for name in ("train", "val", "test")] == [1020, 1020, 6149]
    assert (record["train"].n, record["val"].n) == (1020, 1020)
    for name in ("train", "val"):
        assert np.bincount(data.splits[name].labels).tolist() == [10] * 102
    missing = record["test"].n < 6149
    assert any("images of test" in warning for warning in data.warnings) == missing


@real_photos
def test_the_blogs_run_is_refused_for_its_warmup_before_weights_are_asked_for(outputs):
    """The source blog has under 5 % on Flowers102 and does not say why."""
    words = ["experiment=blog_flowers102_as_published"]
    choices = {"model": "clip_vitb32", "dataset": "flowers102", "strategy": "finetune"}
    outcome = execute(Job(composed(*words), choices, words, outputs))
    assert outcome.status == "failed"
    assert "warm-up of 500 steps never ends in a run of 20 steps" in outcome.error
    assert "4% of lr=3e-05; use warmup_steps=null warmup=0.1" in outcome.error
    assert not (outputs / "runs").exists()
