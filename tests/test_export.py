"""Exported models in the hands of open_clip, timm and onnxruntime: the run's own logits to 1e-4."""

import json
import shutil

import numpy as np
import onnxruntime
import open_clip
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from clipbench import export
from clipbench.core import paths
from clipbench.core.config.instantiate import build
from clipbench.core.errors import UserError
from clipbench.inference import averages, export_formats, saved_model
from clipbench.results import store
from tests.conftest import result_json
from tests.inference.test_saved_model import pictures, recorded

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def about(file):
    with safe_open(file, framework="pt") as opened:
        return opened.metadata()


@pytest.fixture
def exported(runs, tmp_path):
    """Exports one of the runs into a folder of its own."""

    def write(model, *words):
        assert export.export([f"run={runs[model][0]}", f"out={tmp_path}/x", *words]) == 0
        return tmp_path / "x"

    return write


def test_open_clip_itself_loads_a_clip(runs, exported):
    folder, record = runs["clip_tiny"]
    out = exported("clip_tiny", "format=open_clip")
    assert {p.name for p in out.iterdir()} == {
        *("open_clip_model.safetensors", "open_clip_config.json", "head.safetensors"),
    }
    head = load_file(out / "head.safetensors")
    classes = json.loads(about(out / "head.safetensors")["classes"])
    assert classes == build(record["config"]["dataset"]).classes
    whole, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{out}")
    weights = str(out / "open_clip_model.safetensors")
    alone = open_clip.create_model("clip_tiny", pretrained=weights)
    batch = torch.stack([preprocess(picture) for picture in pictures(record)])
    for model in (whole, alone):
        with torch.no_grad():
            features = model.eval().encode_image(batch, normalize=True)
        logits = F.linear(features, head["weight"], head["bias"])
        torch.testing.assert_close(logits, recorded(folder), **CLOSE)


def test_open_clips_folder_tells_how_pictures_are_prepared(runs, tmp_path):
    """A resize mode that is not the architecture's own, and another size."""
    classifier = saved_model.classifier(runs["clip_tiny"][0])
    tower = classifier.tower
    tower.preprocess = tower.preprocess.at(72).with_mode("squash")
    export_formats.to_open_clip(export_formats.Tuned(classifier, ["a"], {}), tmp_path)
    told = json.loads((tmp_path / "open_clip_config.json").read_text())
    assert told["preprocess_cfg"]["resize_mode"] == "squash"
    assert told["model_cfg"]["vision_cfg"]["image_size"] == 72


def test_towers_come_apart(runs, exported):
    out = exported("clip_tiny", "format=safetensors")
    image, text = load_file(out / "image.safetensors"), load_file(out / "text.safetensors")
    whole = load_file(runs["clip_tiny"][0] / "model.safetensors")
    assert {**image, **text}.keys() == whole.keys()
    assert all(torch.equal({**image, **text}[name], whole[name]) for name in whole)
    assert about(out / "image.safetensors")["clipbench"] == runs["clip_tiny"][1]["key"]
    for file in out.iterdir():
        file.unlink()
    exported("clip_tiny", "format=safetensors", "towers=image")
    assert {p.name for p in out.iterdir()} == {"image.safetensors", "head.safetensors"}


def test_a_resnet_goes_whole_to_timm(runs, exported):
    folder, record = runs["timm"]
    out = exported("timm", "format=safetensors")
    assert [p.name for p in out.iterdir()] == ["model.safetensors"]
    theirs = timm.create_model("test_resnet", num_classes=24).eval()
    theirs.load_state_dict(load_file(out / "model.safetensors"))
    transform = saved_model.load(folder)[1]
    with torch.no_grad():
        logits = theirs(torch.stack([transform(picture) for picture in pictures(record)]))
    torch.testing.assert_close(logits, recorded(folder), **CLOSE)


