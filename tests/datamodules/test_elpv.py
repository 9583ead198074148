import importlib.util
from pathlib import Path

import numpy as np
import pytest

from clipbench.core.errors import UserError
from clipbench.datamodules.elpv import ELPVDataModule
from tests.datamodules.folders import draw

PROBABILITIES = ("0.0", "0.3333333333333333", "0.6666666666666666", "1.0")


@pytest.fixture
def root(tmp_path) -> Path:
    rows = []
    for i in range(80):
        name = f"images/cell{i + 1:04d}.png"
        draw(tmp_path / name, seed=i)
        rows.append(f"{name}  {PROBABILITIES[i % 4]:20s} {('mono', 'poly')[i // 4 % 2]}\n")
    (tmp_path / "labels.csv").write_text("".join(rows))
    return tmp_path


def prepared(**kwargs: object) -> ELPVDataModule:
    data = ELPVDataModule(**kwargs)
    data.prepare(0)
    data.check()
    return data


def test_probabilities_are_rounded_to_two_classes(root):
    data = prepared(root=root)
    assert data.classes == ["functional", "defective"]
    probability = dict(line.split()[:2] for line in (root / "labels.csv").open())
    for split in data.splits.values():
        for name, label in zip(split.ids, split.labels, strict=True):
            assert label == (float(probability[name]) > 0.5)


def test_every_group_gives_its_share_whatever_the_threshold(root):
    data, strict = prepared(root=root), prepared(root=root, threshold=0.9)
    assert [len(split) for split in data.splits.values()] == [48, 16, 16]
    for name, split in data.splits.items():
        assert split.ids == strict.splits[name].ids
        assert np.bincount(split.labels).tolist() == [len(split) // 2] * 2
        assert np.bincount(strict.splits[name].labels)[1] == len(split) // 4
        assert "type and probability" in split.rule


def test_a_missing_package_names_the_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install 'clipbench\[elpv\]'"):
        ELPVDataModule().prepare(0)


@pytest.mark.parametrize("text", ["images/cell0001.png mono\n", "a b c\n"])
def test_a_damaged_table_is_refused(root, text):
    (root / "labels.csv").write_text(text)
    with pytest.raises(UserError, match="damaged"):
        ELPVDataModule(root=root).prepare(0)


@pytest.mark.skipif(
    importlib.util.find_spec("elpv_dataset") is None, reason="elpv-dataset is not installed"
)
def test_the_real_cells():
    data = ELPVDataModule()
    data.prepare(0)
    counts = {name: np.bincount(split.labels).tolist() for name, split in data.splits.items()}
    assert counts == {"train": [1082, 494], "val": [271, 123], "test": [450, 204]}
    assert data.splits["test"].image(0).size == (300, 300)
