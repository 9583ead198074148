"""The doctor on the records of real runs made to be ill, and on healthy ones."""

import shlex
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import yaml
from scipy.stats import entropy

from clipbench import doctor
from clipbench.core.config import compose
from clipbench.core.config.instantiate import build
from clipbench.core.errors import UserError
from clipbench.metrics import confusion
from clipbench.reporting.doctor import case, checklist, remedies, symptoms
from clipbench.results import store
from clipbench.results.record import Selection
from tests.doctor.__main__ import HERE, read

RUNS = yaml.safe_load((HERE / "runs.yaml").read_text())
COMMON = RUNS.pop("common")


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


def words_of(name):
    """The command line of a kept run; the file of names is one of the lists that come along."""
    names = "${clipbench.root:}/notes.json"
    return [*COMMON, *(word.replace("NAMES", names) for word in RUNS[name]["words"])]


def test_every_remedy_can_be_pasted_and_fits_the_run():
    """Of remedies that set the same keys of the same model and strategy, one is pasted."""
    seen = set()
    for name in RUNS:
        kept, words = read(name), words_of(name)
        composed = compose.compose(*words)
        whole = replace(kept.record, config={**composed, **kept.config})
        blocks = [n for n in kept.record.parameters.groups if n.startswith("block ")]
        findings = symptoms.diagnose(case.Case(whole, kept.confusion))
        for remedy in {remedy for finding in findings for remedy in finding.remedies}:
            pasted = [word for word in shlex.split(remedy) if word != "-m"]
            kind = (kept.record.model, *(word.partition("=")[0] for word in pasted))
            if kind in seen:
                continue
            seen.add(kind)
            again = compose.compose(*words, *[word.replace("0,1,2,3,4", "7") for word in pasted])
            assert again != composed, (name, remedy)
            build(again["strategy"])
            depth = again["freeze_depth"]
            assert depth == "all" or int(depth) <= len(blocks), (name, remedy)
    assert len(seen) > 20


def test_nothing_is_proposed_that_the_run_has_done():
    forgot = read("shift_forgotten")
    (finding,) = symptoms.forgetting(forgot)
    assert finding.remedies[0] == "alphas=10"  # it has the two ends alone
    start, end = forgot.record.alpha_curve
    kept = start["test_ood/acc"]
    line = [
        start,
        {"alpha": 0.2, "test_ood/acc": kept, "val/acc": 0.7},
        {"alpha": 0.4, "test_ood/acc": kept - 0.04, "val/acc": 0.8},
        {"alpha": 0.6, "test_ood/acc": kept - 0.2, "val/acc": 0.9},
        end,
    ]
    (finding,) = symptoms.forgetting(case.Case(replace(forgot.record, alpha_curve=line)))
    assert f"{kept - 0.04:.3f} at alpha=0.4 of its line, with val/acc 0.800" in finding.evidence
    assert "alphas=10" not in finding.remedies

    def proposed(depth, curve):
        strategy = {**forgot.config["strategy"], "freeze_depth": depth}
        own = {**forgot.config, "strategy": strategy}
        run = case.Case(replace(forgot.record, config=own, alpha_curve=curve))
        return remedies.deeper(run), remedies.averaged(run)

    assert proposed(0, []) == (("freeze_depth=3",), ("alphas=10",))
    assert proposed(None, line) == (("freeze_depth=3",), ())
    assert proposed(3, line) == (("freeze_depth=all",), ())
    assert proposed("all", line) == ((), ())


def test_the_door_says_what_it_saw(tmp_path, capsys):
    ill = read("overfitting")
    store.write(tmp_path, ill.record)
    confusion.write(tmp_path / "confusion.npz", ill.confusion)
    assert doctor.examine([f"run={tmp_path}"]) == 1
    said = capsys.readouterr().out
    assert "overfitting\n  val/loss" in said
    assert "  try: epochs=" in said
    healthy = read("healthy_resnet")
    store.write(tmp_path, healthy.record)
    confusion.write(tmp_path / "confusion.npz", healthy.confusion)
    assert doctor.examine([f"run={tmp_path}"]) == 0
    assert "nothing found" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"no result\.json in it\. Give the folder of a run"):
        doctor.examine([f"run={tmp_path}/none"])


def test_a_run_that_failed_is_no_riddle(tmp_path, capsys):
    failed = {"status": "failed", "error": "disk full; make room"}
    store.write(tmp_path, replace(read("diverged").record, **failed, curve=[], final={}))
    doctor.examine([f"run={tmp_path}"])
    assert "it ended early: disk full; make room" in capsys.readouterr().out


