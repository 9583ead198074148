"""The main path through the real command line, in processes of its own."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file
from torch.nn.functional import cosine_similarity

from clipbench.core import paths
from clipbench.core.config.instantiate import build
from clipbench.core.jobs import Job, Outcome
from clipbench.results import store
from clipbench.sweeps import launcher as launching
from clipbench.sweeps import worker
from clipbench.sweeps.launcher import launch
from clipbench.training import sanity_checks
from clipbench.training.run import execute
from tests.conftest import FEW, TINY, clipbench, composed, result_json, result_jsons
from tests.faults import alive, descendants

CHOICES = {"model": "timm", "dataset": "shapes", "strategy": "finetune"}


def run_here(*overrides, model="timm", strategy="finetune"):
    """One job through the launcher, which the command line uses, without its start-up time."""
    choices = {**CHOICES, "model": model, "strategy": strategy}
    return launch(Job(composed(*overrides, f"strategy={strategy}"), choices, list(overrides)))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A sweep of four jobs, the last two of which ask for a depth that is not there."""
    outputs = tmp_path_factory.mktemp("sweep")
    env = {"CLIPBENCH_OUTPUTS": str(outputs)}
    words = ("-m", *TINY, *FEW, "freeze_depth=0,99", "lr=1e-3,1e-2", "epochs=2")
    done = clipbench(*words, env=env, fresh=True)
    return outputs, env, words, done


def test_a_failed_job_neither_loses_nor_stops_the_others(sweep):
    outputs, _, _, done = sweep
    assert done.returncode == 1
    found = {r["status"]: r for _, r in result_jsons(outputs)}
    assert set(found) == {"completed", "failed"}
    assert len(list(result_jsons(outputs))) == 4
    assert "freeze_depth=99 is not possible here; use 0..4 or all" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert found["failed"]["error"].startswith("freeze_depth=99")


def test_a_sweep_leaves_a_table_and_curves(sweep):
    outputs, _, _, done = sweep
    (listed,) = (outputs / "sweeps").glob("*/jobs.jsonl")
    jobs = [json.loads(line) for line in listed.read_text().splitlines()]
    assert [j["status"] for j in jobs] == ["completed", "completed", "failed", "failed"]
    stem = outputs / "tables" / f"sweep_{listed.parent.name}"
    table = pd.read_csv(stem.with_suffix(".csv"))
    assert sorted(table["lr"]) == [1e-3, 1e-2]
    frame = store.load(outputs).set_index("key")
    for _, line in table.iterrows():
        assert line["test/acc"] == frame.loc[line["key"], "test/acc"]
    assert "| 0.001 |" in stem.with_suffix(".md").read_text()
    assert r"\toprule" in stem.with_suffix(".tex").read_text()
    assert stem.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"
    assert stem.with_name(stem.name + "_cost").with_suffix(".md").is_file()
    assert str(stem.with_suffix(".md")) in done.stdout


def test_what_a_run_leaves(sweep):
    outputs, *_ = sweep
    folder, record = next((f, r) for f, r in result_jsons(outputs) if r["status"] == "completed")
    assert folder.name == f"timm-finetune-{record['key']}"
    assert folder.parent.name == "shapes"
    names = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    events = {name for name in names if name.startswith("events.out.tfevents")}
    assert len(events) == 1
    assert names - events - {"hparams.yaml"} == {
        *(".hydra/config.yaml", ".hydra/overrides.yaml", "result.json", "curve.csv"),
        *("predictions.parquet", "logits.npy", "per_class.csv", "confusion.npz"),
        *("model.safetensors", "head.safetensors"),
        *("checkpoints/last.ckpt", "checkpoints/best.ckpt", "log.txt", ".lock"),
    }
    # The surface that people and scripts rely on, frozen.
    assert list(record) == [
        *("schema", "key", "training", "weights_from", "status", "error", "log", "model"),
        *("dataset", "strategy", "lr", "batch_size", "epochs", "freeze_depth", "seed", "varies"),
        *("setting", "config", "versions", "environment", "git", "data", "steps", "batch"),
        *("parameters", "curve", "final", "selection", "alpha_curve", "temperature", "cost"),
        *("advice", "warnings", "sha256"),
    ]
    assert record["data"]["test_ood"].keys() == {"n", "expected", "sha256", "content", "rule"}
    assert record["environment"] == {
        **{"accelerator": "cpu", "devices": 1, "precision": "32-true", "threads": 1},
    }
    assert record["steps"] == {"total": 6, "warmup": 1, "peak_lr": record["lr"]}
    assert record["parameters"]["groups"]["head"] == {
        "parameters": 2328,
        "trainable": 2328,
    }  # 97 x 24
    assert set(record["cost"]) == {
        *("seconds", "images_per_second", "peak_memory_bytes", "device"),
    }


