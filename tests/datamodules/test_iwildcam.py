"""iWildCam in the layout of WILDS v2.0, held against the wilds package; and real camera traps."""

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from clipbench.core import paths
from clipbench.core.errors import UserError
from clipbench.core.jobs import Job
from clipbench.datamodules.iwildcam import IWildCamDataModule
from clipbench.loading.readers import wilds
from clipbench.sweeps.launcher import launch
from tests.conftest import SMALL, composed
from tests.datamodules.folders import draw
from tests.datamodules.wilds_reference import ask

THEIRS = list(wilds.SPLITS.values())
SHIPPED = pd.read_csv(paths.ASSETS / "classes" / "iwildcam.csv")


def rows(n=900, seed=0, classes=182):
    """As ``metadata.csv``: sorted by split, every class and trap somewhere, many in no shift."""
    rng = np.random.default_rng(seed)
    split = rng.choice(THEIRS, n, p=[0.5, 0.15, 0.15, 0.1, 0.1])
    sites = np.where(np.isin(split, ["val", "test"]), rng.integers(7, 12, n), rng.integers(0, 7, n))
    table = pd.DataFrame(
        {
            "split": split,
            "location_remapped": sites,
            "location": sites * 10 + 3,
            "sequence_remapped": np.arange(n) // 2,
            "seq_id": [f"seq{i // 2}" for i in range(n)],
            "y": np.where(np.arange(n) < classes, np.arange(n), rng.integers(0, 30, n)),
            "category_id": 0,
            "datetime": "2013-07-05 09:36:21.000000",
            "filename": [f"{i:04x}-21bc.jpg" for i in rng.permutation(n)],
            "image_id": "",
        }
    )
    return table.sort_values(["split", "location_remapped"]).reset_index(drop=True)


def folder(above, table, names=None):
    root = above / "iwildcam_v2.0"
    root.mkdir(parents=True)
    (root / "RELEASE_v2.0.txt").write_text("")
    table.to_csv(root / "metadata.csv")  # with its index, as theirs
    if names is not None:
        names.to_csv(root / "categories.csv", index=False)
    return root