def test_before_a_run_there_is_the_guides_checklist(capsys):
    words = ("model=clip_vitb32", "dataset=flowers102", "lr=1e-2", "warmup_steps=500")
    assert doctor.examine([*words, "epochs=100"]) == 1
    said = capsys.readouterr().out.splitlines()
    warned = "\n".join(line for line in said if line.startswith("warn"))
    assert "lr=0.01 (1e-05 to 0.0001 in the guide for full fine-tuning); try: lr=3.2e-05" in warned
    assert "epochs=100 (5 to 20); try: epochs=10" in warned
    assert "warmup_steps=500 of 1,600 steps (0.31 of the run, at most 0.3); try: warmup" in warned
    assert "alphas=None (WiSE-FT); try: alphas=10" in warned
    good = ("lr=1e-4", "epochs=10", "freeze_depth=6", "alphas=10", "retention=cifar10")
    assert doctor.examine(["model=clip_vitb32", "dataset=flowers102", *good]) == 0
    assert all(line.startswith("pass") for line in capsys.readouterr().out.splitlines())


def test_the_least_loss_of_smoothed_labels_is_their_entropy():
    told = read("healthy_resnet")
    record = replace(told.record, config={**told.config, "label_smoothing": 0.1})
    smoothed = case.Case(record, told.confusion)
    classes = told.confusion["val"].shape[0]
    target = np.full(classes, 0.1 / classes)
    target[0] += 0.9
    assert smoothed.floor == pytest.approx(entropy(target))


def test_none_of_these_doors_waits_for_torch():
    names = ("results.comparison", "doctor", "predict", "export")
    modules = ", ".join(f"clipbench.{name}" for name in names)
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_what_ails_from_too_little_is_told_every_remedy_of_the_guide():
    ill = read("underfitting")
    config = {**ill.config, "label_smoothing": 0.1, "weight_decay": 0.05}
    record = replace(ill.record, freeze_depth=2, config=config)
    found = symptoms.underfitting(case.Case(record, ill.confusion))
    remedies = " ".join(next(found).remedies)
    for word in ("lr=", "epochs=", "freeze_depth=0", "weight_decay=0.005 label_smoothing=0"):
        assert word in remedies


def test_a_run_without_val_is_refused(capsys):
    words = ["model=resnet_tiny", "freeze_depth=2"]
    assert doctor.examine(words) == 0
    assert "pass  epochs are chosen on val" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"trainer\.limit_val_batches=0: every split is evaluated"):
        doctor.examine([*words, "+trainer.limit_val_batches=0"])


def told(name, **changes):
    """A kept run with another record: ``config`` is merged into its own."""
    kept = read(name)
    changes["config"] = {**kept.config, **changes.get("config", {})}
    record = replace(kept.record, **changes)
    return case.Case(record, kept.confusion)


def curve(**columns):
    rows = zip(*columns.values(), strict=True)
    return [{"epoch": k, **dict(zip(columns, row, strict=True))} for k, row in enumerate(rows)]


def test_flyp_with_few_classes_cannot_come_below_ln_of_batch_by_classes():
    """Three equal classes and a batch of 48: 16 images of each cannot be told apart."""
    kept, even = read("healthy_flyp"), np.diag([20, 20, 20])
    rows = curve(**{"train/loss": [None, 2.79, 2.78, 2.775], "val/acc": [0.6, 0.8, 0.84, 0.85]})
    record = replace(kept.record, batch_size=48, curve=rows)
    few = case.Case(record, {"val": even})
    assert few.floor == pytest.approx(np.log(48 / 3))
    assert [*symptoms.underfitting(few)] == [*symptoms.nothing_learnt(few)] == []
    high = curve(**{"train/loss": [None, 3.7, 3.6, 3.58], "val/acc": [0.4, 0.45, 0.5, 0.5]})
    (finding,) = symptoms.underfitting(case.Case(replace(record, curve=high), {"val": even}))
    assert "guessing is 3.871, the least it can be 2.773" in finding.evidence
    masked = {**kept.config, "strategy": {**kept.config["strategy"], "duplicates": "masked"}}
    assert case.Case(replace(record, config=masked), {"val": even}).floor == 0
    uneven = case.Case(record, {"val": np.diag([54, 3, 3])})
    assert uneven.floor == pytest.approx(0.9 * np.log(0.9 * 48) + 0.1 * np.log(0.05 * 48))


def test_a_loss_that_epochs_are_chosen_by_counts_the_other_way():
    chosen = Selection("val/loss", epoch=5)
    falls = curve(**{"val/loss": [2.0, 1.6, 1.3, 1.1, 0.9, 0.8], "train/loss": [None, *[1.0] * 5]})
    run = told("healthy_clip", selection=chosen, curve=falls)
    (finding,) = symptoms.stopped_early(run)
    assert finding.evidence.startswith("val/loss still fell from 1.100 to 0.800")
    assert [*symptoms.no_gain(run)] == []
    flat = curve(**{"val/loss": [2.0, 1.6, 1.3, 0.83, 0.82, 0.81], "train/loss": [None, *[1] * 5]})
    assert [*symptoms.stopped_early(told("healthy_clip", selection=chosen, curve=flat))] == []
    worse = curve(**{"val/loss": [0.5, 0.9, 0.7, 0.8], "train/loss": [None, 0.4, 0.3, 0.2]})
    start = replace(chosen, epoch=0)
    (finding,) = symptoms.no_gain(told("healthy_clip", selection=start, curve=worse))
    assert finding.evidence == "val/loss 0.500 before training and at best 0.700 after"