def test_the_curve_has_a_row_an_epoch_and_nulls_before_a_random_head_is_trained(sweep):
    outputs, *_ = sweep
    for folder, record in result_jsons(outputs):
        if record["status"] != "completed":
            continue
        assert [row["epoch"] for row in record["curve"]] == [0, 1, 2]
        nulls = {k: v for k, v in record["curve"][0].items() if k != "epoch"}
        assert {"val/loss", "val/acc", "val/mean_per_class"} <= nulls.keys()
        assert set(nulls.values()) == {None}
        curve = pd.read_csv(folder / "curve.csv")
        assert list(curve["epoch"]) == [0, 1, 2]
        assert np.isnan(curve["val/acc"][0])
        scores = [row["val/acc"] for row in record["curve"][1:]]
        assert record["selection"]["epoch"] == 1 + int(np.argmax(scores))  # earliest on ties
        assert record["final"]["val/acc"] == max(scores)


def test_tensorboard_has_the_curve_by_epoch(sweep):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    outputs, *_ = sweep
    folder, record = next((f, r) for f, r in result_jsons(outputs) if r["status"] == "completed")
    events = EventAccumulator(str(folder)).Reload()
    scalars = [(e.step, e.value) for e in events.Scalars("val/acc")]
    rows = [(r["epoch"], r["val/acc"]) for r in record["curve"] if r["val/acc"] is not None]
    assert scalars == [(epoch, pytest.approx(value)) for epoch, value in rows]


def test_predictions_give_the_metrics_again(sweep):
    outputs, *_ = sweep
    for folder, record in result_jsons(outputs):
        if record["status"] != "completed":
            continue
        rows = pd.read_parquet(folder / "predictions.parquet")
        logits = np.load(folder / "logits.npy")
        assert len(rows) == len(logits)
        for split, part in rows.groupby("split"):
            acc = (part["label"] == part["prediction"]).mean()
            assert acc == pytest.approx(record["final"][f"{split}/acc"], abs=1e-12)
            assert len(part) == record["data"][split]["n"] == part["id"].nunique()
        assert (logits.argmax(1) == rows["prediction"]).all()
        probability = np.exp(logits - logits.max(1, keepdims=True))
        probability /= probability.sum(1, keepdims=True)
        taken = probability[np.arange(len(rows)), rows["label"]]
        np.testing.assert_allclose(rows["label_probability"], taken, atol=1e-6)


def test_the_same_command_again_runs_nothing_that_was_completed(sweep):
    outputs, env, words, _ = sweep
    before = {
        path: path.stat().st_mtime_ns
        for folder, record in result_jsons(outputs)
        if record["status"] == "completed"
        for path in folder.rglob("*")
    }
    again = clipbench(*words, env=env)
    assert again.returncode == 1  # two jobs fail again
    assert again.stdout.count("completed before; nothing was run") == 2
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list(result_jsons(outputs))) == 4


def test_tables_are_rebuilt_from_the_records(sweep):
    outputs, env, *_ = sweep
    name = min(path.stem for path in (outputs / "tables").glob("sweep_*.md"))
    tables = {p: p.read_bytes() for p in (outputs / "tables").glob(f"{name}*.md")}
    for path in tables:
        path.unlink()
    words = (f"table={name}", "results=outputs")
    assert clipbench(*words, module="tables", env=env).returncode == 0
    assert {p: p.read_bytes() for p in tables} == tables


def test_the_same_seed_twice_gives_the_same_final_bit_for_bit(tmp_path, monkeypatch):
    finals = []
    for i in range(2):
        monkeypatch.setenv("CLIPBENCH_OUTPUTS", str(tmp_path / str(i)))
        outcome = run_here(*TINY, *FEW, f"dataset.workers={i}")
        assert outcome.status == "completed", outcome.error
        ((folder, record),) = result_jsons(tmp_path / str(i))
        weights = (folder / "model.safetensors").read_bytes()
        finals.append((record["key"], record["final"], record["curve"], weights))
    assert finals[0] == finals[1]


def test_another_seed_is_another_run(outputs):
    for seed in (0, 1):
        assert run_here(*TINY, *FEW, f"seed={seed}").status == "completed"
    (one, first), (other, second) = result_jsons(outputs)
    # A network that starts at random starts elsewhere: it is not one start trained twice.
    kernels = [load_file(folder / "model.safetensors")["conv1.0.weight"] for folder in (one, other)]
    assert cosine_similarity(*(kernel.flatten() for kernel in kernels), dim=0).abs() < 0.5
    assert first["final"]["val/loss"] != second["final"]["val/loss"]
    assert first["data"]["train"]["sha256"] != second["data"]["train"]["sha256"]
    assert first["data"]["test"] == second["data"]["test"]


def test_divergence_has_a_status_and_keeps_its_row(outputs):
    outcome = run_here(*TINY, *FEW, "lr=1e30", "trainer.gradient_clip_val=null")
    assert outcome.status == "diverged"
    assert "not finite" in outcome.error
    ((_, record),) = result_jsons(outputs)
    assert record["status"] == "diverged"
    assert record["curve"][0]["epoch"] == 0


def test_a_job_that_dies_is_reported(outputs, monkeypatch):
    monkeypatch.setattr(launching, "_work", _killed)
    outcome = run_here(*TINY, *FEW)
    assert (outcome.status, outcome.code) == ("interrupted", 128 + 9)
    assert "SIGKILL" in outcome.error


