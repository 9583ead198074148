"""Search: the cosines of the model itself, embedded once, and what goes wrong with a folder."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import clipbench
from clipbench import search
from clipbench.core.config.instantiate import build
from clipbench.core.errors import UserError
from clipbench.inference import embeddings, prediction
from clipbench.loading.readers.image_files import loose
from clipbench.models.clip import CLIP
from clipbench.reporting import contact_sheet
from tests.conftest import FEW, TINY, result_jsons
from tests.test_run import run_here

QUERIES = ("a photo of a striped circle", "a plain star")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A zero-shot run of the embedded CLIP: its folder and its record."""
    patch = pytest.MonkeyPatch()
    outputs = tmp_path_factory.mktemp("search")
    patch.setenv("CLIPBENCH_OUTPUTS", str(outputs))
    outcome = run_here("model=clip_tiny", "strategy=zero_shot", *FEW, "seed=3")
    assert outcome.status == "completed", outcome.error
    patch.undo()
    ((folder, record),) = result_jsons(outputs)
    return folder, record


@pytest.fixture
def photos(run, tmp_path):
    """Ten of the run's test pictures, one of them below."""
    data = build(run[1]["config"]["dataset"])
    data.prepare(run[1]["seed"])
    home = tmp_path / "photos"
    (home / "below").mkdir(parents=True)
    for i in range(10):
        place = home / ("below" if i == 9 else "") / f"{i}.png"
        data.splits["test"].image(7 * i % len(data.splits["test"])).save(place)
    return home


@pytest.fixture
def undrawn(monkeypatch):
    """No sheets, which are drawn by matplotlib in half a second each."""
    monkeypatch.setattr(contact_sheet, "contact_sheet", lambda path, *_: None)


def asked(run, photos, *words):
    return search.search([f"run={run[0]}", f"images={photos}", *words])


def table(out):
    """Rank, cosine and file of every row printed."""
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines()]
    return [row for row in cells if len(row) == 3]


@torch.no_grad()
def cosines(run, photos, text):
    """By open_clip's own model, on pictures that Pillow opened."""
    model, preprocess, tokenizer = clipbench.load(run[0])
    files = sorted(p for p in photos.rglob("*.png"))
    images = torch.stack([preprocess(Image.open(file)) for file in files])
    image = F.normalize(model.encode_image(images), dim=-1)
    scores = image @ F.normalize(model.encode_text(tokenizer([text])), dim=-1)[0]
    return {
        file.relative_to(photos).as_posix(): float(s) for file, s in zip(files, scores, strict=True)
    }


def test_answers_are_the_models_own(run, photos, outputs, capsys):
    assert asked(run, photos, *[f"query={q}" for q in QUERIES], "top=4") == 0
    rows = table(capsys.readouterr().out)
    assert [row[0] for row in rows] == ["1", "2", "3", "4"] * 2
    for query, own in zip(QUERIES, (rows[:4], rows[4:]), strict=True):
        truth = cosines(run, photos, query)
        best = sorted(truth, key=truth.get, reverse=True)[:4]
        assert [row[2] for row in own] == best
        assert [float(row[1]) for row in own] == pytest.approx([truth[f] for f in best], abs=1e-4)
    drawn = sorted((outputs / "searches").iterdir())
    assert [sheet.name.split("-", 3)[3][:6] for sheet in drawn] == ["a-phot", "a-plai"]
    with Image.open(drawn[0]) as sheet:
        assert sheet.width > 900
        assert np.asarray(sheet.convert("L")).std() > 5


def fresh(capsys):
    """How many pictures there were, and how many of them new, by what was said."""
    words = capsys.readouterr().err.replace(",", "").split()
    return int(words[0]), int(words[2])


def test_a_folder_is_embedded_once(run, photos, outputs, capsys, undrawn):
    assert asked(run, photos, "query=a star") == 0
    assert fresh(capsys) == (10, 10)
    assert asked(run, photos, "query=a ring") == 0
    assert fresh(capsys) == (10, 0)
    Image.new("RGB", (70, 50), "red").save(photos / "new.jpg")
    Image.new("RGB", (70, 50), "blue").save(photos / "3.png")  # another picture of that name
    (photos / "0.png").unlink()
    assert asked(run, photos, "query=a ring") == 0
    assert fresh(capsys) == (10, 2)
    words = ["model=clip_tiny", f"images={photos}", "query=a ring"]
    assert search.search(words) == 0  # zero-shot: the very same weights
    assert fresh(capsys) == (10, 0)
    assert search.search([*words, "model.pretrained=null"]) == 0
    assert fresh(capsys) == (10, 10)
    (*_, kept) = (outputs / "cache" / "search").iterdir()
    for file in (outputs / "cache" / "search").iterdir():
        file.write_bytes(kept.read_bytes()[:100])
    assert asked(run, photos, "query=a ring") == 0  # a damaged file is begun anew
    assert fresh(capsys) == (10, 10)