def test_nothing_rises_from_what_is_perfect_or_next_to_nothing():
    chosen = Selection("val/acc", epoch=5)
    full = curve(**{"val/acc": [0.8, 0.9, 0.93, 0.95, 0.96, 1.0], "train/loss": [None, *[0.1] * 5]})
    assert [*symptoms.stopped_early(told("healthy_clip", selection=chosen, curve=full))] == []
    tiny = curve(
        **{
            "val/acc": [0.9, 1.0, 1.0, 1.0],
            "val/loss": [0.3, 0.0012, 0.0004, 0.0006],
            "train/loss": [None, 0.01, 0.001, 0.0002],
        }
    )
    found = symptoms.diagnose(told("healthy_clip", curve=tiny))
    assert not {"overfitting", "stopped early"} & {finding.name for finding in found}


SCRATCH = ("model.pretrained=null", "lr=2e-3", "warmup_steps=10000", "epochs=32")


@pytest.mark.parametrize(
    "words",
    [
        ("model=clip_vitb32", "dataset=imagefolder", *SCRATCH),
        ("model=clip_vitb16", "dataset=imagenet", *SCRATCH),
        ("model=resnet50", "dataset=flickr8k", "strategy=lit", *SCRATCH[1:], "warmup_steps=0"),
        (
            "model=clip_vitl14",
            "lr=1e-4",
            "epochs=10",
            "freeze_depth=12",
            "alphas=10",
            "retention=dtd",
        ),
        ("model=clip_vitb32", "strategy=zero_shot"),
        ("model=clip_vitb32", "strategy=linear_probe", "callbacks=none", "keep=all"),
    ],
)
def test_what_the_guide_itself_says_is_not_warned_of(words):
    points = [*checklist.checks(compose.compose(*words))]
    assert [point for point in points if not point[0]] == []


PLAIN = ("lr=0.3", "epochs=40", "warmup=0.8")


RANDOM = (*PLAIN[:2], "warmup_steps=90", "model.pretrained=null")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        *[(name, PLAIN) for name in ("clip_vitb32", "clip_tiny", "resnet50", "timm")],
        *[(name, RANDOM) for name in ("clip_vitl14", "resnet_tiny", "timm")],
    ],
)
def test_the_remedies_of_the_checklist_pasted_pass(model, words):
    typed = [f"model={model}", "dataset=cifar10", *words]
    for _ in range(3):  # with weights there are points that mean nothing without them
        failing = [p for p in checklist.checks(compose.compose(*typed)) if not p[0]]
        typed += [word for point in failing for word in shlex.split(point[2])]
    assert failing == []
    assert len(typed) > 5


def test_a_point_passes_or_warns_by_the_value_it_prints():
    def point(start, *words):
        found = checklist.checks(compose.compose("dataset=flowers102", *words))
        return [(passes, what) for passes, what, _ in found if what.startswith(start)]

    blog = ("model=clip_vitb32", "recipe=blog_clip")
    assert point("warmup_steps", *blog) == [
        (False, "warmup_steps=500 of 20 steps (25 of the run, at most 0.3)")
    ]
    assert point("warmup_steps", *blog, "steps=5000")[0][0]
    assert point("epochs=", *blog, "steps=5000") == []  # they do not count then
    assert point("retention", "model=resnet50") == point("alphas", "model=resnet50") == []
    assert point("lr", *blog, "freeze_depth=6") == [
        (False, "lr=3e-05 (5e-05 to 0.0005 in the guide for partial fine-tuning)")
    ]
    assert point("keep", *blog, "keep=3", "callbacks=none") == [
        (True, "keep=3 beside best.ckpt and last.ckpt (checkpoints)")
    ]


def test_a_partial_run_below_the_guides_range_is_named():
    """3e-5 is the model's own for all of it; the guide begins at 5e-5 where blocks are frozen."""
    model = compose.compose("model=clip_vitb32")["model"]
    kept = read("healthy_clip")
    half = {**kept.config["strategy"], "freeze_depth": 6}
    (finding,) = symptoms.learning_rate(
        told("healthy_clip", lr=3e-5, config={"model": model, "strategy": half})
    )
    assert "lr=3e-05; the OpenCLIP guide has 5e-05 to 0.0005 for partial" in finding.evidence
    whole = told("healthy_clip", lr=3e-5, config={"model": model})
    assert [*symptoms.learning_rate(whole)] == []


def test_what_is_forgotten_is_mixed_in_by_its_own_words():
    whole = compose.compose("model=clip_tiny", "retention=shapes", "retention.scene=pretrain")
    ill = read("forgetting")
    own = {**ill.config, "retention": whole["retention"]}
    (finding,) = symptoms.forgetting(case.Case(replace(ill.record, config=own), ill.confusion))
    assert "mix=shapes mix.scene=pretrain mix_fraction=0.25" in finding.remedies
    again = compose.compose(*shlex.split(finding.remedies[-1]))
    assert again["mix"]["scene"] == "pretrain"
