"""Archives are unpacked whole, into their folder, or refused with the member's name."""

import os
import stat
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from clipbench.core.errors import UserError
from clipbench.loading.download import archives
from clipbench.loading.download.archives import extract

GOOD = ("pictures/1.jpg", "pictures/sub/2.jpg", "labels.txt")


def tarred(path, members=(), mode="w:gz"):
    """A tar of names (files of three bytes) and of TarInfo as they are."""
    with tarfile.open(path, mode) as tar:
        for member in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            if info.isreg():
                info.size = 3
            tar.addfile(info, BytesIO(b"abc"))
    return path


def zipped(path, members=()):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
        for member in members:
            bundle.writestr(member, b"abc")
    return path


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def device(name, kind):
    info = tarfile.TarInfo(name)
    info.type, info.devmajor, info.devminor = kind, 1, 3
    return info


def unix(name, mode):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


def tree(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


@pytest.fixture
def folder(tmp_path):
    """A folder to unpack in, in one that must stay as it is."""
    (tmp_path / "outer" / "folder").mkdir(parents=True)
    (tmp_path / "outer" / "precious").write_text("mine")
    return tmp_path / "outer" / "folder"


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
def test_what_is_in_it_lands_in_the_folder(tmp_path, folder, mode):
    archive = tmp_path / "a"
    zipped(archive, GOOD) if mode == "zip" else tarred(archive, GOOD, mode)
    extract(archive, folder)
    assert tree(folder) == ["labels.txt", "pictures", *sorted(f"pictures/{n}" for n in
                            ("1.jpg", "sub", "sub/2.jpg"))]  # fmt: skip
    assert (folder / "labels.txt").read_bytes() == b"abc"


HOSTILE = {
    "above": ["../escaped"],
    "above, deep": ["a/../../escaped"],
    "above, with backslashes": ["..\\escaped"],
    "absolute": ["/tmp/clipbench-escaped"],
    "absolute, doubled": ["//tmp/clipbench-escaped"],
    "drive": ["C:\\escaped"],
    "share": ["\\\\server\\share\\escaped"],
    "link above": [link("a", "../../outer")],
    "link absolute": [link("a", "/etc/passwd")],
    "link, then through it": [link("a", ".."), "a/escaped"],
    "link by steps": [link("a", "."), link("a/b", ".."), "a/b/escaped"],
    "link in a folder": ["d/x", link("d/a", "../../precious")],
    "hard link": [link("a", "../precious", tarfile.LNKTYPE)],
    "hard link absolute": [link("a", "/etc/passwd", tarfile.LNKTYPE)],
    "hard link to nothing": [link("a", "nothing", tarfile.LNKTYPE)],
    "character device": [device("a", tarfile.CHRTYPE)],
    "block device": [device("a", tarfile.BLKTYPE)],
    "pipe": [device("a", tarfile.FIFOTYPE)],
    "case": ["a/X.jpg", "a/x.jpg"],
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_tar_escapes_nowhere(tmp_path, folder, members):
    archive = tarred(tmp_path / "a.tgz", ["fine.jpg", *members])
    last = members[-1] if isinstance(members[-1], str) else members[-1].name
    with pytest.raises(UserError) as refusal:
        extract(archive, folder)
    assert str(archive) in str(refusal.value)
    named = [m if isinstance(m, str) else m.name for m in members]
    assert any(name in str(refusal.value) for name in named), (last, str(refusal.value))
    assert tree(folder) == []
    assert tree(folder.parent) == ["folder", "precious"]
    assert (folder.parent / "precious").read_text() == "mine"
    assert not Path("/tmp/clipbench-escaped").exists()


ZIPS = {
    "above": ["../escaped"],
    "above, deep": ["a/../../escaped"],
    "backslashes": ["..\\escaped"],
    "absolute": ["/tmp/clipbench-escaped"],
    "drive": ["C:\\escaped"],
    "link": [unix("a", stat.S_IFLNK | 0o777)],
    "device": [unix("a", stat.S_IFCHR | 0o666)],
    "pipe": [unix("a", stat.S_IFIFO | 0o666)],
    "socket": [unix("a", stat.S_IFSOCK | 0o666)],
    "case": ["a/X.jpg", "a/x.jpg"],
}


@pytest.mark.parametrize("members", ZIPS.values(), ids=ZIPS.keys())
def test_a_zip_escapes_nowhere(tmp_path, folder, members):
    archive = zipped(tmp_path / "a.zip", ["fine.jpg", *members])
    with pytest.raises(UserError, match="is not unpacked"):
        extract(archive, folder)
    assert tree(folder.parent) == ["folder", "precious"]
    assert not Path("/tmp/clipbench-escaped").exists()


def test_links_that_lead_deeper_are_kept(tmp_path, folder):
    archive = tarred(
        tmp_path / "a.tar",
        ["d/1.jpg", link("latest", "d/1.jpg"), link("copy", "d/1.jpg", tarfile.LNKTYPE)],
    )
    extract(archive, folder)
    assert (folder / "latest").is_symlink()
    assert (folder / "latest").read_bytes() == (folder / "copy").read_bytes() == b"abc"


@pytest.mark.parametrize("kind", ["tgz", "tar", "zip", "text", "empty"])
def test_a_damaged_archive_is_refused_and_leaves_nothing(tmp_path, folder, kind):
    archive = tmp_path / "a"
    many = [f"p/{i}.jpg" for i in range(200)]
    if kind == "zip":
        content = bytearray(zipped(archive, many).read_bytes())
        content[40:60] = b"x" * 20
    elif kind in ("tgz", "tar"):
        content = tarred(archive, many, "w:gz" if kind == "tgz" else "w").read_bytes()
        content = content[: len(content) // 2 + 100]
    else:
        content = b"<html>log in</html>" if kind == "text" else b""
    archive.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        extract(archive, folder)
    assert tree(folder) == []


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_what_the_disk_cannot_take_is_refused(tmp_path, folder, kind, monkeypatch):
    path = tmp_path / "bomb"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
            for i in range(3):
                bundle.writestr(f"{i}", bytes(1_000_000))
    else:
        with tarfile.open(path, "w:gz") as tar:
            for i in range(3):
                info = tarfile.TarInfo(f"{i}")
                info.size = 1_000_000
                tar.addfile(info, BytesIO(bytes(1_000_000)))
    assert path.stat().st_size < 20_000
    free = archives._SPARE + 2_500_000
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: type("U", (), {"free": free})())
    with pytest.raises(UserError, match=r"more than the disk .* from 2 on"):
        extract(path, folder)
    assert tree(folder) == []


def test_too_many_members_are_refused(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(archives, "MEMBERS", 3)
    with pytest.raises(UserError, match="more than the disk"):
        extract(tarred(tmp_path / "a.tar", [str(i) for i in range(4)]), folder)


def test_a_folder_that_is_there_is_filled_up(tmp_path, folder):
    (folder / "annotations").mkdir()
    (folder / "annotations" / "own.json").write_text("{}")
    extract(zipped(tmp_path / "a.zip", ["annotations/a.json", "pictures/1.jpg"]), folder)
    assert tree(folder) == [
        *("annotations", "annotations/a.json", "annotations/own.json"),
        *("pictures", "pictures/1.jpg"),
    ]


def test_what_a_killed_attempt_left_is_cleared(tmp_path, folder):
    half = folder / ".a.zip.unpacking" / "pictures"
    half.mkdir(parents=True)
    (half / "half.jpg").write_bytes(b"ab")
    extract(zipped(tmp_path / "a.zip", ["pictures/1.jpg"]), folder)
    assert tree(folder) == ["pictures", "pictures/1.jpg"]


def test_a_top_folder_appears_whole(tmp_path, folder, monkeypatch):
    seen = []
    replace = Path.replace

    def watched(self, target):
        seen.append((self.name, tree(Path(target).parent)))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    extract(tarred(tmp_path / "a.tar", GOOD), folder)
    assert [name for name, _ in seen] == ["labels.txt", "pictures"]
    assert os.listdir(folder / "pictures")  # noqa: PTH208
