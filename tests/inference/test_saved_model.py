"""A saved run in the hands of its own library, and back in ours."""

import io
import shutil

import numpy as np
import open_clip
import pandas as pd
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

import clipbench
from clipbench.core.config.instantiate import build
from clipbench.core.errors import UserError
from clipbench.inference import saved_model
from clipbench.loading.images import decoding
from clipbench.results import store
from clipbench.transforms.preprocess import View
from tests import image_kinds
from tests.conftest import FEW, composed


def pictures(record, count=16):
    """The first pictures of the run's test split, as tensors, through the loaded transform."""
    data = build(record["config"]["dataset"])
    data.prepare(record["seed"])
    return [data.splits["test"].image(i) for i in range(count)]


def recorded(folder, count=16):
    """The logits that the run recorded for them."""
    rows = pd.read_parquet(folder / "predictions.parquet")
    first = int(np.flatnonzero(rows["split"] == "test")[0])
    return torch.from_numpy(np.load(folder / "logits.npy")[first : first + count])


def test_a_clip_loads_in_open_clip_itself(runs):
    folder, record = runs["clip_tiny"]
    model, preprocess, tokenizer = clipbench.load(folder)
    theirs = open_clip.create_model("clip_tiny", pretrained=str(folder / "model.safetensors"))
    theirs.eval()
    batch = torch.stack([preprocess(p) for p in pictures(record)])
    head = load_file(folder / "head.safetensors")
    with torch.no_grad():
        features = F.normalize(theirs.encode_image(batch), dim=-1)
        logits = features @ head["weight"].T + head["bias"]
        torch.testing.assert_close(model.encode_image(batch), theirs.encode_image(batch))
        text = tokenizer(["a striped star"])
        torch.testing.assert_close(model.encode_text(text), theirs.encode_text(text))
    torch.testing.assert_close(logits, recorded(folder), rtol=1e-4, atol=1e-5)


def test_a_resnet_loads_in_timm_itself(runs):
    folder, record = runs["timm"]
    theirs = timm.create_model("test_resnet", num_classes=24).eval()
    theirs.load_state_dict(load_file(folder / "model.safetensors"))
    model, preprocess, tokenizer = clipbench.load(folder)
    assert tokenizer is None
    batch = torch.stack([preprocess(p) for p in pictures(record)])
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(batch), theirs(batch))
        torch.testing.assert_close(theirs(batch), recorded(folder), rtol=1e-4, atol=1e-5)


def test_the_resize_mode_goes_with_the_weights(runs):
    modes = {
        name: clipbench.load(folder)[1].deterministic.resize_mode
        for name, (folder, _) in runs.items()
    }
    assert modes == {"clip_tiny": "shortest", "timm": "squash"}


def opened(kind):
    """An image of one of the odd kinds as a user opens it, and the pixels that a person sees."""
    data, seen = image_kinds.good()[kind]
    return Image.open(io.BytesIO(data)), Image.fromarray(np.rint(seen).astype(np.uint8))


@pytest.mark.parametrize("kind", ["png rgba", "png 16-bit grey", "tiff 16-bit rgba big endian"])
def test_an_odd_image_is_to_the_loaded_transform_what_a_run_makes_of_it(runs, kind):
    for folder, _ in runs.values():
        transform = clipbench.load(folder)[1]
        image, seen = opened(kind)
        expected = transform(seen)
        torch.testing.assert_close(transform(image), expected, rtol=0, atol=0.03)  # 1 of 255
        image, _ = opened(kind)
        flat = View(saved_model.classifier(folder).tower.preprocess)(image)
        assert (flat - expected).abs().max() > 0.5, "where it is opened as any other"


def test_floats_are_to_the_loaded_transform_of_the_runs_own_range(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs["timm"][0], run)
    record = runs["timm"][1]
    data = {**record["config"]["dataset"], "value_range": list(image_kinds.RANGE)}
    store.write(run, {**record, "config": {**record["config"], "dataset": data}})
    transform = clipbench.load(run)[1]
    image, seen = opened("tiff float")
    torch.testing.assert_close(transform(image), transform(seen), rtol=0, atol=0.03)


def test_a_photo_that_lies_on_its_side_is_upright_in_the_loaded_transform(runs, tmp_path):
    pixels = image_kinds.photo(200, 240)
    turned = Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90)
    held = Image.Exif()
    held[decoding.ORIENTATION] = 6
    turned.save(tmp_path / "a.png", exif=held)
    for folder, _ in runs.values():
        transform = clipbench.load(folder)[1]
        with Image.open(tmp_path / "a.png") as photo:
            assert torch.equal(transform(photo), transform(Image.fromarray(pixels)))
            flat = View(saved_model.classifier(folder).tower.preprocess)(photo)
        assert (flat - transform(Image.fromarray(pixels))).abs().max() > 1


def test_an_image_that_a_run_would_not_read_is_refused(runs):
    transform = clipbench.load(runs["timm"][0])[1]
    with pytest.raises(UserError, match="float pixels have no set black and white"):
        transform(Image.fromarray(np.zeros((9, 9), np.float32)))
    with pytest.raises(UserError, match="too narrow a strip; crop it"):
        transform(Image.new("RGB", (1, 500)))


@pytest.mark.parametrize("model", ["clip_tiny", "timm"])
def test_the_classifier_of_a_run_gives_its_recorded_logits(runs, model):
    folder, record = runs[model]
    classifier = saved_model.classifier(folder)
    _, preprocess, _ = clipbench.load(folder)
    batch = torch.stack([preprocess(p) for p in pictures(record)])
    with torch.no_grad():
        torch.testing.assert_close(classifier(batch), recorded(folder), rtol=1e-4, atol=1e-5)


def test_a_folder_without_a_completed_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="no completed run"):
        clipbench.load(tmp_path)


def test_composing_the_config_of_a_saved_run_needs_no_weights(runs):
    _, record = runs["clip_tiny"]
    assert record["config"] == composed("model=clip_tiny", *FEW, "strategy=finetune")


def test_the_towers_come_apart_and_each_works_alone(runs):
    folder, record = runs["clip_tiny"]
    image, text = saved_model.towers(folder)
    whole = load_file(folder / "model.safetensors")
    assert {**image, **text}.keys() == whole.keys()
    assert all(name.startswith("visual.") for name in image)
    assert {"logit_scale", "text_projection", "token_embedding.weight"} <= text.keys()
    assert not any(name.startswith("visual.") for name in text)
    model, transform, tokenizer = saved_model.load(folder)
    pixels = torch.stack([transform(picture) for picture in pictures(record, 4)])
    tokens = tokenizer(["a star", "a heart"])
    with torch.no_grad():
        expected = model.encode_image(pixels), model.encode_text(tokens)
        other, *_ = saved_model.load(folder)
        for parameter in other.parameters():
            parameter.zero_()
        other.load_state_dict(image, strict=False)
        assert torch.equal(other.encode_image(pixels), expected[0])
        other.load_state_dict(text, strict=False)
        assert torch.equal(other.encode_text(tokens), expected[1])
    folder, _ = runs["timm"]
    image, text = saved_model.towers(folder)
    assert image.keys() == load_file(folder / "model.safetensors").keys()
    assert not text


def test_averages_that_nobody_asked_for_are_not_there(runs):
    with pytest.raises(UserError, match=r"has no merged\.safetensors; run it"):
        saved_model.classifier(runs["timm"][0], "merged")