def _killed(job, senders, ends):
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("gate", ["on", "off"])
def test_the_gate_stops_a_run_whose_epoch_0_is_far_below_the_published_number(
    outputs, monkeypatch, gate
):
    monkeypatch.setattr(sanity_checks, "published_zero_shot", lambda *asked: 0.9)
    words = ("model=clip_tiny", "model.pretrained=null", *FEW, f"gate={gate}")
    choices = {**CHOICES, "model": "clip_tiny"}
    outcome = execute(Job(composed(*words), choices, list(words)))
    ((_, record),) = result_jsons(outputs)
    assert record["curve"][0]["val/acc"] < 0.2
    if gate == "on":
        assert outcome.status == record["status"] == "failed"
        assert "names and labels disagree" in outcome.error
        assert len(record["curve"]) == 1
    else:
        assert outcome.status == "completed"
        assert any("names and labels disagree" in text for text in record["warnings"])


def test_linear_probe_leaves_the_tower_as_it_was(outputs):
    words = (*TINY, *FEW, "epochs=2", "strategy.solver=sgd")
    outcome = run_here(*words, strategy="linear_probe")
    assert outcome.status == "completed", outcome.error
    ((_, record),) = result_jsons(outputs)
    assert record["parameters"]["trainable"] == record["parameters"]["groups"]["head"]["parameters"]
    assert len(record["curve"]) == 3
    assert record["curve"][2]["train/loss"] < record["curve"][1]["train/loss"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads /proc")
def test_when_the_launcher_is_killed_its_worker_is_gone_within_five_seconds(tmp_path):
    env = {**os.environ, "CLIPBENCH_OUTPUTS": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "clipbench.run", *TINY, *FEW, "epochs=500"]
    command.append("dataset.workers=2")
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, cwd=paths.ROOT)
    for line in process.stdout:
        if line.startswith(b"epoch  1"):
            break
    family = descendants(process.pid)
    # resource tracker, fork server, guard, rank, and two of each loader
    assert len(family) >= 6
    assert all(map(alive, family))
    process.kill()
    process.wait()
    deadline = time.monotonic() + 5
    while any(map(alive, family)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(alive, family))
    ((_, record),) = result_jsons(tmp_path)
    assert record["status"] == "interrupted"
    assert [row["epoch"] for row in record["curve"]][:2] == [0, 1]


def test_what_is_said_of_a_class_is_part_of_a_run(tmp_path, monkeypatch, outputs):
    bank = tmp_path / "bank.json"
    data = build(composed("dataset=shapes")["dataset"])
    words = ("model=clip_tiny", *FEW, "dataset.subset=3", "trainer.limit_train_batches=1")
    keys = []
    for text in ("a {}", "a big {}"):
        bank.write_text(json.dumps({name: [text.format(name)] for name in data.classes}))
        done = run_here(*words, "prompts=file", f"prompts.file={bank}", model="clip_tiny")
        assert done.status == "completed", done.error
        keys.append(done.key)
    assert keys[0] != keys[1]
    record = result_json(Path(done.folder))
    assert record["data"]["test"]["n"] == 30
    moved = tmp_path / "elsewhere.json"
    bank.rename(moved)
    again = run_here(*words, "prompts=file", f"prompts.file={moved}", model="clip_tiny")
    assert again.before
    assert again.key == keys[1]


def test_prompts_are_captions_for_a_strategy_that_reads_them(outputs):
    words = ("model=clip_tiny", *FEW, "dataset.subset=3", "prompts.use=sampled")
    refused = run_here(*words, model="clip_tiny")
    assert refused.status == "failed"
    assert refused.error.endswith("reads no text in a step; use prompts.use=ensemble")
    done = run_here(*words, model="clip_tiny", strategy="contrastive")
    assert done.status == "completed", done.error


def test_class_weights_change_a_run_and_pairs_have_none(outputs):
    words = (*TINY, *FEW, "dataset.scene=static", "dataset.shots=null", "epochs=1")
    words += ("dataset.defects={flawless: 40, chipped: 8, burnt: 4}",)
    finals = []
    for balance in ("null", "weights", "sampler"):
        done = run_here(*words, f"dataset.balance={balance}")
        assert done.status == "completed", done.error
        finals.append(result_json(Path(done.folder))["final"]["test/loss"])
    assert len(set(finals)) == 3


def test_captions_alone_are_nothing_to_classify(tmp_path, outputs):
    file = tmp_path / "captions.csv"
    file.write_text("image,caption\na.jpg,a rose\n")
    done = run_here(*TINY, "dataset=captions", f"dataset.file={file}")
    assert "which strategy=finetune needs; use strategy=contrastive" in done.error


def test_the_workers_of_a_loader_start_as_torch_starts_them(outputs, monkeypatch):
    monkeypatch.setattr(launching, "_work", _tell)
    assert run_here(*TINY, *FEW).status == multiprocessing.get_context().get_start_method()


def _tell(job, senders, ends):
    worker.settle(ends)
    senders[0].send(Outcome(multiprocessing.get_start_method()))
