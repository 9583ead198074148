"""The doctor on the records of real runs made to be ill, and on healthy ones."""

import shlex
import subprocess
import sys

import numpy as np
import pytest
import yaml
from scipy.stats import entropy

from clipbench import advice, config, doctor, paths, results
from clipbench.diagnosis import case, guide, symptoms
from clipbench.errors import Refused
from clipbench.schema import build
from tests.doctor.__main__ import HERE, read

RUNS = yaml.safe_load((HERE / "runs.yaml").read_text())
del RUNS["common"]


@pytest.mark.parametrize("name", RUNS)
def test_every_illness_is_named_and_no_other(name):
    found = symptoms.diagnose(read(name))
    names = {finding.name for finding in found}
    must, may = set(RUNS[name].get("must", ())), set(RUNS[name].get("may", ()))
    assert must <= names <= must | may, found
    for finding in found:
        assert any(sign.isdigit() for sign in finding.evidence)
        assert finding.remedies


def test_there_are_enough_of_either():
    healthy = [name for name in RUNS if name.startswith("healthy")]
    ill = {one for run in RUNS.values() for one in run.get("must", ())}
    assert len(healthy) >= 5
    assert len(ill) >= 12


def test_remedies_are_keys_that_there_are():
    keys = set(config.keys())
    typed = set()
    for name in RUNS:
        for finding in symptoms.diagnose(read(name)):
            for remedy in finding.remedies:
                typed |= {w.partition("=")[0] for w in shlex.split(remedy) if w != "-m"}
    # fractions are those of an own folder of pictures
    assert not typed - keys - {"dataset.val_fraction", "dataset.test_fraction"}


def test_nothing_is_proposed_that_the_run_has_done():
    forgot = read("shift_forgotten")
    (finding,) = symptoms.forgetting(forgot)
    assert finding.remedies[0] == "alphas=10"  # it has the two ends alone
    start, end = forgot.record["alpha_curve"]
    kept = start["test_ood/acc"]
    line = [
        start,
        {"alpha": 0.2, "test_ood/acc": kept, "val/acc": 0.7},
        {"alpha": 0.4, "test_ood/acc": kept - 0.04, "val/acc": 0.8},
        {"alpha": 0.6, "test_ood/acc": kept - 0.2, "val/acc": 0.9},
        end,
    ]
    (finding,) = symptoms.forgetting(case.Case({**forgot.record, "alpha_curve": line}))
    assert f"{kept - 0.04:.3f} at alpha=0.4 of its line, with val/acc 0.800" in finding.evidence
    assert "alphas=10" not in finding.remedies

    def proposed(depth, curve):
        told = {**forgot.record, "freeze_depth": depth, "alpha_curve": curve}
        return case.Case(told).deeper(), case.Case(told).averaged()

    assert proposed(0, []) == (("freeze_depth=3",), ("alphas=10",))
    assert proposed(None, line) == (("freeze_depth=3",), ())
    assert proposed(3, line) == (("freeze_depth=all",), ())
    assert proposed("all", line) == ((), ())


def test_the_door_says_what_it_saw(tmp_path, capsys):
    ill = read("overfitting")
    results.write(tmp_path, ill.record)
    np.savez_compressed(tmp_path / "confusion.npz", **ill.confusion)
    assert doctor.examine([f"run={tmp_path}"]) == 1
    said = capsys.readouterr().out
    assert "overfitting\n  val/loss" in said
    assert "  try: epochs=" in said
    healthy = read("healthy_resnet")
    results.write(tmp_path, healthy.record)
    np.savez_compressed(tmp_path / "confusion.npz", **healthy.confusion)
    assert doctor.examine([f"run={tmp_path}"]) == 0
    assert "nothing found" in capsys.readouterr().out
    with pytest.raises(Refused, match=r"has no result\.json; give the folder of a run"):
        doctor.examine([f"run={tmp_path}/none"])


def test_a_run_that_failed_is_no_riddle(tmp_path, capsys):
    record = {**read("diverged").record, "status": "failed", "error": "disk full; make room"}
    results.write(tmp_path, {**record, "curve": [], "final": {}})
    doctor.examine([f"run={tmp_path}"])
    assert "it ended early: disk full; make room" in capsys.readouterr().out


def test_before_a_run_there_is_the_guides_checklist(capsys):
    words = ("model=clip_vitb32", "dataset=flowers102", "lr=1e-2", "warmup_steps=500")
    assert doctor.examine([*words, "epochs=100"]) == 1
    said = capsys.readouterr().out.splitlines()
    warned = "\n".join(line for line in said if line.startswith("warn"))
    assert "lr=0.01 (1e-05 to 0.0001 in the guide for full fine-tuning); try: lr=3.2e-05" in warned
    assert "epochs=100 (5 to 20); try: epochs=10" in warned
    assert "warmup_steps=500 (a share of the run, at most 0.3); try: warmup_steps=null" in warned
    assert "alphas=None (WiSE-FT); try: alphas=10" in warned
    good = ("lr=1e-4", "epochs=10", "freeze_depth=6", "alphas=10", "retention=cifar10")
    assert doctor.examine(["model=clip_vitb32", "dataset=flowers102", *good]) == 0
    assert all(line.startswith("pass") for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize("path", sorted((paths.CONF / "strategy").glob("*.yaml")), ids=str)
def test_the_guides_row_is_told_without_torch_as_with_it(path):
    for depth in ("0", "2", "all"):
        words = (f"strategy={path.stem}", f"freeze_depth={depth}")
        node = config.compose(*words)["strategy"]
        assert guide.row(node) == advice.kind(build(node))


def test_the_least_loss_of_smoothed_labels_is_their_entropy():
    told = read("healthy_resnet")
    record = {**told.record, "config": {**told.config, "label_smoothing": 0.1}}
    smoothed = case.Case(record, told.confusion)
    classes = len(told.confusion["val"])
    target = np.full(classes, 0.1 / classes)
    target[0] += 0.9
    assert smoothed.floor == pytest.approx(entropy(target))


def test_none_of_these_doors_waits_for_torch():
    names = ("paired", "doctor", "predict", "export")
    code = f"import sys; from clipbench import {', '.join(names)}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_what_ails_from_too_little_is_told_every_remedy_of_the_guide():
    ill = read("underfitting")
    record = {**ill.record, "freeze_depth": 2}
    record["config"] = {**ill.config, "label_smoothing": 0.1, "weight_decay": 0.05}
    found = symptoms.underfitting(case.Case(record, ill.confusion))
    remedies = " ".join(next(found).remedies)
    for word in ("lr=", "epochs=", "freeze_depth=0", "weight_decay=0.005 label_smoothing=0"):
        assert word in remedies


def test_a_run_without_val_is_warned_of(capsys):
    words = ["model=resnet_tiny", "freeze_depth=2"]
    assert doctor.examine(words) == 0
    assert "pass  epochs are chosen on val" in capsys.readouterr().out
    assert doctor.examine([*words, "+trainer.limit_val_batches=0"]) == 1
    assert "warn  epochs are chosen on val" in capsys.readouterr().out
