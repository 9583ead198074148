"""FGVC-Aircraft on a miniature with every class of every level, against torchvision."""

from pathlib import Path

import pytest
import torch
from torchvision.datasets import FGVCAircraft

from clipbench.core.errors import UserError
from clipbench.datamodules.fgvc_aircraft import CLASSES, FGVCAircraftDataModule
from tests.datamodules import official

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    home = tmp_path_factory.mktemp("aircraft")
    official.aircraft(home)
    return home


def prepared(root, **options):
    data = FGVCAircraftDataModule(root=root, **options)
    data.prepare(0)
    data.check()
    return data


@pytest.mark.parametrize("level", CLASSES)
def test_rows_are_torchvisions_at_every_level(root, level):
    data = prepared(root, level=level)
    for name in SPLITS:
        theirs = FGVCAircraft(root, split=name, annotation_level=level)
        split = data.splits[name]
        assert list(map(str, split.images)) == theirs._image_files
        assert split.labels.tolist() == theirs._labels
        assert data.classes == theirs.classes
        assert split.rule is None
    assert [len(data.splits[name]) for name in SPLITS] == [200, 100, 100]
    assert len(data.classes) == CLASSES[level]
    first = data.splits["train"]
    assert first.ids[0] == Path(first.images[0]).relative_to(root).as_posix()


def test_levels_roll_a_variant_up_as_the_lists_do(root):
    data = prepared(root)
    assert list(data.levels) == ["family", "manufacturer"]
    fine = FGVCAircraft(root, split="test")
    for level in data.levels:
        coarse = FGVCAircraft(root, split="test", annotation_level=level)
        rolled = [data.levels[level][label] for label in fine._labels]
        assert rolled == coarse._labels
    assert list(prepared(root, level="family").levels) == ["manufacturer"]
    assert prepared(root, level="manufacturer").levels == {}


def test_a_mistake_within_a_family_is_right_at_the_family(root):
    data = prepared(root)
    labels = torch.from_numpy(data.splits["test"].labels)
    siblings = {k: [j for j in range(100) if data.levels["family"][j] == data.levels["family"][k]]
                for k in range(100)}  # fmt: skip
    wrong = torch.tensor([next((j for j in siblings[k] if j != k), k) for k in labels.tolist()])
    logits = torch.nn.functional.one_hot(wrong, 100).float()
    found = data.measure("test", logits, labels)
    share = sum(len(siblings[k]) == 1 for k in range(100)) / 100
    assert found["acc"] == pytest.approx(share)
    assert found["acc_family"] == 1


def test_a_subset_keeps_its_levels(root):
    data = prepared(root, subset=["F-16A/B", "Boeing 700-000"])
    assert data.classes == ["F-16A/B", "Boeing 700-000"]
    whole = prepared(root)
    at = [whole.classes.index(name) for name in data.classes]
    assert data.levels["family"] == [whole.levels["family"][k] for k in at]


def test_clips_templates_and_metrics():
    data = FGVCAircraftDataModule(root=".")
    assert data.templates == [
        "a photo of a {}, a type of aircraft.",
        "a photo of the {}, a type of aircraft.",
    ]
    assert data.metrics == ("mean_per_class", "acc", "acc_family", "acc_manufacturer")
    assert data.published_name == "fgvc_aircraft"
    assert data.files[0].url == FGVCAircraft._URL


def test_an_unknown_level_is_refused():
    with pytest.raises(UserError, match="Use one of variant, family, manufacturer"):
        FGVCAircraftDataModule(root=".", level="engine")


def test_lists_that_disagree_are_refused(tmp_path):
    official.aircraft(tmp_path, images=False)
    path = tmp_path / "fgvc-aircraft-2013b" / "data" / "images_family_train.txt"
    number, _, family = path.read_text().splitlines()[0].partition(" ")
    other = "Family 01" if family != "Family 01" else "Family 02"
    path.write_text(path.read_text().replace(f"{number} {family}\n", f"{number} {other}\n"))
    with pytest.raises(UserError, match=r"lists of variant and family .* disagree"):
        FGVCAircraftDataModule(root=tmp_path).prepare(0)


def test_another_release_is_refused(tmp_path):
    official.aircraft(tmp_path, images=False)
    path = tmp_path / "fgvc-aircraft-2013b" / "data" / "families.txt"
    path.write_text(path.read_text() + "Family 70\n")
    with pytest.raises(UserError, match="lists 71 classes of family, not 70"):
        FGVCAircraftDataModule(root=tmp_path).prepare(0)
