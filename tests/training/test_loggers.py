"""wandb and MLflow, with no network: what they keep is what the run's record says."""

import sqlite3
from pathlib import Path

import pytest
from pytorch_lightning.loggers import mlflow, wandb

from clipbench.core import paths
from clipbench.core.errors import UserError
from clipbench.core.jobs import Job
from clipbench.results import identity
from clipbench.sweeps.launcher import launch
from clipbench.training.trainer import trainer
from tests.conftest import FEW, TINY, composed, result_json


def logged(*loggers):
    """A run told to some loggers; its folder and its curve."""
    config = composed(*TINY, *FEW, "logger=none")
    config["logger"] = {k: v for o in loggers for k, v in composed(o, *TINY)["logger"].items()}
    choices = {"model": "timm", "dataset": "shapes", "strategy": "finetune"}
    outcome = launch(Job(config, choices, []))
    assert outcome.status == "completed", outcome.error
    record = result_json(Path(outcome.folder))
    curve = [row["val/acc"] for row in record["curve"] if row["val/acc"] is not None]
    return Path(outcome.folder), curve


def test_wandb_keeps_the_curve_offline(outputs, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    folder, _ = logged("logger=wandb")
    (kept,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    content = kept.read_bytes()
    assert b"val/acc" in content
    assert b"test_resnet lr=" in content  # the readable name


@pytest.mark.slow  # MLflow takes seven seconds to lay out its database
def test_mlflow_keeps_the_curve_in_its_own_database(outputs):
    _, curve = logged("logger=mlflow")
    database = sqlite3.connect(paths.outputs() / "mlflow.db")
    found = database.execute("select value from metrics where key='val/acc' order by step")
    assert [value for (value,) in found] == pytest.approx(curve)
    ((name,),) = database.execute("select name from runs")
    assert name.startswith("test_resnet lr=")


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_logger_that_is_not_installed_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.setattr(mlflow, "_MLFLOW_AVAILABLE", False)
    monkeypatch.setattr(wandb, "_WANDB_AVAILABLE", False)
    config = composed(f"logger={name}", *TINY)
    config["logger"] = {name: config["logger"][name]}
    with pytest.raises(
        UserError, match=rf"{name} is not installed.*pip install 'clipbench\[{name}\]'"
    ):
        trainer(config, tmp_path, [])


def test_a_logger_changes_no_key():
    plain = identity.identity(composed(*TINY, *FEW))
    for logger in ("wandb", "mlflow"):
        assert identity.identity(composed(*TINY, *FEW, f"logger={logger}")) == plain
