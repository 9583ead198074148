"""Soups of a sweep's runs, through the door."""

import json
import sys
from pathlib import Path

import pytest
import torch

from clipbench import soup as command
from clipbench.core.config.instantiate import build
from clipbench.core.errors import UserError
from clipbench.inference import saved_model
from clipbench.training import soup
from tests.conftest import FEW, TINY, result_json
from tests.test_run import run_here

COUNTS = "dataset.counts={train: 4, val: 8, test: 12, test_ood: 12}"
WORDS = ("model=clip_tiny", *FEW, "dataset.subset=3", COUNTS, "batch_size=6")


def listed(folder, *outcomes):
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        {"overrides": [str(i)], "status": o.status, "folder": o.folder, "error": o.error}
        for i, o in enumerate(outcomes)
    ]
    (folder / "jobs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory):
    """Outputs with three runs of a CLIP, which share their start, and one of a ResNet."""
    patch = pytest.MonkeyPatch()
    outputs = tmp_path_factory.mktemp("kitchen")
    patch.setenv("CLIPBENCH_OUTPUTS", str(outputs))
    rates = ("1e-4", "1e-3", "5e-3")
    runs = [run_here(*WORDS, f"lr={lr}", model="clip_tiny") for lr in rates]
    words = (*TINY, *FEW, "dataset.subset=3", COUNTS, "trainer.limit_train_batches=1")
    runs += [run_here(*words, f"seed={seed}") for seed in (0, 1)]
    assert all(run.status == "completed" for run in runs), runs
    yield outputs, runs
    patch.undo()


def of(outcome):
    return Path(outcome.folder), result_json(Path(outcome.folder))


def test_a_uniform_soup_is_the_mean_evaluated_and_saved(kitchen):
    outputs, runs = kitchen
    found = soup.ingredients(listed(outputs / "sweeps" / "one", *runs[:3]))
    folder, record = of(soup.cook(found, "uniform", "average"))
    states = [saved_model.classifier(run.folder).state_dict() for run in runs[:3]]
    mean = saved_model.classifier(folder).state_dict()
    for name in (n for n in mean if mean[n].is_floating_point()):
        expected = torch.stack([s[name] for s in states]).mean(0)
        torch.testing.assert_close(mean[name], expected, atol=1e-6, rtol=1e-5)
    data = build(record["config"]["dataset"])
    data.prepare(0)
    tuned = saved_model.classifier(folder)
    data.attach(preprocess=tuned.tower.preprocess, augment=None, batch_size=12, seed=0)
    with torch.no_grad():
        batches = [(tuned(b["image"]), b["label"]) for b in data.eval_dataloader("test_ood")]
    right = sum(int((scores.argmax(1) == labels).sum()) for scores, labels in batches)
    assert record["final"]["test_ood/acc"] == right / 36
    assert (record["strategy"], record["status"]) == ("soup", "completed")
    assert sorted(record["soup"]["kept"]) == sorted(run.key for run in runs[:3])
    assert {"val/acc", "test/acc", "test/ece_scaled"} <= record["final"].keys()
    assert record["config"]["model"] == of(runs[0])[1]["config"]["model"]


def test_greedy_is_no_worse_on_val_than_its_best_ingredient(kitchen):
    outputs, runs = kitchen
    found = soup.ingredients(listed(outputs / "sweeps" / "two", *runs[:3]))
    best = max(of(run)[1]["final"]["val/acc"] for run in runs[:3])
    assert found[0][1].final["val/acc"] == best
    done = soup.cook(found, "greedy", "reestimate")
    folder, record = of(done)
    assert record["final"]["val/acc"] >= best
    assert record["soup"]["kept"][0] == found[0][1].key
    if len(record["soup"]["kept"]) == 1:
        own = saved_model.classifier(found[0][0]).state_dict()
        assert all(
            torch.equal(v, own[k]) for k, v in saved_model.classifier(folder).state_dict().items()
        )
    again = soup.cook(list(reversed(found)), "greedy", "reestimate")
    assert again.before
    assert again.key == done.key


def test_the_door_lists_a_soup_in_the_sweeps_table(kitchen, monkeypatch, capsys):
    outputs, runs = kitchen
    sweep = listed(outputs / "sweeps" / "three", *runs[:2])
    monkeypatch.setattr(sys, "argv", ["soup", f"sweep={sweep}", "kind=uniform"])
    with pytest.raises(SystemExit, match="0"):
        command.main()
    assert "| soup " in (outputs / "tables" / "sweep_three.md").read_text()
    assert json.loads((sweep / "jobs.jsonl").read_text().splitlines()[-1])["key"]
    for wrong, code, message in (
        ([], "2", "kind=greedy|uniform"),
        (["sweep=x", "kind=stew"], "1", "kind=stew is not an option"),
        (["sweep=x", "lr=1"], "1", "lr=1 is not understood"),
        (["kind=uniform"], "1", "sweep=DIR is missing"),
    ):
        monkeypatch.setattr(sys, "argv", ["soup", *wrong])
        with pytest.raises(SystemExit, match=code):
            command.main()
        assert message in capsys.readouterr().err


def test_runs_that_do_not_mix_are_refused(kitchen, tmp_path):
    _, runs = kitchen
    with pytest.raises(UserError, match="is not a sweep"):
        soup.ingredients(tmp_path)
    with pytest.raises(UserError, match="has 1 completed runs"):
        soup.ingredients(listed(tmp_path, runs[0]))
    with pytest.raises(UserError, match="differ in their model"):
        soup.ingredients(listed(tmp_path, runs[0], runs[3]))


def test_heads_that_start_at_random_are_warned_of(kitchen, tmp_path):
    _, runs = kitchen
    found = soup.ingredients(listed(tmp_path, *runs[3:]))
    _, record = of(soup.cook(found, "uniform", "average"))
    assert "they do not average" in record["warnings"][0]