def test_a_point_between_start_and_end_is_wise_fts(runs, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    shutil.copytree(runs["clip_tiny"][0], run)
    end = load_file(run / "model.safetensors")  # that run's best epoch may be its start
    end = {k: v + 0.01 if k.startswith("visual.") and v.ndim > 1 else v for k, v in end.items()}
    save_file(end, run / "model.safetensors", about(run / "model.safetensors"))
    record = result_json(run)
    store.write(run, {**record, "selection": {**record["selection"], "epoch": 1}})
    words = [f"run={run}", f"out={out}", "format=open_clip", "alpha=0.3"]
    assert export.export(words) == 0
    found = load_file(out / "open_clip_model.safetensors")
    assert about(out / "open_clip_model.safetensors")["alpha"] == "0.3"
    start = load_file(paths.ASSETS / "clip_tiny.safetensors")  # half precision
    start = {name: value.float() for name, value in start.items()}
    moved = [name for name in found if not torch.equal(start[name], end[name])]
    assert len(moved) > 10
    for name in moved:
        torch.testing.assert_close(found[name], 0.7 * start[name] + 0.3 * end[name])
    # Of the head too: its start is made of text again, and this run's own is what it became.
    head, tuned = load_file(out / "head.safetensors"), load_file(run / "head.safetensors")
    made = averages.between(run, 0).head.weight
    torch.testing.assert_close(head["weight"], 0.7 * made.detach() + 0.3 * tuned["weight"])


def test_onnxruntime_gives_the_runs_logits_whatever_the_batch(runs, exported):
    folder, record = runs["clip_tiny"]
    out = exported("clip_tiny", "format=onnx")
    image = onnxruntime.InferenceSession(out / "image.onnx")
    model, preprocess, tokenizer = saved_model.load(folder)
    batch = torch.stack([preprocess(picture) for picture in pictures(record)])
    logits, features = image.run(None, {"image": batch.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), recorded(folder), **CLOSE)
    np.testing.assert_allclose(
        image.run(["logits"], {"image": batch[:1].numpy()})[0], logits[:1], rtol=1e-4, atol=1e-4
    )
    text = onnxruntime.InferenceSession(out / "text.onnx")
    tokens = tokenizer(["a star", "a heart", "a small red circle"])
    (said,) = text.run(None, {"tokens": tokens.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(
            torch.from_numpy(said), model.encode_text(tokens, normalize=True), **CLOSE
        )
        theirs = model.encode_image(batch, normalize=True)
    torch.testing.assert_close(torch.from_numpy(features), theirs, **CLOSE)
    told = image.get_modelmeta().custom_metadata_map
    assert json.loads(told["classes"]) == build(record["config"]["dataset"]).classes
    assert json.loads(told["preprocess"])["size"] == batch.shape[-1]
    assert float(told["logit_scale"]) == pytest.approx(model.logit_scale.exp().item())


@pytest.mark.slow
def test_onnxruntime_gives_a_resnets_logits(runs, exported):
    folder, record = runs["timm"]
    out = exported("timm", "format=onnx")
    assert [p.name for p in out.iterdir()] == ["image.onnx"]
    transform = saved_model.load(folder)[1]
    batch = torch.stack([transform(picture) for picture in pictures(record)])
    session = onnxruntime.InferenceSession(out / "image.onnx")
    logits = session.run(["logits"], {"image": batch.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(logits), recorded(folder), **CLOSE)


def test_onnx_that_is_off_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(export_formats, "TOLERANCE", -1.0)
    with pytest.raises(UserError, match=r"onnxruntime's y differ by .* from PyTorch's"):
        export_formats._onnx(
            torch.nn.Linear(3, 2), "input", torch.ones(5, 3), ["y"], tmp_path / "x", {}
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("model", "words", "said"),
    [
        ("timm", [], "format= is missing. Choose open_clip, safetensors or onnx"),
        ("timm", ["format=onx"], "format=onx is not an option; did you mean onnx"),
        ("timm", ["format=open_clip"], "test_resnet is not from open_clip. Use format=saf"),
        ("timm", ["format=onnx", "towers=text"], "test_resnet has no text tower"),
        ("timm", ["format=safetensors", "alpha=0.5"], "its weights started at random"),
        ("clip_tiny", ["format=open_clip", "towers=text"], "towers=text: open_clip loads both"),
        ("clip_tiny", ["format=onnx", "alpha=2"], "alpha=2 is not a number from 0"),
        ("clip_tiny", ["format=onnx", "alpha=0.5", "weights=model"], "exclude each other"),
        ("clip_tiny", ["format=onnx", "weights=merged"], "run it with alphas=10"),
        ("clip_tiny", ["format=onnx", "out=FILE"], "is a file. Name a folder"),
    ],
)
def test_what_cannot_be_exported_is_refused(runs, tmp_path, outputs, model, words, said):
    (tmp_path / "file").touch()
    words = [word.replace("FILE", str(tmp_path / "file")) for word in words]
    with pytest.raises(UserError, match=said):
        export.export([f"run={runs[model][0]}", *words])


def test_lost_weights_are_named(runs, tmp_path):
    (tmp_path / "result.json").write_bytes((runs["timm"][0] / "result.json").read_bytes())
    with pytest.raises(UserError, match=r"has no model\.safetensors; restore it"):
        export.export([f"run={tmp_path}", "format=safetensors", f"out={tmp_path}/out"])


def test_onnx_without_its_extra_says_how_to_get_it(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(export_formats, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'clipbench\[onnx\]'"):
        export.export([f"run={runs['timm'][0]}", "format=onnx", f"out={tmp_path}/out"])
