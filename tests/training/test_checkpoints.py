"""Which epoch is chosen, which are kept, and when training ends; and what of that is in the key."""

from pathlib import Path

import numpy as np
import pytest
import torch

from clipbench.core.errors import UserError
from clipbench.core.jobs import Job
from clipbench.metrics import classification, registry
from clipbench.metrics.intervals import goodness
from clipbench.results import identity
from clipbench.training.checkpoints import at_epoch, early_stopping
from clipbench.training.run import execute
from clipbench.training.spec import resolve
from tests.conftest import FEW, TINY, composed, result_json

CHOICES = {"model": "timm", "dataset": "shapes", "strategy": "finetune"}


def job(*words):
    return Job(composed(*TINY, *FEW, "augment=none", *words), CHOICES, [])


def done(*words):
    """A run in this process: its folder, its record."""
    outcome = execute(job(*words))
    assert outcome.status == "completed", outcome.error
    record = result_json(Path(outcome.folder))
    assert record is not None
    return Path(outcome.folder), record


def val_loss(classifier, data):
    data.attach(preprocess=classifier.tower.preprocess, augment=None, batch_size=64, seed=0)
    with torch.no_grad():
        parts = [(classifier(b["image"]), b["label"]) for b in data.val_dataloader()]
    logits, labels = (torch.cat(column) for column in zip(*parts, strict=True))
    return classification.loss(logits, labels)


def test_every_epoch_is_kept_as_it_was_evaluated(outputs):
    """With an average of the weights, which is what was evaluated."""
    words = ("epochs=3", "lr=3e-3", "batch_size=24", "ema=0.5")
    folder, record = done(*words, "keep=all")
    names = sorted(p.name for p in (folder / "checkpoints").glob("epoch-*"))
    assert names == [f"epoch-0{n}.ckpt" for n in (1, 2, 3)]
    losses = [row["val/loss"] for row in record["curve"][1:]]
    assert len(set(losses)) == 3
    data = resolve(job(*words)).data.dataset
    for epoch, loss in enumerate(losses, 1):
        assert val_loss(at_epoch(folder, epoch), data) == pytest.approx(loss, rel=1e-5)
    with pytest.raises(UserError, match="kept no epoch 5; run it again with keep=all"):
        at_epoch(folder, 5)


def test_the_best_few_are_kept_and_chosen_by_any_metric(outputs):
    """By val/loss, where less is better: epochs, and averages with the start."""
    words = ("epochs=4", "lr=1e-2", "batch_size=24", "monitor=loss", "strategy.head=lp")
    folder, record = done(*words, "keep=2", "alphas=2")
    losses = [row["val/loss"] for row in record["curve"]]
    assert record["selection"]["metric"] == "val/loss"
    assert record["selection"]["epoch"] == int(np.argmin(losses))
    assert record["final"]["val/loss"] == pytest.approx(min(losses), rel=1e-5)
    kept = {int(p.stem[-2:]) for p in (folder / "checkpoints").glob("epoch-*")}
    assert kept == set(1 + np.argsort(losses[1:], kind="stable")[:2])
    line = {row["alpha"]: row["val/loss"] for row in record["alpha_curve"]}
    assert record["selection"]["alpha"] == min(line, key=line.get)
    assert len(set(line.values())) == 3


def test_patience_ends_a_run_and_its_record_says_where(outputs):
    """The learning rate is far too high, so that val gets no better at some point."""
    words = ("epochs=12", "lr=0.3", "batch_size=24", "monitor=loss", "warmup=0")
    _, record = done(*words, "patience=2")
    losses = [row["val/loss"] for row in record["curve"][1:]]
    best = 1 + int(np.argmin(losses))
    assert len(losses) == best + 2 < 12, "two more than the best, and no further"
    assert record["selection"]["epoch"] == best
    steps = record["steps"]
    assert steps["stopped"] == len(losses)
    assert steps["taken"] == len(losses) * 2
    assert steps["total"] == 24, "what was planned stays"
    (said,) = [w for w in record["warnings"] if "stopped early" in w]
    part = 0.5 * (1 + np.cos(np.pi * steps["taken"] / 24))
    assert f"still at {part:.0%} of its peak" in said


@pytest.mark.parametrize(("words", "said"), [
    (("monitor=accuracy",), "val has no monitor=accuracy; use one of loss, acc"),
    (("patience=0",), "patience=0: is not a whole number from 1 up"),
    (("keep=some",), "keep=some: is not a whole number from 1 up or all"),
])  # fmt: skip
def test_what_there_is_not_is_refused(outputs, words, said):
    outcome = execute(job(*words))
    assert outcome.status == "failed"
    assert outcome.error.startswith(said)


def test_less_is_better_of_a_loss_and_of_no_score():
    lower = {name for name in registry.COMPUTED if goodness(f"val/{name}", 1.0) < 0}
    assert lower == {"loss", "ece"}
    assert goodness("val/image_median_rank", 3) == -3
    assert goodness("test/loss@alpha=0.5", 3) == -3
    assert goodness("test/ece_scaled", 3) == -3
    assert goodness("test/image_recall@5", 3) == 3
    assert early_stopping("val/loss", 3).mode == "min"
    assert early_stopping("val/macro_f1", 3).mode == "max"


def test_the_key_has_what_changes_a_run_and_no_onlooker():
    def key(*words):
        return identity.key(identity.identity(composed(*TINY, "dataset=shapes", *words)))

    stop = "+callbacks.stop._target_=pytorch_lightning.callbacks"
    same = ("keep=all", "keep=2", "callbacks=none", f"{stop}.DeviceStatsMonitor")
    assert {key(word) for word in same} == {key()}
    config = composed(*TINY, "dataset=shapes")
    for name in ("monitor", "patience", "keep"):
        del config[name]
    assert identity.key(identity.identity(config)) == key(), "older runs keep their keys"
    swa = f"{stop}.StochasticWeightAveraging"
    others = ("patience=3", "monitor=loss", f"{stop}.EarlyStopping", swa)
    assert len({key(), *map(key, others)}) == 5
