"""Tiny CLIPs of every kind that open_clip builds, added by its own mechanism."""

import json

import open_clip
import pytest

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
VIT = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 3, "head_width": 16}
CONFIGS = {
    "tiny-vit": {"vision_cfg": VIT},
    "tiny-vit-quickgelu": {"vision_cfg": VIT, "quick_gelu": True},
    "tiny-rn": {"vision_cfg": {"image_size": 64, "layers": [1, 2, 1, 1], "width": 8}},
    "tiny-timm": {
        "vision_cfg": {"timm_model_name": "test_vit", "timm_pool": "token", "image_size": 160},
        "custom_text": True,
    },
}


@pytest.fixture(scope="session", autouse=True)
def _tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model_configs")
    for name, config in CONFIGS.items():
        whole = {"embed_dim": 24, "text_cfg": TEXT, **config}
        (folder / f"{name}.json").write_text(json.dumps(whole))
    open_clip.add_model_config(folder)
