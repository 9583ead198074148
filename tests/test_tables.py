"""Tables from records alone: what is shown, and what is never set side by side."""

import json
from pathlib import Path

import pandas as pd
import pytest

from clipbench import results, tables


def record(key, model="clip_tiny", lr=1e-5, acc=0.5, n=306, sha="ab" * 32):
    """A record as a run leaves it, of which the tables read these parts."""
    return {
        "schema": results.SCHEMA,
        **{"key": key, "status": "completed", "error": None, "model": model, "lr": lr},
        **{"dataset": "flowers102", "strategy": "finetune", "batch_size": 64, "epochs": 2},
        **{"freeze_depth": "all", "seed": 0, "config": {"dataset": {"shots": None}}},
        "data": {"test": {"n": n, "expected": 6149, "sha256": sha, "rule": None}},
        "steps": {"total": 32, "warmup": 3, "peak_lr": lr},
        "parameters": {"total": 10, "trainable": 5, "groups": {}},
        "curve": [{"epoch": 0, "val/acc": None}, {"epoch": 1, "val/acc": acc}],
        "final": {"val/acc": acc, "test/acc": acc / 3, "test/loss": 1.0, "test/acc@alpha=0.5": 0.4},
        "selection": {"metric": "val/acc", "epoch": 1},
        "cost": {"seconds": 61.23, "images_per_second": 100.4, "peak_memory_bytes": 1.5e9}
        | {"device": "cpu"},
    }


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPBENCH_OUTPUTS", str(tmp_path))
    folder = tmp_path / "sweeps" / "one"
    folder.mkdir(parents=True)

    def make(*records, failed=()):
        lines = []
        for i, entry in enumerate(records):
            run = tmp_path / "runs" / "flowers102" / f"run-{entry['key']}"
            run.mkdir(parents=True, exist_ok=True)
            results.write(run, entry)
            lines.append({"overrides": [f"lr={i}"], "status": "completed", "folder": str(run)})
        lines += [{"overrides": [w], "status": "failed", "error": "e"} for w in failed]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "jobs.jsonl").write_text(text)
        return folder

    return make


def test_what_a_row_says(sweep):
    folder = sweep(record("aaaaaaaa"), record("bbbbbbbb", lr=1e-4, acc=0.123456))
    stem = Path(str(tables.sweep(folder)[0])).with_suffix("")
    text = stem.with_suffix(".md").read_text()
    header, _, first, second = text.strip().splitlines()
    names = [name.strip() for name in header.strip("|").split("|")]
    assert names == [
        *("model", "dataset", "lr", "epoch 0", "chosen", "val/acc", "test/acc"),
        *("test/acc@alpha=0.5", "data", "key"),
    ]
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in (first, second)]
    assert cells[0][2:7] == ["1e-05", "", "1", "0.5000", "0.1667"]
    assert cells[1][5] == "0.1235"
    assert cells[0][8] == "abababab n=306 of 6149"
    assert pd.read_csv(stem.with_suffix(".csv"))["val/acc"].tolist() == [0.5, 0.123456]
    cost = stem.with_name("sweep_one_cost").with_suffix(".md").read_text()
    assert "61.2" in cost
    assert "seconds" not in text  # two machines share the results, not the cost


def test_results_do_not_depend_on_the_order_in_which_jobs_ran(sweep):
    one, two = record("aaaaaaaa"), record("bbbbbbbb", lr=1e-4)
    texts = [
        Path(str(tables.sweep(sweep(*order))[0])).read_text() for order in ((one, two), (two, one))
    ]
    assert texts[0] == texts[1]


def test_a_job_listed_twice_is_one_row_and_failed_ones_are_said(sweep, capsys):
    one = record("aaaaaaaa")
    folder = sweep(one, one, failed=["lr=9"])
    frame = pd.read_csv(Path(str(tables.sweep(folder)[0])).with_suffix(".csv"))
    assert len(frame) == 1
    assert "lr=9" in capsys.readouterr().out


def test_a_sweep_in_which_nothing_completed_has_no_table(sweep):
    assert tables.sweep(sweep(failed=["lr=9"])) == []


def test_what_only_this_sweep_typed_has_a_column(sweep):
    folder = sweep(record("aaaaaaaa"), record("bbbbbbbb", acc=0.7))
    lines = [json.loads(line) for line in (folder / "jobs.jsonl").read_text().splitlines()]
    for line, mode in zip(lines, ("crop", "pad"), strict=True):
        line["overrides"] = [f"dataset.resize_mode={mode}", "prompts=simple", "seed=0"]
    (folder / "jobs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    table = pd.read_csv(Path(tables.sweep(folder)[0]).with_suffix(".csv"))
    assert table["dataset.resize_mode"].tolist() == ["crop", "pad"]
    assert "prompts" not in table
    assert table["val/acc"].tolist() == [0.5, 0.7]
