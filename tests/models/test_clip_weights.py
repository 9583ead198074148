"""Tags, their activations, and architectures that hub repositories bring along."""

import json
from pathlib import Path

import open_clip
import pytest
import torch

from clipbench.core import paths
from clipbench.core.errors import UserError
from clipbench.core.jobs import Job
from clipbench.models import clip_weights, weight_files
from clipbench.models.base import random_head
from clipbench.models.clip import CLIP
from clipbench.training.run import execute
from tests.conftest import composed, result_json


@pytest.mark.parametrize(
    ("arch", "tag", "right"),
    [
        ("ViT-B-32", "openai", "ViT-B-32-quickgelu"),
        ("ViT-B-16", "dfn2b", "ViT-B-16-quickgelu"),
        ("RN50", "openai", "RN50-quickgelu"),
        ("ViT-B-32", "laion400m_e32", "ViT-B-32-quickgelu"),
        ("ViT-B-32-quickgelu", "laion2b_s34b_b79k", "ViT-B-32"),
        ("ViT-L-14-quickgelu", "datacomp_xl_s13b_b90k", "ViT-L-14"),
    ],
)
def test_a_tag_of_another_activation_is_refused_with_the_right_arch(arch, tag, right):
    with pytest.raises(UserError, match=f"Use model.arch={right}$"):
        CLIP(arch=arch, pretrained=tag)


def test_every_tag_of_open_clip_fits_its_arch_or_names_one_that_it_fits():
    named = []
    for arch, tag in open_clip.list_pretrained():
        try:
            clip_weights.pretrained_config(arch, tag)
        except UserError as reason:
            named.append((str(reason).rpartition("model.arch=")[2], tag))
    assert len(named) > 10
    for right, tag in named:
        assert right in open_clip.list_models()
        clip_weights.pretrained_config(right, tag)


def test_an_unknown_tag_names_near_ones():
    with pytest.raises(UserError, match="Similar tags: laion2b_s34b_b79k"):
        CLIP(arch="ViT-B-32", pretrained="laion2b_s34b_b78k")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A hub repository as ``hf download --local-dir`` leaves it, where we look first."""
    monkeypatch.setenv("CLIPBENCH_DATA", str(tmp_path))
    torch.manual_seed(0)
    tower = CLIP(arch="tiny-vit-quickgelu").eval()
    folder = tmp_path / "weights" / "clip-of-ours"
    folder.mkdir(parents=True)
    preprocess = {"mean": [0.5, 0.5, 0.5], "interpolation": "bilinear"}
    config = open_clip.get_model_config("tiny-vit-quickgelu")
    told = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(told))
    state = tower.native_state_dict(random_head(tower, 2))
    weight_files.save(folder / "open_clip_model.safetensors", state, {})
    return tower


@pytest.mark.parametrize("arch", ["tiny-vit-quickgelu", "hf-hub:lab/clip-of-ours"])
def test_a_hub_name_brings_weights_and_preprocessing(repository, arch):
    tower = CLIP(arch=arch, pretrained="hf-hub:lab/clip-of-ours").eval()
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(tower(image), repository(image))
        assert torch.equal(
            tower.zero_shot_head([["a"], ["b"]]).weight,
            repository.zero_shot_head([["a"], ["b"]]).weight,
        )
    assert tower.preprocess.mean == (0.5, 0.5, 0.5)
    assert tower.preprocess.interpolation == "bilinear"


def test_a_hub_name_of_another_arch_is_refused_with_the_right_one(repository):
    with pytest.raises(UserError, match=r"not of tiny-vit\. Use model\.arch=tiny-vit-quickgelu"):
        CLIP(arch="tiny-vit", pretrained="hf-hub:lab/clip-of-ours")


def test_a_tags_file_may_lie_in_the_data_folder(tmp_path, monkeypatch):
    """Where the message about missing weights says to put it."""
    monkeypatch.setenv("CLIPBENCH_DATA", str(tmp_path))
    told = clip_weights.pretrained_config("ViT-B-32-quickgelu", "openai")
    folder = tmp_path / "weights" / told["hf_hub"].strip("/").rpartition("/")[2]
    folder.mkdir(parents=True)
    (folder / "open_clip_model.safetensors").write_bytes(b"")
    source = clip_weights.find("ViT-B-32-quickgelu", "openai")
    assert source.file == folder / "open_clip_model.safetensors"


def test_what_a_bare_file_leaves_open_is_kept_in_the_record(tmp_path, outputs):
    """A file of tensors alone, as others' checkpoints are; the shipped one says its activation."""
    bare = tmp_path / "bare.safetensors"
    weight_files.save(bare, weight_files.read(paths.ASSETS / "clip_tiny.safetensors"), {})
    few = "dataset.counts={train: 2, val: 2, test: 2, test_ood: 2}"
    words = ("model=clip_tiny", "strategy=zero_shot", few, "trainer=cpu", "logger=none")
    choices = {"model": "clip_tiny", "dataset": "shapes", "strategy": "zero_shot"}
    for file, silent in ((bare, True), ("assets:clip_tiny.safetensors", False)):
        typed = (*words, f"model.pretrained={file}")
        done = execute(Job(composed(*typed), choices, list(typed)))
        assert done.status == "completed", done.error
        warnings = result_json(Path(done.folder))["warnings"]
        assert any("does not say which activation" in line for line in warnings) == silent