def official_categories():
    """As the release's: its own names, and rows for categories without an image."""
    spare = {"y": [99999] * 2, "category_id": [245, 256], "name": ["penelope sp", "camelus"]}
    own = {"y": range(182), "category_id": range(182), "name": SHIPPED["scientific"]}
    return pd.concat([pd.DataFrame(own), pd.DataFrame(spare)])


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Our splits with random logits, and what wilds says of the same folder and predictions."""
    above = tmp_path_factory.mktemp("wilds")
    data = IWildCamDataModule(root=folder(above, rows()))
    data.splits = data.read_splits()
    rng = torch.Generator().manual_seed(0)
    logits = {}
    for name, split in data.splits.items():
        logits[name] = torch.randn(len(split), 182, generator=rng)
        sure = torch.rand(len(split), generator=rng) < 0.6
        logits[name][sure, torch.tensor(split.labels)[sure]] += 9
    predicted = {wilds.SPLITS[name]: of.argmax(1).tolist() for name, of in logits.items()}
    return data, logits, ask("iwildcam", above, predicted)


def test_splits_are_row_for_row_those_of_wilds(both):
    data, _, theirs = both
    assert set(data.splits) == {"train", "val", "test", "val_ood", "test_ood"}
    for name, split in data.splits.items():
        own = theirs["splits"][wilds.SPLITS[name]]
        assert len(split) == split.expected > 20
        assert list(split.ids) == own["files"]
        assert [path.relative_to(data.root).as_posix() for path in split.images] == own["files"]
        assert split.labels.tolist() == own["labels"]
        assert split.groups["location"].tolist() == own["groups"]["location"]
    assert data.groups["location"] == [str(i * 10 + 3) for i in range(12)]


def test_metrics_are_those_of_wilds(both):
    data, logits, theirs = both
    assert data.metrics[0] == "macro_f1"
    for name, split in data.splits.items():
        got = data.measure(name, logits[name], torch.tensor(split.labels))
        results = theirs["splits"][wilds.SPLITS[name]]["results"]
        assert got["acc"] == pytest.approx(results["acc_avg"], abs=1e-6)
        assert got["macro_f1"] == pytest.approx(results["F1-macro_all"], abs=1e-6)
        assert got["mean_per_class"] == pytest.approx(results["recall-macro_all"], abs=1e-6)


def test_classes_and_release_are_those_of_wilds(both):
    data, _, theirs = both
    assert len(data.classes) == theirs["classes"] == 182
    assert theirs["folder"] == "iwildcam_v2.0"
    assert theirs["release"]["download_url"] in data.instructions
    assert f"{theirs['release']['compressed_size'] / 1e9:.1f} GB" in data.instructions


@pytest.mark.parametrize("categories", [None, official_categories()], ids=["none", "theirs"])
def test_names_are_wise_fts_with_the_four_that_stand_twice(tmp_path, categories):
    data = IWildCamDataModule(root=folder(tmp_path, rows(), categories))
    data.lists(0)
    assert data.classes[:4] == [
        *("empty", "white-lipped peccary", "central american agouti", "lowland paca"),
    ]
    assert data.classes[181] == "central american red brocket"
    assert data.classes[52] == "günther's dik-dik"
    assert all(name == name.lower().strip() for name in data.classes)
    twice = {name for name in data.classes if data.classes.count(name) > 1}
    assert twice | {"mazama temama"} == set(data.homonyms)
    assert twice == {
        *("lowland paca", "jaguarundi", "unknown bird", "central american red brocket"),
    }
    assert data.templates == ["a photo of {}.", "{} in the wild."]


def test_scientific_names(tmp_path):
    data = IWildCamDataModule(root=folder(tmp_path, rows()), class_names="scientific")
    data.lists(0)
    assert data.classes[3] == "cuniculus paca"
    assert data.classes[148] == "agouti paca"


def test_names_of_another_set_in_this_layout(tmp_path):
    names = pd.DataFrame({"y": [2, 0, 1, 99999], "name": ["owl", "empty", "fox", "yak"]})
    data = IWildCamDataModule(root=folder(tmp_path, rows(60, classes=3).assign(y=2), names))
    data.lists(0)
    assert data.classes == ["empty", "fox", "owl"]
    assert not data.homonyms


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (None, r"has labels to 40, not iWildCam's to 181\. Put a categories\.csv"),
        ({"y": range(40), "name": ["x"] * 40}, "must name y = 0 to 40, each once"),
        ({"y": [0] * 41, "name": ["x"] * 41}, "must name y = 0 to 40, each once"),
        ({"y": range(41)}, "no column name"),
    ],
)
def test_labels_without_names(tmp_path, names, message):
    table = rows(100, classes=41)
    found = None if names is None else pd.DataFrame(names)
    with pytest.raises(UserError, match=message):
        IWildCamDataModule(root=folder(tmp_path, table, found)).prepare(0)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("y", -1, r"1 y of .* are not numbers from 0"),
        ("y", "bear", r"1 y of .* are not numbers from 0"),
        ("location_remapped", 1.5, r"1 location_remapped of .* are not numbers from 0"),
        ("split", "dev", r"a split dev\. Make each of them one of train, id_val"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, column, value, message):
    table = rows().astype({column: object})
    table.loc[7, column] = value
    root = folder(tmp_path, table)
    with pytest.raises(UserError, match=message) as refusal:
        IWildCamDataModule(root=root).prepare(0)
    if column != "split":
        assert refusal.value.details == [f"{root / 'metadata.csv'}:9: {value}"]


def test_no_folder_says_how_to_get_it(tmp_path):
    with pytest.raises(UserError, match=re.escape("wilds.get_dataset('iwildcam'")):
        IWildCamDataModule(root=tmp_path / "iwildcam_v2.0").prepare(0)


def few(above):
    """A dozen images of the shipped classes, the first and the last among them."""
    split = [*["train"] * 4, *(name for name in THEIRS[1:] for _ in range(2))]
    table = pd.DataFrame(
        {
            "split": split,
            "filename": [f"{i}.jpg" for i in range(12)],
            "y": [0, 181, 3, 148] * 3,
            "location_remapped": [0] * 8 + [1] * 4,
        }
    )
    root = folder(above, table)
    for i in range(12):
        draw(root / "train" / f"{i}.jpg", seed=i)
    return root


def trained(root, model):
    """The folder of a run of one epoch, through the launcher that the command line uses."""
    words = ["dataset=iwildcam", f"dataset.root={root}", f"model={model}", *SMALL, "gate=off"]
    choices = {"model": model, "dataset": "iwildcam", "strategy": "finetune"}
    done = launch(Job(composed(*words), choices, words))
    assert done.status == "completed", done.error
    return Path(done.folder)


@pytest.mark.parametrize("model", ["clip_tiny", "resnet_tiny"])
def test_an_epoch_through_the_launcher(tmp_path, outputs, model):
    done = trained(few(tmp_path), model)
    found = pd.read_json(done / "result.json", typ="series")
    assert {f"{split}/macro_f1" for split in wilds.SPLITS if split != "train"} < set(found["final"])
    assert found["selection"]["metric"] == "val/macro_f1"
    predicted = pd.read_parquet(done / "predictions.parquet")
    assert set(predicted["location"]) == {"0", "1"}
    table = pd.read_csv(done / "per_class.csv")
    assert table["class"].tolist() == SHIPPED["english"].tolist() * 4


@pytest.mark.skipif("CLIPBENCH_DATA" not in os.environ, reason="no photos at hand")
def test_real_camera_traps(outputs):
    root = Path(os.environ["CLIPBENCH_DATA"]) / "cameratrap_camtrapr" / "iwildcam_v2.0"
    if not root.is_dir():
        pytest.skip("no camera traps at hand")
    data = IWildCamDataModule(root=root)
    data.prepare(0)
    data.check()
    sizes = {name: len(split) for name, split in data.splits.items()}
    assert sizes == {"train": 27, "val": 5, "test": 5, "val_ood": 8, "test_ood": 23}
    assert data.classes[2] == "leopard cat"
    assert data.groups["location"] == ["StationC", "StationA", "StationB"]
    assert data.warnings == [
        "2 classes are evaluated without any training image: southern pig-tailed macaque, "
        "unidentified"
    ]
    for model in ("clip_tiny", "resnet_tiny"):
        predicted = pd.read_parquet(trained(root, model) / "predictions.parquet")
        assert predicted["location"].value_counts().to_dict() == {
            "StationC": 10,
            "StationA": 8,
            "StationB": 23,
        }
