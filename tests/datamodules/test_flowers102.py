import csv
import os
import socket
import tarfile
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import IO

import numpy as np
import pytest
from torchvision.datasets import Flowers102
from torchvision.datasets.utils import calculate_md5

from clipbench import paths
from clipbench.datamodules import flowers102
from clipbench.datamodules.flowers102 import Flowers102DataModule
from clipbench.errors import Refused

from .folders import flowers

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
        assert split.pictures == official._image_files
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


def test_other_metadata_than_the_official_is_refused(root):
    (root / "flowers-102" / "setid.mat").write_bytes(b"another split")
    with pytest.raises(Refused, match=r"setid\.mat"):
        Flowers102DataModule(root=root).prepare(0)


def unreachable(monkeypatch, url: str) -> None:
    monkeypatch.setattr(Flowers102, "_download_url_prefix", url)


def test_no_network_names_files_address_and_folder(tmp_path, monkeypatch):
    unreachable(monkeypatch, "http://127.0.0.1:9/flowers/")
    with pytest.raises(Refused) as refusal:
        Flowers102DataModule(root=tmp_path).prepare(0)
    wanted = "102flowers.tgz imagelabels.mat setid.mat http://127.0.0.1:9/flowers/ dataset.root"
    for text in [*wanted.split(), str(tmp_path / "flowers-102")]:
        assert text in str(refusal.value)
    assert not list(tmp_path.iterdir())


def test_a_server_that_never_answers_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(flowers102, "SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        unreachable(monkeypatch, f"http://127.0.0.1:{server.getsockname()[1]}/")
        started = time.monotonic()
        with pytest.raises(Refused, match="cannot be downloaded"):
            Flowers102DataModule(root=tmp_path).prepare(0)
        assert time.monotonic() - started < 5


def test_nothing_is_fetched_unless_asked_or_needed(root, tmp_path, monkeypatch):
    monkeypatch.setattr(Flowers102, "download", lambda _: pytest.fail("fetched"))
    Flowers102DataModule(root=root).prepare(0)
    with pytest.raises(Refused, match="is not there"):
        Flowers102DataModule(root=tmp_path / "empty", download=False).prepare(0)


class Oxford(SimpleHTTPRequestHandler):
    """Serves a folder; of the archive only what ``whole`` allows."""

    whole = True

    def log_message(self, *_: object) -> None:
        pass

    def copyfile(self, source: IO[bytes], outputfile: IO[bytes]) -> None:
        content = source.read()
        cut = not self.whole and self.path.endswith(".tgz")
        outputfile.write(content[: len(content) // 2] if cut else content)


@pytest.fixture
def oxford(root, tmp_path_factory, monkeypatch) -> Iterator[Path]:
    """A server with the miniature, to which torchvision's addresses lead."""
    served = tmp_path_factory.mktemp("served")
    home = root / "flowers-102"
    with tarfile.open(served / "102flowers.tgz", "w:gz") as archive:
        archive.add(home / "jpg", "jpg")
    for name in ("imagelabels.mat", "setid.mat"):
        (home / name).rename(served / name)
    archived = ("102flowers.tgz", calculate_md5(served / "102flowers.tgz"))
    monkeypatch.setattr(Flowers102, "_file_dict", {**Flowers102._file_dict, "image": archived})
    handler = partial(Oxford, directory=str(served))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        unreachable(monkeypatch, f"http://127.0.0.1:{server.server_port}/")
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield root
        server.shutdown()
        thread.join()


def test_an_absent_dataset_is_downloaded(oxford, tmp_path):
    data = Flowers102DataModule(root=tmp_path / "fresh")
    data.prepare(0)
    data.check()
    assert [len(split) for split in data.splits.values()] == [6, 6, 12]
    assert data.record().keys() == {"train", "val", "test"}


def test_a_download_that_is_cut_off_is_refused_and_tried_again(oxford, tmp_path, monkeypatch):
    data = Flowers102DataModule(root=tmp_path / "fresh")
    monkeypatch.setattr(Oxford, "whole", False)
    with pytest.raises(Refused, match="could not be downloaded"):
        data.prepare(0)
    monkeypatch.setattr(Oxford, "whole", True)
    data.prepare(0)
    assert len(data.splits["test"]) == 12


def test_a_failed_download_is_one_line(tmp_path, monkeypatch):
    def broken(_: object) -> None:
        raise RuntimeError("File not found or corrupted.")

    monkeypatch.setattr(flowers102, "_answers", lambda *_: True)
    monkeypatch.setattr(Flowers102, "download", broken)
    with pytest.raises(Refused, match=r"could not be downloaded \(File not found or corrupted"):
        Flowers102DataModule(root=tmp_path).prepare(0)
    assert socket.getdefaulttimeout() is None


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
    assert [record[name]["expected"] for name in ("train", "val", "test")] == [1020, 1020, 6149]
    assert (record["train"]["n"], record["val"]["n"]) == (1020, 1020)
    for name in ("train", "val"):
        assert np.bincount(data.splits[name].labels).tolist() == [10] * 102
    missing = record["test"]["n"] < 6149
    assert any("pictures of test" in warning for warning in data.warnings) == missing
