"""Files arrive whole under their final name, or not at all, whatever the server does."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from io import BytesIO
from pathlib import Path
from threading import Thread
from urllib.request import Request

import numpy as np
import pytest

from clipbench.core.errors import UserError
from clipbench.loading.download import http
from clipbench.loading.download.files import Remote, bring
from tests.servers import Site, serving

CONTENT = np.random.default_rng(0).bytes(300_000)
MD5 = hashlib.md5(CONTENT).hexdigest()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(http, "_PAUSE", 0.001)
    monkeypatch.setattr(http, "STALL", 0.3)
    monkeypatch.setattr(http, "ANSWER", 1.0)


@pytest.fixture
def site():
    with serving(Site({"/a.bin": CONTENT})) as found:
        yield found


@pytest.fixture
def target(tmp_path):
    return tmp_path / "a.bin"


def fetch(url, target, **checks):
    bring([Remote(url, target.name, **checks)], target.parent)


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_and_leaves_nothing_beside_it(site, target):
    fetch(f"{site.url}/a.bin", target, size=len(CONTENT), md5=MD5, sha256=SHA256)
    assert target.read_bytes() == CONTENT
    assert left(target.parent) == ["a.bin"]
    fetch(f"{site.url}/a.bin", target, md5=MD5)
    assert site.seen == [None]  # what is there is not asked for again


def test_it_goes_on_where_the_connection_was_cut(site, target):
    site.cut = 100_000
    fetch(f"{site.url}/a.bin", target, size=len(CONTENT), md5=MD5)
    assert target.read_bytes() == CONTENT
    assert site.seen == [None, "bytes=100000-", "bytes=200000-"]


def test_chunks_that_are_cut_are_known_to_be_cut(site, target):
    site.chunked, site.ranges, site.cut = True, False, 100_000
    with pytest.raises(UserError, match="cannot be fetched"):
        fetch(f"{site.url}/a.bin", target)
    assert "a.bin" not in left(target.parent)
    site.cut = None
    fetch(f"{site.url}/a.bin", target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("checked", [False, True])
def test_an_earlier_attempt_is_gone_on_with(site, target, checked):
    site.cut, site.status = 100_000, None
    part = Path(f"{target}.part")
    with pytest.raises(http.Failed):
        http.receive(f"{site.url}/nothing", part, None, False)
    part.write_bytes(CONTENT[:1000])
    if not checked:
        http.tag(part).write_text('"1"')
    site.cut = None
    site.seen.clear()
    fetch(f"{site.url}/a.bin", target, md5=MD5 if checked else None)
    assert site.seen == ["bytes=1000-"]
    assert target.read_bytes() == CONTENT
    assert left(target.parent) == ["a.bin"]


def test_without_tag_or_checksum_an_old_beginning_is_not_trusted(site, target):
    Path(f"{target}.part").write_bytes(b"of another file")
    fetch(f"{site.url}/a.bin", target)
    assert site.seen == [None]
    assert target.read_bytes() == CONTENT


def test_a_file_that_changed_in_between_is_fetched_anew(site, target):
    part = Path(f"{target}.part")
    part.write_bytes(b"x" * 1000)
    http.tag(part).write_text('"0"')
    fetch(f"{site.url}/a.bin", target)  # If-Range: the server answers with the whole
    assert site.seen == ["bytes=1000-"]
    assert target.read_bytes() == CONTENT


def test_a_wrong_beginning_is_found_by_the_checksum_and_fetched_anew(site, target):
    Path(f"{target}.part").write_bytes(b"x" * 1000)
    fetch(f"{site.url}/a.bin", target, size=len(CONTENT), md5=MD5)
    assert site.seen == ["bytes=1000-", None]
    assert target.read_bytes() == CONTENT


def test_a_beginning_that_is_too_long_is_thrown_away(site, target):
    Path(f"{target}.part").write_bytes(b"x" * (len(CONTENT) + 1))
    fetch(f"{site.url}/a.bin", target, size=len(CONTENT), md5=MD5)
    Path(f"{target}.part").write_bytes(b"x" * (len(CONTENT) + 1))
    target.unlink()
    fetch(f"{site.url}/a.bin", target, md5=MD5)  # 416, then from the start
    assert target.read_bytes() == CONTENT


def test_a_server_that_ignores_ranges_is_read_from_the_start(site, target):
    site.ranges = False
    Path(f"{target}.part").write_bytes(CONTENT[:1000])
    fetch(f"{site.url}/a.bin", target, md5=MD5)
    assert target.read_bytes() == CONTENT
    site.cut = 100_000
    target.unlink()
    with pytest.raises(UserError, match="cut off at 100,000 of 300,000"):
        fetch(f"{site.url}/a.bin", target, md5=MD5)
    assert "a.bin" not in left(target.parent)


@pytest.mark.parametrize("shift", [-500, 500])
def test_a_part_from_elsewhere_makes_no_hole(site, target, shift):
    site.shift = shift
    Path(f"{target}.part").write_bytes(CONTENT[:1000])
    fetch(f"{site.url}/a.bin", target, md5=MD5)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"size": 299_999}, "300,000 bytes are offered, 299,999 expected"),
        ({"md5": "0" * 32}, f"md5 {MD5}, not 000"),
        ({"sha256": "0" * 64}, f"sha256 {SHA256}, not 000"),
    ],
)
def test_another_file_is_refused(site, target, said, told):
    with pytest.raises(UserError, match=told):
        fetch(f"{site.url}/a.bin", target, **said)
    assert "a.bin" not in left(target.parent)


def test_a_web_page_is_not_a_data_set(site, target):
    site.kind = "text/html; charset=utf-8"
    with pytest.raises(UserError, match="sends a web page"):
        fetch(f"{site.url}/a.bin", target)
    fetch(f"{site.url}/a.bin", target, md5=MD5)


def test_a_stalled_server_is_not_waited_for(site, target, monkeypatch):
    monkeypatch.setattr(http, "TRIES", 2)
    site.stall, site.ranges = 100_000, False
    started = time.monotonic()
    with pytest.raises(UserError, match="timed out"):
        fetch(f"{site.url}/a.bin", target, md5=MD5)
    assert time.monotonic() - started < 5
    assert "a.bin" not in left(target.parent)
    site.stall = None
    fetch(f"{site.url}/a.bin", target, md5=MD5)


def test_a_server_that_never_answers_is_not_waited_for(target, monkeypatch):
    monkeypatch.setattr(http, "STALL", 9.0)
    monkeypatch.setattr(http, "ANSWER", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        started = time.monotonic()
        with pytest.raises(UserError, match="no answer in 0 s"):
            fetch(f"http://127.0.0.1:{server.getsockname()[1]}/a.bin", target)
        assert time.monotonic() - started < 3


def test_no_network_is_one_line_with_address_and_place(target):
    started = time.monotonic()
    with pytest.raises(UserError, match="Connection refused") as refusal:
        fetch("http://127.0.0.1:9/a.bin", target)
    assert time.monotonic() - started < 3
    assert "\n" not in str(refusal.value)
    assert refusal.value.details == [f"http://127.0.0.1:9/a.bin -> {target}"]


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_an_error_is_told(site, target, status):
    site.status = status
    with pytest.raises(UserError, match=f"HTTP {status}"):
        fetch(f"{site.url}/a.bin", target)
    assert len(site.seen) == 1


def test_redirects_lead_to_the_web_only(site, target, tmp_path):
    (tmp_path / "secret").write_text("not to be had")
    site.moved = {"/b": "/a.bin", "/c": f"file://{tmp_path}/secret", "/d": "ftp://127.0.0.1/x"}
    fetch(f"{site.url}/b", target, md5=MD5)
    for path in ("/c", "/d"):
        with pytest.raises(UserError, match=r"is not allowed|is not safe"):
            fetch(f"{site.url}{path}", tmp_path / "e")
    with pytest.raises(UserError, match="not an http address"):
        fetch(f"file://{tmp_path}/secret", tmp_path / "e")
    asked = Request("https://a/b")
    with pytest.raises(http.Failed, match="not safe"):
        http._Redirects().redirect_request(asked, BytesIO(), 302, "", {}, "http://a/c")


def test_a_disk_that_is_too_small_is_said_before(site, target, monkeypatch):
    monkeypatch.setattr(http.shutil, "disk_usage", lambda _: type("U", (), {"free": 1000})())
    with pytest.raises(UserError, match=r"too small.*make room"):
        fetch(f"{site.url}/a.bin", target, size=len(CONTENT))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_is_full_is_said(site, target):
    Path(f"{target}.part").symlink_to("/dev/full")
    with pytest.raises(UserError, match="is full; make room"):
        fetch(f"{site.url}/a.bin", target, size=len(CONTENT), md5=MD5)


CHILD = """
import sys
from pathlib import Path
from clipbench.loading.download.files import Remote, bring
url, target, size, md5 = sys.argv[1:]
bring([Remote(url, Path(target).name, int(size), md5)], Path(target).parent)
"""


def child(site, target):
    words = [f"{site.url}/a.bin", str(target), str(len(CONTENT)), MD5]
    return subprocess.Popen([sys.executable, "-c", CHILD, *words], stdout=subprocess.PIPE)


def test_a_killed_process_leaves_nothing_under_the_final_name(site, target):
    site.slow = 0.004
    part = Path(f"{target}.part")
    for least in (20_000, 60_000):  # each goes on where the one before was killed
        process = child(site, target)
        while http.length(part) < least:
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert not target.exists()
    site.slow = 0
    fetch(f"{site.url}/a.bin", target, size=len(CONTENT), md5=MD5)
    assert target.read_bytes() == CONTENT
    assert site.seen[0] is None
    assert all(asked is not None for asked in site.seen[1:])


def test_two_at_once_fetch_once(site, target):
    site.slow = 0.002
    processes = [child(site, target) for _ in range(2)]
    said = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert target.read_bytes() == CONTENT
    assert len(site.seen) == 1, said


def packed(names):
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, BytesIO(b"abc"))
    return buffer.getvalue()


def test_a_dataset_is_fetched_and_unpacked_once(site, tmp_path):
    archive = packed(["pictures/1.jpg", "pictures/2.jpg"])
    site.files |= {"/p.tgz": archive, "/labels": b"0 1"}
    files = [
        Remote(f"{site.url}/p.tgz", "set/p.tgz", unpack="set", makes=("set/pictures",)),
        Remote(f"{site.url}/labels", "set/labels", size=3),
    ]
    bring(files, tmp_path / "root")
    home = tmp_path / "root" / "set"
    assert left(home) == ["labels", "pictures"]
    assert left(home / "pictures") == ["1.jpg", "2.jpg"]
    bring(files, tmp_path / "root")
    assert len(site.seen) == 2


def test_an_archive_that_somebody_brought_is_checked_unpacked_and_kept(tmp_path):
    archive = packed(["pictures/1.jpg"])
    file = Remote(
        *("http://127.0.0.1:9/p.tgz", "p.tgz", len(archive)),
        md5=hashlib.md5(archive).hexdigest(),
        unpack=".",
        makes=("pictures",),
    )
    (tmp_path / "p.tgz").write_bytes(archive[:-1] + b"x")
    with pytest.raises(UserError, match=r"p\.tgz is there, but md5 .* delete it"):
        bring([file], tmp_path)
    (tmp_path / "p.tgz").write_bytes(archive)
    bring([file], tmp_path)
    assert left(tmp_path) == ["p.tgz", "pictures"]


def test_an_archive_that_holds_something_else_is_refused(site, tmp_path):
    site.files["/p.tgz"] = packed(["other/1.jpg"])
    file = Remote(f"{site.url}/p.tgz", "p.tgz", unpack=".", makes=("pictures",))
    with pytest.raises(UserError, match="does not hold pictures"):
        bring([file], tmp_path)


def test_all_files_that_are_missing_are_named_at_once(tmp_path):
    (tmp_path / "b").write_text("here")
    files = [Remote(f"http://127.0.0.1:9/{name}", name) for name in "abc"]
    with pytest.raises(UserError) as refusal:
        bring(files, tmp_path)
    for text in ("a, c cannot be fetched", "http://127.0.0.1:9/c", str(tmp_path), "dataset.root"):
        assert text in str(refusal.value)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Not a directory|File exists"):
        bring([Remote("http://127.0.0.1:9/a", "a")], tmp_path / "file" / "root")


def test_threads_of_one_process_wait_for_each_other_too(site, target):
    site.slow = 0.001
    job = {"size": len(CONTENT), "md5": MD5}
    threads = [Thread(target=fetch, args=(f"{site.url}/a.bin", target), kwargs=job) for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(site.seen) == 1
