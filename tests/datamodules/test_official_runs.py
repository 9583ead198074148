"""Each dataset of official files is checked and trains a tiny CLIP and a tiny ResNet."""

import json

import pytest

from clipbench.core.config.instantiate import build
from clipbench.core.jobs import Job
from clipbench.datamodules.audit import audit
from clipbench.sweeps.launcher import launch
from clipbench.training.run import execute
from tests.conftest import SMALL, composed
from tests.datamodules import official
from tests.datamodules.test_imagenet import SUBSET, images


def imagenet(root):
    for part, each in (("train", 4), ("val", 2)):
        images(root / part, SUBSET, each)
    images(root.parent / "imagenet-r", SUBSET[:2], 2, ".jpg")
    images(root.parent / "objectnet-1.0" / "images", ["alarm_clock"], 2, ".png")


# By the option: what builds it, whether that patches sums, and which classes are trained on.
BUILDS = {
    "fgvc_aircraft": (official.aircraft, False, "[F-16A/B,Boeing 700-000]"),
    "cifar10": (official.cifar10, True, "[cat,dog]"),
    "eurosat": (official.eurosat, True, "[Forest,River]"),
    "dtd": (official.dtd, False, "[banded,lined]"),
    "oxford_pets": (official.pets, False, "[pug,Bengal]"),
    "stanford_cars": (official.cars, False, "[0,1,2]"),
    "food101": (official.food, False, "3"),
    "imagenet": (imagenet, False, f"[{','.join(SUBSET)}]"),
}


@pytest.mark.parametrize("name", BUILDS)
def test_one_epoch_of_both_models(name, tmp_path, outputs, monkeypatch):
    builds, patched, subset = BUILDS[name]
    root = tmp_path / "data" / name
    builds(root, monkeypatch) if patched else builds(root)
    words = [f"dataset={name}", f"dataset.root={root}", f"dataset.subset={subset}", *SMALL]
    found = audit(build(composed(*words)["dataset"]), name, tmp_path / "seen.parquet")
    assert all("published" in fault or "not on disk" in fault for fault in found.faults)
    for model in ("clip_tiny", "resnet_tiny"):
        said = [*words, f"model={model}"]
        choices = {"model": model, "dataset": name, "strategy": "finetune"}
        # One through a process of its own, where what a test patches is not so.
        run = launch if (name, model) == ("fgvc_aircraft", "clip_tiny") else execute
        done = run(Job(composed(*said), choices, said))
        assert done.status == "completed", (done.error, done.details)
        with open(f"{done.folder}/result.json") as file:  # noqa: PTH123
            record = json.load(file)
        assert record["dataset"] == name
        assert {"val/acc", "val/mean_per_class"} <= record["curve"][-1].keys()
        assert 0 <= record["final"]["test/acc"] <= 1
        assert record["data"]["test"]["n"] == record["data"]["test"]["expected"]
    if name == "imagenet":
        assert {"test_r/acc", "test_objectnet/acc"} <= record["final"].keys()
    if name == "fgvc_aircraft":
        assert "test/acc_family" in record["final"]
