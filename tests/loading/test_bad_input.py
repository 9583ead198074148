"""What a user gets wrong, through the real command line: the cause and the fix, before any step."""

import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import SMALL, TINY, clipbench, result_jsons


class Evil:
    """A pickle that would make a file if it were executed."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.fixture
def photos(tmp_path):
    """Three classes of four images in each of train, val and test."""
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for name in ("cat", "dog", "hen"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for i in range(4):
                pixels = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{split}{i}.jpg")
    return tmp_path / "photos"


def refused(tmp_path, *words, code=1, env=None, weights="null"):
    """The lines on stderr of a command that must fail, with no traceback and no step taken.

    With ``-m`` each of its jobs must: what goes wrong once starts Python once.
    """
    model = ("model=timm", "model.arch=test_resnet", "model.image_size=32")
    first = [word for word in words if word == "-m"]  # Hydra's flags stand before the keys
    outputs = {"CLIPBENCH_OUTPUTS": str(tmp_path / "outputs"), **(env or {})}
    done = clipbench(
        *(*first, *model, f"model.pretrained={weights}", "epochs=1", "trainer=cpu"),
        *(word for word in words if word != "-m"),
        env=outputs,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "epoch  1" not in done.stdout
    for folder, record in result_jsons(tmp_path / "outputs"):
        assert record["status"] == "failed"
        assert record["curve"] == []
        assert not (folder / "checkpoints").exists()
    return done.stderr.strip().splitlines()


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("model=clip_vitb23", "clip_vitb32"),
        ("dataset=flower102", "flowers102"),
        ("strategy=fine_tune", "finetune"),
        ("lrr=3", "lr"),
        ("learn_rate=3", "lr"),
        ("dataset.rot=3", "dataset.root"),
        ("trainer.device=2", "trainer.devices"),
    ],
)
def test_an_unknown_option_or_key_names_what_is_near(tmp_path, word, near):
    first, *_ = refused(tmp_path, word, code=2)
    assert word.split("=")[0] in first
    assert near in first.split("did you mean")[1]


@pytest.mark.parametrize("word", ["lr=fast", "seed=1.5", "epochs=many", "batch_size=big"])
def test_a_value_of_the_wrong_type_names_the_key(tmp_path, word):
    first, *_ = refused(tmp_path, word, code=2)
    assert word.split("=")[0] in first


@pytest.fixture
def folders(photos, tmp_path):
    """Copies of the photos, each wrong in its own way, and one that is as it should be."""
    made = {name: tmp_path / name for name in ("empty", "missing", "renamed", "good")}
    for folder in made.values():
        shutil.copytree(photos, folder)
    for path in (made["empty"] / "val" / "hen").iterdir():
        path.unlink()
    shutil.rmtree(made["missing"] / "val" / "hen")
    (made["renamed"] / "val" / "hen").rename(made["renamed"] / "val" / "rooster")
    return {"nowhere": tmp_path / "nowhere", **made}


def test_a_folder_that_is_wrong_is_named_and_a_good_one_runs(folders, tmp_path):
    roots = ",".join(map(str, folders.values()))
    done = clipbench(
        "-m", *TINY, *SMALL, "dataset=imagefolder", f"dataset.root={roots}",
        env={"CLIPBENCH_OUTPUTS": str(tmp_path / "outputs")},
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    nowhere, empty, missing, renamed = done.stderr.split("failed: ")[1:]
    assert "dataset.root" in nowhere
    assert "nowhere" in nowhere
    for said in (empty, missing, renamed):
        assert "val/hen" in said
    assert "no image" in empty
    assert "rooster" in renamed
    ((_, record),) = result_jsons(tmp_path / "outputs")
    assert record["status"] == "completed"


def test_bad_images_are_listed_fifty_at_most_and_the_rest_is_in_a_file(photos, tmp_path):
    victims = sorted((photos / "train" / "cat").iterdir())
    content = victims[0].read_bytes()
    victims[0].write_bytes(content[:-1])
    victims[1].write_bytes(b"")
    for i in range(60):
        (photos / "train" / "dog" / f"text{i}.jpg").write_text("no image")
    said = refused(tmp_path, "dataset=imagefolder", f"dataset.root={photos}")
    head, *listed, last, log = said
    assert log.endswith("log.txt")
    assert "62 of 96 images cannot be read" in head
    assert len(listed) == 50
    assert str(victims[0]) in listed[0]
    assert "cut off" in listed[0]
    assert "and 12 more" in last
    rest = tmp_path / last.split(str(tmp_path) + "/")[1]
    assert len(rest.read_text().splitlines()) == 62


def test_a_weight_file_that_is_wrong_is_refused_and_never_executed(tmp_path):
    files = {
        kind: tmp_path / f"{kind}.pt"
        for kind in ("malicious", "raw_pickle", "truncated", "wrong_architecture", "missing")
    }
    torch.save({"state_dict": {"w": Evil(tmp_path / "executed")}}, files["malicious"])
    files["raw_pickle"].write_bytes(pickle.dumps(Evil(tmp_path / "executed")))
    torch.save({"w": torch.zeros(1000)}, files["truncated"])
    files["truncated"].write_bytes(files["truncated"].read_bytes()[:-100])
    torch.save({"visual.conv1.weight": torch.zeros(3, 3)}, files["wrong_architecture"])
    lines = refused(
        tmp_path,
        "-m",
        "dataset.shots=2",
        weights=",".join(map(str, files.values())),
        env={"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"},
    )
    causes = [line for line in lines if line.startswith("failed: ")]
    for path, cause in zip(files.values(), causes, strict=True):
        assert str(path) in cause
    assert not (tmp_path / "executed").exists()


def test_no_weights_and_no_network_and_a_warmup_that_never_ends(tmp_path):
    closed = "http://127.0.0.1:9"
    env = {
        "CLIPBENCH_OUTPUTS": str(tmp_path / "outputs"),
        "HF_ENDPOINT": closed,
        "HF_HOME": str(tmp_path / "hub"),
        "TORCH_HOME": str(tmp_path / "torch"),
        "CLIPBENCH_DATA": str(tmp_path / "data"),
        **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), closed),
    }
    words = ("-m", "model=clip_vitb32", "recipe=default,wise_ft", *SMALL)
    done = clipbench(*words, env=env, timeout=60, fresh=True)  # the hub reads them on import
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    no_weights, no_end = done.stderr.split("failed: ")[1:]
    assert "model.pretrained=" in no_weights.splitlines()[0]
    # Found before weights are looked for, and before the run has a folder.
    assert "warm-up of 500 steps never ends in a run of" in no_end
    assert {r["config"]["warmup_steps"] for _, r in result_jsons(tmp_path / "outputs")} == {None}
