"""An average made again is the one that the run evaluated, or it is refused."""

import shutil
from pathlib import Path

import pytest
import torch

from clipbench import export
from clipbench.core.config.instantiate import build
from clipbench.core.errors import UserError
from clipbench.core.jobs import Job
from clipbench.inference import averages, saved_model
from clipbench.metrics import classification
from clipbench.results import store
from clipbench.results.record import RunRecord
from clipbench.training.run import execute
from tests.conftest import FEW, TINY, composed, result_json
from tests.test_run import CHOICES

COUNTS = "dataset.counts={train: 4, val: 6, test: 3, test_ood: 3}"
LINE = ("model=clip_tiny", *FEW, COUNTS, "dataset.subset=5", "batch_size=5", "warmup=0")
LINE = (*LINE, "logger=none", "alphas=[0,0.3,0.6,1]")
LOST = ("lr=3e-3", "monitor=loss")  # so much that no epoch is better than the start


def completed(*words, strategy="finetune"):
    choices = {**CHOICES, "model": "clip_tiny", "strategy": strategy}
    done = execute(Job(composed(*words, f"strategy={strategy}"), choices, list(words)))
    assert done.status == "completed", done.error
    return Path(done.folder), result_json(Path(done.folder))


def val_loss(classifier, record):
    """The loss on val, evaluated by hand."""
    data = build(record["config"]["dataset"])
    data.prepare(record["seed"])
    data.attach(preprocess=classifier.tower.preprocess, augment=None, batch_size=64, seed=0)
    with torch.no_grad():
        parts = [(classifier(b["image"]), b["label"]) for b in data.val_dataloader()]
    return classification.loss(*(torch.cat(column) for column in zip(*parts, strict=True)))


def assert_is_the_line(folder, record):
    losses = {row["alpha"]: row["val/loss"] for row in record["alpha_curve"]}
    assert len(set(losses.values())) == len(losses) == 4
    for alpha, loss in losses.items():
        found = val_loss(averages.between(folder, alpha), record)
        assert found == pytest.approx(loss, rel=1e-4), alpha


def test_where_the_start_was_chosen_the_line_leads_to_the_last_epoch(outputs):
    folder, record = completed(*LINE, *LOST)
    assert record["selection"]["epoch"] == 0
    assert_is_the_line(folder, record)
    # Also in a run without weights of its own, which took those of its twin.
    twin, other = completed(*LINE, *LOST, "alphas=[0,0.2,0.5,1]")
    assert other["weights_from"]["folder"] == folder.name
    assert not (twin / "checkpoints" / "last.ckpt").exists()
    assert_is_the_line(twin, other)
    (folder / "checkpoints" / "last.ckpt").unlink()
    with pytest.raises(UserError, match=r"last\.ckpt, the end, does not exist\. Restore it"):
        averages.between(folder, 0.6)


def test_a_head_that_follows_the_text_tower_is_that_of_the_average(outputs):
    folder, record = completed(*LINE, "lr=1e-3", "monitor=loss", strategy="flyp")
    assert_is_the_line(folder, record)


def test_the_end_of_a_probe_that_was_fitted_again_is_the_one_of_the_line(outputs):
    more = "dataset.counts={train: 16, val: 6, test: 3, test_ood: 3}"
    words = ("strategy.refit=true", "dataset.subset=null", more, "dataset.shots=16")
    folder, record = completed(*LINE, *words, strategy="linear_probe")
    assert record["selection"]["epoch"] == 1
    assert_is_the_line(folder, record)


@pytest.mark.parametrize("how", ["merge=fisher", "merge_bn=reestimate"])
def test_what_two_ends_do_not_make_is_read_from_its_file_or_refused(outputs, tmp_path, how):
    folder, record = completed(*LINE, "lr=1e-3", how, "alphas=[0,0.6,1]", "patience=1")
    losses = {row["alpha"]: row["val/loss"] for row in record["alpha_curve"]}
    chosen = record["selection"]["alpha"]
    for alpha in {0.0, chosen, 1.0}:
        found = val_loss(averages.between(folder, alpha), record)
        assert found == pytest.approx(losses[alpha], rel=1e-4), alpha
    with pytest.raises(
        UserError, match=rf"{how}: .* Use weights=merged, which is alpha={chosen:g}"
    ):
        averages.between(folder, 0.3)
    # As chosen, were it between the ends: the file itself.
    store.write(folder, {**record, "selection": {**record["selection"], "alpha": 0.3}})
    merged = saved_model.classifier(folder, "merged").state_dict()
    found = averages.between(folder, 0.3).state_dict()
    assert all(torch.equal(found[name], merged[name]) for name in merged)
    words = ["format=safetensors", "alpha=0.5", f"out={tmp_path}/x"]
    with pytest.raises(UserError, match=how):
        export.export([f"run={folder}", *words])


def test_a_model_without_batchnorm_has_nothing_to_estimate_again(outputs):
    config = {"merge": "wise_ft", "merge_bn": "reestimate"}
    record = {"config": config, "selection": {"alpha": 0.0}}
    strategy = build(composed("strategy=finetune")["strategy"])
    vit = build(composed("model=timm", "model.arch=test_vit", "model.pretrained=null")["model"])
    resnet = build(composed(*TINY)["model"])
    for tower, refused in ((vit, False), (resnet, True)):
        classifier = saved_model.Classifier(tower, torch.nn.Linear(4, 2), meaningful=True)
        if refused:
            with pytest.raises(UserError, match="merge_bn=reestimate"):
                averages._check_reproducible(RunRecord.from_json(record), strategy, classifier)
        else:
            averages._check_reproducible(RunRecord.from_json(record), strategy, classifier)


def test_a_dataset_that_has_other_classes_now_is_refused(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs["clip_tiny"][0], run)
    record = result_json(run)
    config = {**record["config"], "dataset": {**record["config"]["dataset"], "subset": 7}}
    store.write(run, {**record, "config": config, "selection": {"epoch": 1}})
    with pytest.raises(UserError, match="has 7 classes that are not the 24 of the run"):
        averages.between(run, 0.5)
