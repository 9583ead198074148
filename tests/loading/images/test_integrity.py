"""Every kind of file: decoded to what a person sees, or refused by path and reason."""

import io
import os
import tarfile
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg

from clipbench.loading.images import contents, integrity
from clipbench.loading.images.contents import faults
from clipbench.loading.images.decoding import EXTENSIONS, Member, as_read, content, pixels, read
from clipbench.loading.images.integrity import survey
from tests import image_kinds
from tests.image_kinds import RANGE, encoded, photo

GOOD, BAD = image_kinds.good(), image_kinds.bad()
PLAIN = encoded(photo(), "JPEG")


@pytest.fixture
def written(tmp_path):
    """Writes bytes to a file and gives its path; the name's ending says nothing of the format."""

    def write(data, name="a.jpg"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def written_all(folder, contents):
    """A file for each name, and the names by path."""
    names = {folder / f"{i:04}.jpg": name for i, name in enumerate(contents)}
    for path, name in names.items():
        path.write_bytes(contents[name])
    return names


def as_array(tensor):
    return tensor.permute(1, 2, 0).numpy()


# images that are odd, and good


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_what_a_person_sees(written, name):
    data, seen = GOOD[name]
    path = written(data)
    image = read(path, RANGE)
    assert image.mode == "RGB"
    assert np.abs(np.asarray(image).astype(int) - seen).max() <= 1
    # An image that somebody has opened is the same, once and again, and when it was read before.
    with Image.open(path) as opened:
        looks = [as_read(opened, RANGE), as_read(image, RANGE)]
        if "16-bit" not in name:  # of whose loaded colours Pillow has kept the high byte alone
            looks.append(as_read(opened, RANGE))
    assert all(np.array_equal(np.asarray(look), np.asarray(image)) for look in looks)
    quick = pixels(path, RANGE)
    assert quick.dtype == torch.uint8
    assert np.abs(as_array(quick).astype(int) - np.asarray(image)).max() <= 1


def test_odd_images_pass_both_looks(tmp_path, capfd, recwarn):
    names = written_all(tmp_path, {name: data for name, (data, _) in GOOD.items()})
    assert {names[path]: reason for path, reason in faults(list(names), RANGE).items()} == {}
    found = survey(list(names), value_range=RANGE)
    assert {names[Path(r.path)]: r.reason for r in found.itertuples() if r.reason} == {}
    for path, width, height in zip(names, found["width"], found["height"], strict=True):
        assert (height, width, 3) == GOOD[names[path]][1].shape, names[path]
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_a_plain_photo_is_what_pillow_reads(written):
    for data in (PLAIN, encoded(photo()[..., 0], "JPEG"), encoded(photo(), "PNG")):
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        assert np.array_equal(np.asarray(read(written(data))), expected)


def real_photos():
    root = os.environ.get("CLIPBENCH_DATA")
    found = sorted(Path(root).rglob("*.jpg"))[::25] if root else []
    return found or pytest.skip("needs real photos: set CLIPBENCH_DATA")


def test_real_photos_by_the_quick_way_and_by_pillow():
    for path in real_photos():
        expected = np.asarray(Image.open(path).convert("RGB"))
        assert np.array_equal(np.asarray(read(path)), expected), path
        assert np.abs(as_array(pixels(path)).astype(int) - expected).max() <= 1, path


def test_real_photos_are_good():
    photos = real_photos()
    assert faults(photos) == {}
    assert survey(photos)["reason"].isna().all()


# files that are no whole image


@pytest.fixture(scope="module")
def looked_at(tmp_path_factory):
    """Both looks' reasons by the name of the malformed image."""
    names = written_all(
        tmp_path_factory.mktemp("bad"), {name: data for name, (data, *_) in BAD.items()}
    )
    quick = {names[path]: reason for path, reason in faults(list(names)).items()}
    full = survey(list(names))
    return quick, {names[Path(r.path)]: r.reason for r in full.itertuples()}


def test_there_are_enough_kinds():
    assert len(BAD) >= 60
    assert len({data for data, *_ in BAD.values()}) == len(BAD)


@pytest.mark.parametrize("name", BAD)
def test_a_malformed_image_is_found(looked_at, name):
    quick, full = looked_at
    _, look, why = BAD[name]
    assert full[name]
    assert why in full[name]
    assert ";" in full[name], "the reason does not say what to do"
    assert quick.get(name) == (full[name] if look == "quick" else None)


def test_nothing_is_printed_of_malformed_images(tmp_path, capfd, recwarn):
    names = written_all(tmp_path, {name: data for name, (data, *_) in BAD.items()})
    assert faults(list(names))
    assert survey(list(names))["reason"].notna().all()
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    os.write(2, b"what is printed later is shown")
    assert capfd.readouterr().err == "what is printed later is shown"


def test_files_that_cannot_be_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to("nowhere")
    expected = {
        tmp_path / "gone.jpg": "No such file or directory; replace it",
        tmp_path / "link.jpg": "No such file or directory; replace it",
        tmp_path: "not a regular file; replace it",
        tmp_path / "pipe.jpg": "not a regular file; replace it",
    }
    assert faults(list(expected)) == expected
    found = survey(list(expected), tmp_path / "manifest.parquet")
    assert list(found["reason"]) == list(expected.values())
    assert found[["size", "mtime_ns", "sha256", "width", "mode"]].isna().to_numpy().all()


def test_a_file_too_large_is_not_read(written, monkeypatch):
    path = written(PLAIN)
    monkeypatch.setattr(integrity, "MAX_BYTES", 2**10)
    monkeypatch.setattr(integrity, "content", lambda _: pytest.fail("read"))
    path.write_bytes(bytes(2**10 + 1))
    assert "larger than" in faults([path])[path]
    assert "larger than" in survey([path])["reason"][0]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_every_truncation_is_found(tmp_path, kind):
    image = Image.fromarray(photo(60, 80))
    whole = encoded(image.convert("P") if kind == "GIF" else image, kind)
    cuts = sorted({1, 2, 3, 12, *range(20, len(whole), len(whole) // 40)})
    names = written_all(tmp_path, {cut: whole[:-cut] for cut in cuts})
    assert set(faults(list(names))) == set(names)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF"])
def test_a_tail_of_zeros_is_found(tmp_path, kind):
    whole = encoded(Image.fromarray(photo()).convert("P" if kind == "GIF" else "RGB"), kind)
    cuts = (1, 2, 100, len(whole) // 2)
    names = written_all(tmp_path, {cut: whole[:-cut] + bytes(cut) for cut in cuts})
    assert set(faults(list(names))) == set(names)


def test_bombs_take_no_memory(written):
    """Both looks and read() of every bomb, within 300 MB of what the process had before."""
    bombs = {n: data for n, (data, *_) in BAD.items() if "bomb" in n}
    assert len(bombs) >= 10
    paths = [written(data, f"{i}.png") for i, data in enumerate(bombs.values())]
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    try:
        reset.write_text("5")  # the peak begins anew
    except OSError:
        pytest.skip("this system does not tell a process's peak of memory")

    def kilobytes(kind):
        return next(int(x.split()[1]) for x in status.open() if x.startswith(kind))

    before = kilobytes("VmRSS:")
    assert len(faults(paths)) == len(paths) - 1  # within a TIFF only decoding shows it
    assert survey(paths)["reason"].notna().all()
    for path in paths:
        for way in (read, pixels):
            assert decoded(way, path) is None
    assert kilobytes("VmHWM:") - before < 300_000


def test_a_decoder_may_raise_anything(written, monkeypatch):
    def load(_):
        raise SyntaxError("as old Pillows do")

    path = written(encoded(photo(), "PNG"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    assert survey([path])["reason"][0] == "as old Pillows do; replace it"


def test_the_look_before_a_run_reads_the_ends_of_a_file_and_all_of_what_is_uncompressed(
    written, monkeypatch
):
    noise = np.random.default_rng(0).integers(0, 256, (900, 1100, 3), np.uint8)
    kinds = {"JPEG": {"quality": 95}, "PNG": {}, "TIFF": {}, "BMP": {}, "PPM": {}}
    paths = {
        kind: written(encoded(noise, kind, **options), kind) for kind, options in kinds.items()
    }
    taken = dict.fromkeys(paths.values(), 0)

    class Counted(io.FileIO):
        def read(self, size=-1):
            found = super().read(size)
            taken[Path(self.name)] += len(found)
            return found

    monkeypatch.setattr(contents, "opened", lambda path, buffering: Counted(path))
    assert faults([*paths.values()]) == {}
    for kind, path in paths.items():
        if kind in ("JPEG", "PNG"):
            assert 2 * contents.BLOCK <= taken[path] < 2.1 * contents.BLOCK
        else:
            assert taken[path] >= path.stat().st_size


def one_pixel_apart(kind, **options):
    """Two images that differ in the centre pixel alone."""
    pixels = np.random.default_rng(3).integers(0, 256, (301, 301, 3), np.uint8)
    other = pixels.copy()
    other[150, 150] ^= 1
    return encoded(pixels, kind, **options), encoded(other, kind, **options)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *(("BMP", {}), ("TIFF", {}), ("TIFF", {"big_tiff": True}), ("PPM", {})),
        *(("PNG", {"compress_level": 0}), ("PNG", {})),
    ],
)
def test_a_pixel_amid_an_image_is_other_content(tmp_path, kind, options):
    first, second = one_pixel_apart(kind, **options)
    paths = [tmp_path / name for name in ("one", "other", "again")]
    for path, found in zip(paths, (first, second, first), strict=True):
        path.write_bytes(found)
    one, other, again = contents.looks(paths).values()
    assert one == again
    assert one.digest != other.digest
    assert (one.reason, other.reason) == (None, None)


def test_a_look_is_kept_until_a_file_changes_however_its_time_is_set(tmp_path, monkeypatch):
    first, second = one_pixel_apart("BMP")
    path, cache = tmp_path / "a.bmp", tmp_path / "kept.json"
    path.write_bytes(first)
    before = contents.looks([path], cache=cache)
    with monkeypatch.context() as patch:
        patch.setattr(contents, "opened", None)  # nothing is opened twice
        assert contents.looks([path], cache=cache) == before
    about = path.stat()
    path.write_bytes(second)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (about.st_size, about.st_mtime_ns)
    after = contents.looks([path], cache=cache)[path]
    assert after.digest != before[path].digest
    for torn in (b"", b"[]", b"{", b'{"a": [1]}'):
        cache.write_bytes(torn)
        assert contents.looks([path], cache=cache)[path] == after


# what random damage does


def decoded(way, path):
    """The pixels, or None where they are refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return np.asarray(way(path))
        except Exception:
            return None


def libjpeg_warns(data, capfd):
    """Whether torchvision's libjpeg says a word: an account of its own, one image at a time."""
    capfd.readouterr()
    with suppress(RuntimeError):
        decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
    return bool(capfd.readouterr().err)


def test_a_thousand_mutants(tmp_path, capfd, recwarn):
    cases = list(image_kinds.mutants(1_000))
    cache = tmp_path / "manifest.parquet"
    paths = list(written_all(tmp_path, dict(enumerate(whole for *_, whole, _ in cases))))
    assert survey(paths, cache)["reason"].isna().all()
    for path, (*_, mutant) in zip(paths, cases, strict=True):
        path.write_bytes(mutant)
    quick, full = faults(paths), survey(paths, cache)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    counts = dict.fromkeys(("quick", "full", "same pixels", "undetectable"), 0)
    for path, (kind, how, whole, mutant), row in zip(paths, cases, full.itertuples(), strict=True):
        assert row.path == str(path)
        assert row.changed, "its hash was stored before it was damaged"
        assert quick.get(path) in (None, row.reason)
        seen = decoded(read, path)
        by_pixels = decoded(lambda p: as_array(pixels(p)), path)
        assert (seen is None) == (by_pixels is None), (kind, how)
        assert seen is None or np.abs(seen.astype(int) - by_pixels).max() <= 1
        if how == "cut" and kind.split()[0] != "tiff":  # whose end need hold nothing
            assert row.reason, (kind, how)
        if row.reason:
            counts["quick" if path in quick else "full"] += 1
            assert ";" in row.reason
            continue
        assert seen is not None, (kind, how)
        assert seen.shape[:2] == (row.height, row.width)
        assert not (mutant.startswith(b"\xff\xd8") and libjpeg_warns(mutant, capfd)), (kind, how)
        path.write_bytes(whole)
        same = np.array_equal(seen, decoded(read, path))
        counts["same pixels" if same else "undetectable"] += 1
    assert sum(counts.values()) == 1_000
    assert min(counts.values()) > 0, counts
    with capfd.disabled():
        print(f"\n{counts}")


# the manifest


@pytest.fixture
def reads(monkeypatch):
    """The names of the files whose bytes the survey has taken."""
    taken = []

    def noted(source):
        taken.append(source.name)
        return content(source)

    monkeypatch.setattr(integrity, "content", noted)
    return taken


def test_a_second_survey_reads_only_what_changed(tmp_path, written, reads):
    paths = [written(PLAIN, f"{i}.jpg") for i in range(4)] + [written(b"no", "x.jpg")]
    cache = tmp_path / "deep" / "manifest.parquet"
    first = survey(paths, cache)
    assert sorted(reads) == sorted(p.name for p in paths)
    reads.clear()
    again = survey(paths, cache)
    assert reads == []
    assert again.equals(first)
    assert not first["changed"].any()
    written(PLAIN + b"behind it", "1.jpg")
    written(PLAIN[:-2], "2.jpg")
    os.utime(paths[3], ns=(5, 5))
    third = survey(paths, cache)
    assert sorted(reads) == ["1.jpg", "2.jpg", "3.jpg"]
    assert list(third["changed"]) == [False, True, True, False, False]
    assert [bool(reason) for reason in third["reason"]] == [False, False, True, False, True]
    assert not survey(paths, cache)["changed"].any()
    assert list(cache.parent.iterdir()) == [cache]


def test_a_survey_of_some_files_keeps_what_is_known_of_others(tmp_path, written, reads):
    paths = [written(PLAIN, f"{i}.jpg") for i in range(3)]
    cache = tmp_path / "manifest.parquet"
    survey(paths, cache)
    assert list(survey(paths[1:2], cache)["path"]) == [str(paths[1])]
    reads.clear()
    survey(paths, cache)
    assert reads == []


def test_another_range_of_values_is_another_survey(tmp_path, written, reads):
    cache, path = tmp_path / "manifest.parquet", written(GOOD["tiff float"][0])
    assert "value_range" in survey([path], cache)["reason"][0]
    assert survey([path], cache, RANGE)["reason"][0] is None
    assert "value_range" in survey([path], cache)["reason"][0]
    assert len(reads) == 3


def test_a_damaged_manifest_is_made_anew(tmp_path, written, reads):
    cache, path = tmp_path / "manifest.parquet", written(PLAIN)
    for damage in (b"", b"PAR1 not a table PAR1"):
        cache.write_bytes(damage)
        assert survey([path], cache)["reason"][0] is None
    assert len(reads) == 2
    survey([path], cache)
    assert len(reads) == 2


def test_a_survey_cut_short_keeps_what_it_has(tmp_path, written, reads, monkeypatch):
    monkeypatch.setattr(integrity, "BLOCK", 2)
    paths = [written(PLAIN, f"{i}.jpg") for i in range(6)]
    cache = tmp_path / "manifest.parquet"

    def interrupted(files, *_, **__):
        for i, file in enumerate(files):
            if i == 4:
                raise KeyboardInterrupt
            yield file

    monkeypatch.setattr(integrity, "LONG_WORK", 1)
    monkeypatch.setattr(integrity, "track", interrupted)
    with pytest.raises(KeyboardInterrupt):
        survey(paths, cache)
    monkeypatch.setattr(integrity, "LONG_WORK", 100)
    reads.clear()
    survey(paths, cache)
    assert sorted(reads) == ["4.jpg", "5.jpg"]


def test_what_there_was_no_time_for_is_left_to_a_survey_without_a_limit(tmp_path, written, reads):
    paths = [written(PLAIN, f"{i}.jpg") for i in range(3)] + [written(b"no", "x.jpg")]
    cache = tmp_path / "manifest.parquet"
    none = survey(paths, cache, seconds=0)
    assert reads == []
    assert none[["sha256", "reason"]].isna().all(axis=None)
    new = written(PLAIN, "new.jpg")
    later = survey([*paths, new], cache, seconds=600)
    assert reads == ["new.jpg"]
    assert list(later["sha256"].isna()) == [True] * 4 + [False]
    whole = survey([*paths, new], cache)
    assert sorted(reads) == ["0.jpg", "1.jpg", "2.jpg", "new.jpg", "x.jpg"]
    assert [bool(reason) for reason in whole["reason"]] == [False] * 3 + [True, False]
    assert not whole["changed"].any()
    assert survey([*paths, new], cache, seconds=0).equals(whole)


def test_the_survey_of_nothing(tmp_path):
    found = survey([], tmp_path / "manifest.parquet")
    columns = "path size mtime_ns sha256 width height mode reason changed"
    assert list(found) == columns.split()
    assert len(found) == 0


def test_a_name_that_is_no_text(tmp_path, written, reads):
    path = written(PLAIN, os.fsdecode(b"\xff.jpg"))
    for _ in range(2):
        assert survey([path], tmp_path / "manifest.parquet")["reason"][0] is None
    assert len(reads) == 2
    assert faults([path]) == {}


# images inside tar files


@pytest.fixture
def shard(tmp_path):
    """A tar file of three images and its members."""
    data = {"a.jpg": PLAIN, "b.png": GOOD["png rgba"][0], "c.jpg": PLAIN[:-2]}
    path = tmp_path / "shard-000.tar"
    with tarfile.open(path, "w") as tar:
        for name, found in data.items():
            info = tarfile.TarInfo(name)
            info.size = len(found)
            tar.addfile(info, io.BytesIO(found))
    with tarfile.open(path) as tar:
        members = [Member(path, m.offset_data, m.size, m.name) for m in tar]
    return path, members, list(data.values())


def test_members_of_a_tar_file(shard, tmp_path):
    path, members, data = shard
    assert [content(member) for member in members] == data
    assert str(members[1]) == f"{path}#b.png"
    first, second = members[:2]
    assert np.array_equal(read(first), Image.open(io.BytesIO(PLAIN)))
    assert np.abs(np.asarray(read(second)).astype(int) - GOOD["png rgba"][1]).max() <= 1
    assert np.array_equal(as_array(pixels(first)), read(first))
    assert list(faults(members)) == members[2:]
    found = survey(members, tmp_path / "manifest.parquet")
    assert list(found["path"]) == [str(member) for member in members]
    assert list(found["size"]) == [len(d) for d in data]
    assert [bool(reason) for reason in found["reason"]] == [False, False, True]


def test_a_tar_file_cut_within_a_member(shard):
    path, members, _ = shard
    os.truncate(path, members[1].offset + 20)
    said = "cut off: shard-000.tar ends within it; bring the tar file again"
    assert faults(members[:2]) == {members[1]: said}
    with pytest.raises(OSError, match="ends within it"):
        content(members[1])


# the rest


def test_faults_come_in_the_order_given_each_once(tmp_path):
    names = written_all(tmp_path, {i: PLAIN[: -(i % 3)] or PLAIN for i in range(30)})
    paths = list(names)
    expected = [path for path, i in names.items() if i % 3]
    assert list(faults(paths + paths[::-1])) == expected


@pytest.mark.parametrize("kind", ["gif animated", "tiff tiff_lzw", "mpo", "webp animated"])
def test_reading_leaves_no_file_open(written, kind):
    path = written(GOOD[kind][0])
    handles = Path("/proc/self/fd")
    before = len(list(handles.iterdir())) if handles.is_dir() else 0
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        kept = [(read(path), faults([path]), survey([path])) for _ in range(5)]
    after = len(list(handles.iterdir())) if before else 0
    assert after == before
    assert kept[0][0].getpixel((3, 3))


def test_extensions_are_those_of_the_formats():
    assert {".jpg", ".jpeg", ".png", ".webp", ".tif", ".ppm"} <= EXTENSIONS
