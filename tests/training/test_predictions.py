"""What a run leaves of its predictions: rows by picture, a table by class, a matrix by split."""

import numpy as np
import pandas as pd
import pytest
import torch

from clipbench.datamodules.base_classification import ClassificationDataModule
from clipbench.loading.split import Split
from clipbench.metrics import classification
from clipbench.reporting.page import disagreements
from clipbench.training import predictions

CLASSES = ["cat", "dog", "bee", "ant"]


class Predicted(ClassificationDataModule):
    def __init__(self):
        super().__init__()
        self.classes, self.templates = CLASSES, ["{}"]
        self.groups = {"site": ["pond", "wood"], "year": ["2001", "2002"]}
        self.levels = {"kind": [0, 0, 1, 1]}

    def read_splits(self):
        return {}


@pytest.fixture
def written(tmp_path):
    rng = np.random.default_rng(0)
    data, outputs = Predicted(), {}
    for name, n, classes, extra in (
        ("val", 9, 4, {}),
        ("test", 30, 4, {"groups": {"site": rng.integers(-1, 2, 30), "year": np.arange(30) % 2}}),
        ("test_few", 12, 2, {"among": (0, 1)}),
    ):
        labels = rng.integers(0, classes, n)
        ids = [f"{name}/{i}.jpg" for i in range(n)]
        data.splits[name] = Split(ids, labels, [], n, **extra)
        logits = torch.tensor(rng.normal(size=(n, 4)), dtype=torch.float32)
        outputs[name] = {"logits": logits, "label": torch.tensor(labels)}
    predictions.write(tmp_path, data, outputs)
    return tmp_path, data, outputs


def test_rows_carry_the_names_of_their_groups(written):
    folder, data, _ = written
    rows = pd.read_parquet(folder / "predictions.parquet")
    assert list(rows) == [
        *("split", "id", "label", "prediction", "probability", "label_probability"),
        *("site", "year"),
    ]
    assert list(rows["split"].unique()) == ["val", "test", "test_few"]
    assert rows[rows["split"] == "val"]["site"].isna().all()
    of = rows[rows["split"] == "test"]
    assert list(of["id"]) == data.splits["test"].ids
    sites = data.splits["test"].groups["site"]
    assert list(of["site"].fillna("none")) == [["pond", "wood", "none"][i] for i in sites]
    assert list(of["year"]) == ["2001", "2002"] * 15


def test_rows_give_the_metrics_again(written):
    folder, data, outputs = written
    rows = pd.read_parquet(folder / "predictions.parquet")
    logits = np.load(folder / "logits.npy")
    assert (logits.argmax(1) == rows["prediction"]).all()
    data.metrics = ["acc", "acc_kind"]
    for name, of in rows.groupby("split"):
        measured = data.measure(name, outputs[name]["logits"], outputs[name]["label"])
        assert (of["label"] == of["prediction"]).mean() == measured["acc"]
        assert -np.log(of["label_probability"]).mean() == pytest.approx(measured["loss"], rel=1e-5)
    data.metrics = ["acc_worst_site", "acc_worst_year"]
    measured = data.measure("test", outputs["test"]["logits"], outputs["test"]["label"])
    right = (rows["label"] == rows["prediction"])[rows["split"] == "test"]
    for kind in ("site", "year"):
        worst = right.groupby(rows[kind]).mean().min()
        assert measured[f"acc_worst_{kind}"] == pytest.approx(worst, abs=1e-12)


def test_a_split_of_fewer_classes_predicts_none_but_those(written):
    folder, *_ = written
    rows = pd.read_parquet(folder / "predictions.parquet")
    few = rows["split"] == "test_few"
    assert set(rows["prediction"][few]) == {0, 1}
    assert np.isneginf(np.load(folder / "logits.npy")[few][:, 2:]).all()


def test_a_table_by_class_and_a_matrix_by_split(written):
    folder, data, outputs = written
    table = pd.read_csv(folder / "per_class.csv")
    matrices = np.load(folder / "confusion.npz")
    assert list(table)[:5] == ["split", "label", "class", "kind", "n"]
    assert table.groupby("split", sort=False)["class"].apply(list).to_dict() == dict.fromkeys(
        ["val", "test", "test_few"], CLASSES
    )
    for name, of in table.groupby("split"):
        assert of["n"].sum() == len(data.splits[name])
        matrix = matrices[name]
        assert matrix.dtype == np.int64
        assert list(matrix.sum(1)) == list(of["n"])
        assert list(matrix.diagonal()) == list(of["correct"])
        measured = classification.among(outputs[name]["logits"], data.splits[name].among)
        recall = of["recall"][of["n"] > 0].mean()
        assert recall == pytest.approx(
            classification.mean_per_class(measured, outputs[name]["label"])
        )


def test_a_class_that_a_spreadsheet_would_run_is_text(tmp_path):
    data = Predicted()
    data.classes = ["=cmd()", "-1", "tulip", "'quoted"]
    data.splits["val"] = Split(["a", "b"], np.array([1, 0]), [], 2)
    said = torch.tensor([[2.0, 1, 0, 0], [2.0, 1, 0, 0]])
    predictions.write(tmp_path, data, {"val": {"logits": said, "label": torch.tensor([1, 0])}})
    raw = pd.read_csv(tmp_path / "per_class.csv", dtype=str)
    assert raw["class"].tolist() == ["'=cmd()", "'-1", "tulip", "'quoted"]
    assert raw["confused_with"].dropna().tolist() == ["'=cmd()"]
    assert [*disagreements.classes(tmp_path).values()] == data.classes


def test_a_tie_of_probabilities_is_none_of_logits(tmp_path):
    data = Predicted()
    data.splits["val"] = Split(["a"], np.array([1]), [], 1)
    near = torch.tensor([[0.0, torch.finfo(torch.float32).tiny, -1, -1]])
    assert near.softmax(1)[0, 0] == near.softmax(1)[0, 1]
    predictions.write(tmp_path, data, {"val": {"logits": near, "label": torch.tensor([1])}})
    rows = pd.read_parquet(tmp_path / "predictions.parquet")
    assert rows["prediction"].tolist() == [1]
    assert pd.read_csv(tmp_path / "per_class.csv")["correct"].sum() == 1
