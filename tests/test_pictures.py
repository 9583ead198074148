import io
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipbench.pictures import EXTENSIONS, MAX_PIXELS, fault, faults, read


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    y, x = np.mgrid[:60, :80]
    waves = [127 + 120 * np.sin(x / a + y / b) for a, b in ((5, 9), (7, -11), (13, 6))]
    noise = np.random.default_rng(0).normal(0, 8, (60, 80, 3))
    return Image.fromarray((np.stack(waves, -1) + noise).clip(0, 255).astype(np.uint8))


def written(folder: Path, content: bytes, name: str = "a.jpg") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "RGB", {}),
        ("JPEG", "RGB", {"progressive": True}),
        ("JPEG", "RGB", {"restart_marker_blocks": 3}),
        ("JPEG", "L", {}),
        ("JPEG", "CMYK", {}),
        ("MPO", "RGB", {}),
        ("PNG", "RGB", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "LA", {}),
        ("PNG", "P", {}),
        ("PNG", "1", {}),
        ("WEBP", "RGB", {}),
        ("WEBP", "RGBA", {"lossless": True}),
        ("BMP", "RGB", {}),
        ("GIF", "P", {}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("PPM", "RGB", {}),
    ],
)
def test_whole_pictures_pass_and_are_read_alike(tmp_path, photo, kind, mode, options):
    path = written(tmp_path, encoded(photo.convert(mode), kind, **options))
    assert fault(path) is None
    assert read(path).convert("RGB").size == photo.size


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"restart_marker_blocks": 3}),
        ("PNG", {}),
        ("WEBP", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("PPM", {}),
    ],
)
@pytest.mark.filterwarnings("ignore:Truncated File Read", "ignore:Corrupt EXIF")
def test_every_truncation_is_found(tmp_path, photo, kind, options):
    whole = encoded(photo, kind, **options)
    cuts = sorted({1, 2, 3, 12, *range(20, len(whole), len(whole) // 40)})
    for cut in cuts:
        path = written(tmp_path, whole[:-cut], f"{cut}.jpg")
        assert fault(path), f"{cut} bytes short"


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_tail_of_zeros_is_found(tmp_path, photo, kind):
    whole = encoded(photo, kind)
    for cut in (1, 2, 100, len(whole) // 2):
        assert fault(written(tmp_path, whole[:-cut] + bytes(cut), f"{cut}.jpg"))


def test_what_follows_the_end_of_a_jpeg_does_no_harm(tmp_path, photo):
    whole = encoded(photo, "JPEG")
    assert fault(written(tmp_path, whole + b"trailer \xff\xda of a phone")) is None


def test_a_thumbnails_end_is_not_the_pictures(tmp_path, photo):
    exif = Image.Exif()
    exif[0x9286] = b"\xff\xd8 a thumbnail \xff\xd9"
    whole = encoded(photo, "JPEG", exif=exif)
    assert whole.count(b"\xff\xd9") == 2
    assert fault(written(tmp_path, whole)) is None
    assert "end marker" in fault(written(tmp_path, whole[:-2] + b"\0\0", "b.jpg"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "0 bytes"),
        (b"hello", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        (b"\x89PNG\r\n\x1a\n", "not a picture"),
    ],
)
def test_what_is_no_picture_says_so(tmp_path, content, reason):
    assert reason in fault(written(tmp_path, content))


def test_a_flipped_checksum_is_found(tmp_path, photo):
    whole = bytearray(encoded(photo, "PNG"))
    whole[200] ^= 1
    assert fault(written(tmp_path, bytes(whole)))


@pytest.mark.parametrize(
    ("dtype", "kind"), [("uint16", "PNG"), ("int32", "TIFF"), ("float32", "TIFF")]
)
def test_deep_pixels_are_refused_and_not_turned_white(tmp_path, dtype, kind):
    deep = Image.fromarray(np.full((9, 9), 40_000, dtype=dtype))
    assert "8 bits" in fault(written(tmp_path, encoded(deep, kind)))


def test_bombs_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    bombs = {"big.png": (9_500, 9_500), "huge.png": (20_000, 20_000), "strip.png": (1, 5_000)}
    paths = [written(tmp_path, encoded(Image.new("1", s), "PNG"), n) for n, s in bombs.items()]
    assert MAX_PIXELS < 9_500**2
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("decoded"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reasons = [fault(path) for path in paths]
    assert "9500 x 9500" in reasons[0]
    assert "pixels" in reasons[1]
    assert "strip" in reasons[2]


def test_files_that_cannot_be_opened(tmp_path):
    assert fault(tmp_path / "gone.jpg") == "No such file or directory"
    assert fault(tmp_path) == "not a regular file"
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    assert fault(pipe) == "not a regular file"


def test_a_decoder_may_raise_anything(tmp_path, photo, monkeypatch):
    def load(_: object) -> None:
        raise SyntaxError("as old Pillows do")

    path = written(tmp_path, encoded(photo, "JPEG"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    assert fault(path) == "as old Pillows do"


def test_each_file_is_decoded_once_until_it_changes(tmp_path, photo, monkeypatch):
    path = written(tmp_path, encoded(photo, "JPEG"))
    assert faults([path, path]) == {}
    reads = []
    real = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda p: reads.append(p) or real(p))
    assert faults([path]) == {}
    assert reads == []
    path.write_bytes(b"now it is something else")
    assert list(faults([path])) == [path]
    assert reads == [path]


def test_faults_come_in_the_order_given_and_without_warnings(tmp_path, photo, recwarn):
    good = encoded(photo, "JPEG")
    paths = [written(tmp_path, good[: -(i % 3)] or good, f"{i:03}.jpg") for i in range(30)]
    assert list(faults(paths)) == [path for i, path in enumerate(paths) if i % 3]
    assert not recwarn.list


@pytest.mark.parametrize("options", [{}, {"save_all": True}])
def test_reading_leaves_no_file_open(tmp_path, photo, options):
    frames = {"append_images": [photo.rotate(90).convert("P")]} if options else {}
    path = written(tmp_path, encoded(photo.convert("P"), "GIF", **options, **frames), "a.gif")
    handles = Path("/proc/self/fd")
    before = len(list(handles.iterdir())) if handles.is_dir() else 0
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        kept = [read(path) for _ in range(5)]
    after = len(list(handles.iterdir())) if before else 0
    assert after == before
    assert kept[0].convert("RGB").getpixel((3, 3))


def test_extensions_are_those_of_the_formats():
    assert {".jpg", ".jpeg", ".png", ".webp", ".tif", ".ppm"} <= EXTENSIONS
