"""Images are decoded before the first training on them, and that is remembered."""

import io

import numpy as np
import pytest
from PIL import Image

from clipbench.core.errors import Damaged, UserError
from clipbench.datamodules.imagefolder import ImageFolderDataModule
from clipbench.loading import decoded
from clipbench.loading.images import integrity
from tests.conftest import TINY, result_jsons
from tests.datamodules.folders import AUGMENT
from tests.datamodules.folders import TINY as PREPROCESS
from tests.test_run import run_here


def noise(seed, kind, side=64):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def hole(path):
    """Zeros amid a file: nothing that a look at its size, header and end would see."""
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes(200) + content[middle + 200 :])
    return path


@pytest.fixture
def root(tmp_path, outputs):
    """Two classes of six images in train and three in val and test, PNG and JPEG in turn."""
    for s, (split, n) in enumerate({"train": 6, "val": 3, "test": 3}.items()):
        for c, name in enumerate(("cat", "dog")):
            home = tmp_path / "photos" / split / name
            home.mkdir(parents=True)
            for i in range(n):
                kind = ("PNG", "JPEG")[i % 2]
                image = noise(100 * s + 10 * c + i, kind)
                (home / f"{split}{i}.{kind.lower()}").write_bytes(image)
    return tmp_path / "photos"


@pytest.fixture
def reads(monkeypatch):
    """The names of the files that were read whole."""
    taken, content = [], integrity.content

    def noted(source):
        taken.append(source.relative_to(source.parents[2]).as_posix())
        return content(source)

    monkeypatch.setattr(integrity, "content", noted)
    return taken


def prepared(root, **options):
    data = ImageFolderDataModule(root=root, **options)
    data.prepare(0)
    return data


@pytest.mark.parametrize("name", ["train/cat/train2.png", "val/dog/val1.jpeg"])
def test_damage_that_only_decoding_finds_stops_a_run_before_it_begins(root, name):
    prepared(root).check()
    victim = hole(root / name)
    with pytest.raises(UserError, match="1 of 24 images cannot be read") as refusal:
        prepared(root).check()
    (line,) = refusal.value.details
    assert line.startswith(f"{victim}: ")


def test_what_was_decoded_is_not_decoded_again(root, reads):
    prepared(root).check()
    assert len(reads) == len(set(reads)) == 24
    reads.clear()
    prepared(root).check()
    prepared(root, bad_images="skip").check()
    assert reads == []
    (root / "val" / "cat" / "val0.png").write_bytes(noise(7, "PNG"))
    prepared(root).check()
    assert reads == ["val/cat/val0.png"]


def test_skip_leaves_out_what_decoding_finds_and_counts_it(root):
    hole(root / "train" / "cat" / "train2.png")
    hole(root / "train" / "dog" / "train3.jpeg")
    data = prepared(root, bad_images="skip")
    data.check()
    assert (data.record()["train"].n, data.record()["train"].expected) == (10, 12)
    (warning,) = data.warnings
    assert warning.startswith("2 of the 12 images of train cannot be read and were left out, first")
    data.attach(preprocess=PREPROCESS, augment=AUGMENT, batch_size=4, seed=0)
    assert sum(len(batch["label"]) for batch in data.train_dataloader()) == 10


def test_what_a_decoder_complains_of_is_used_in_a_published_set(root):
    victim = hole(root / "val" / "dog" / "val1.jpeg")
    broken = hole(root / "train" / "dog" / "train2.png")
    splits = prepared(root).splits
    faults, (warning,) = decoded.decode(splits, root, None, as_published=True)
    assert faults.keys() == {broken}
    assert warning.startswith(f"1 images are used as published, first {victim}: corrupt, its")
    assert decoded.decode(splits, root, None)[0].keys() == {victim, broken}


def test_what_there_was_no_time_for_is_said_and_found_later(root):
    victim = hole(root / "test" / "cat" / "test2.png")
    data = prepared(root)
    faults, (warning,) = decoded.decode(data.splits, data.root, None, seconds=0)
    assert faults == {}
    assert warning.startswith("24 of 24 images were not decoded beforehand")
    data.check()
    assert warning.split(",")[0] in data.warnings[0]
    data.attach(preprocess=PREPROCESS, augment=AUGMENT, batch_size=4, seed=0)
    with pytest.raises(Damaged, match=r"test2\.png cannot be read .*bad_images=skip"):
        list(data.eval_dataloader("test"))
    decoded.distrust(data.root)
    with pytest.raises(UserError, match="1 of 24 images cannot be read") as refusal:
        prepared(root).check()
    assert str(victim) in refusal.value.details[0]


LAST = pytest.param("test/dog/test2.png", marks=pytest.mark.slow)  # read when all is done


@pytest.mark.parametrize("name", ["train/cat/train0.png", LAST])
def test_damage_found_amid_a_run_comes_to_what_it_would_have_if_known_before(
    root, tmp_path, name, monkeypatch, capfd
):
    words = ("dataset=imagefolder", f"dataset.root={root}", "dataset.bad_images=skip", *TINY)
    words += ("epochs=2", "batch_size=4", "trainer=cpu", "lr=1e-3", "logger=none")
    hole(root / name)
    decoded.decode(prepared(root).splits, root, None, seconds=0)
    amid = run_here(*words)
    assert amid.status == "completed", amid.error
    assert f"{root / name} cannot be read" in capfd.readouterr().out
    ended = {record["status"]: record for _, record in result_jsons(tmp_path / "outputs")}
    monkeypatch.setenv("CLIPBENCH_OUTPUTS", str(tmp_path / "known"))
    before = run_here(*words)
    assert before.status == "completed", before.error
    ((_, known),) = result_jsons(tmp_path / "known")
    assert set(ended) == {"completed", "failed"}
    done = ended["completed"]
    for key in ("key", "final", "curve", "data"):
        assert done[key] == known[key]
    assert "were left out" in done["warnings"][0]