def test_what_was_computed_outlives_an_interruption(run, photos, outputs, capsys, monkeypatch):
    whole = prediction.batches

    def cut_short(*args, **options):
        yield next(iter(whole(*args, **options)))
        raise KeyboardInterrupt

    monkeypatch.setattr(prediction, "batches", cut_short)
    with pytest.raises(KeyboardInterrupt):
        asked(run, photos, "query=a star", "batch_size=4")
    monkeypatch.undo()
    monkeypatch.setenv("CLIPBENCH_OUTPUTS", str(outputs))
    assert asked(run, photos, "query=a star") == 0
    assert fresh(capsys) == (10, 6)


def test_bad_pictures_are_told_and_the_rest_is_searched(run, photos, outputs, capsys):
    (photos / "[red]cut.png").write_bytes((photos / "1.png").read_bytes()[:200])
    (photos / "empty.jpg").touch()
    assert asked(run, photos, "query=$a$ [b]star[/b] <x>, y={z} (и)", "top=20") == 1
    said = capsys.readouterr()
    assert "$a$ [b]star[/b] <x>, y={z} (и)" in said.out
    assert len(table(said.out)) == 10
    assert "2 images could not be read:\n  [red]cut.png: " in said.err
    assert "empty.jpg: empty, 0 bytes" in said.err
    for file in photos.rglob("*.png"):
        file.write_bytes(b"no picture")
    with pytest.raises(UserError, match="none of the images can be read") as refusal:
        asked(run, photos, "query=a star")
    assert len(refusal.value.details) == 12


@pytest.mark.skipif(sys.platform != "linux", reason="names that are no text")
def test_names_that_are_no_text(run, photos, outputs, capsys, undrawn):
    (photos / "1.png").rename(photos / os.fsdecode(b"caf\xe9.png"))
    for _ in range(2):
        assert asked(run, photos, "query=a star") == 0
        assert "caf?.png" in [row[2] for row in table(capsys.readouterr().out)]


def test_a_long_query_is_told(run, photos, outputs, capsys, undrawn):
    assert asked(run, photos, "query=" + "star " * 40) == 0
    assert "warning: too long for the model" in capsys.readouterr().out


def test_what_is_asked_wrongly(run, photos, outputs, tmp_path, monkeypatch):
    wrong = {
        ("query= ",): "query= is missing or empty",
        (): "query= is missing or empty",
        ("query=x", "model=clip_tiny"): "either run=DIR, or model=NAME",
        ("query=x", "model.arch=y"): "applies to model=NAME",
        ("query=x", "topp=3"): "did you mean top",
        ("query=x", "top=0"): "top=0 is not a whole number",
        ("query=x", "weights=merged"): "run it with alphas=10",
        ("query=x", f"out={photos / '1.png'}"): "is not a folder",
        ("query=x", f"images={tmp_path / 'nowhere'}"): "does not exist",
        ("query=x", "device=tpu"): "device=tpu is not available",
    }
    for words, message in wrong.items():
        with pytest.raises(UserError, match=message):
            asked(run, photos, *words)
    with pytest.raises(UserError, match="images=PATH is missing"):
        search.search(["model=clip_tiny", "query=x"])
    with pytest.raises(UserError, match="holds no completed run"):
        search.search([f"run={tmp_path}", f"images={photos}", "query=x"])
    with pytest.raises(UserError, match=r"cannot read text: test_resnet.* model=clip_vitb32"):
        search.search([*TINY, f"images={photos}", "query=x"])
    monkeypatch.setattr(CLIP, "has_text", False)  # as with model.pool=mean
    with pytest.raises(UserError, match="clip_tiny has no text tower; search with a run of a CLIP"):
        asked(run, photos, "query=x")


def test_the_features_of_other_weights_are_others(run, photos):
    tower = build({**run[1]["config"]["model"]}).eval()
    before = embeddings.fingerprint(tower)
    assert embeddings.fingerprint(build({**run[1]["config"]["model"]})) == before
    with torch.no_grad():
        tower.model.logit_scale.add_(1e-3)
    assert embeddings.fingerprint(tower) != before
    with torch.no_grad():
        tower.model.logit_scale.sub_(1e-3)
    tower.preprocess = tower.preprocess.with_mode("squash")
    assert embeddings.fingerprint(tower) != before
    assert len(loose(photos)) == 10


def test_help_needs_no_torch():
    code = "import sys, clipbench.search; print('torch' in sys.modules, 'pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
