import json
import math
import multiprocessing
import os

from clipbench.results import identity, store
from clipbench.results.record import RunRecord
from tests.conftest import FEW, TINY, composed, result_json

BASE = ("dataset=shapes", "lr=1e-3")


def key_of(*overrides, **content):
    return identity.key(identity.identity(composed(*TINY, *BASE, *overrides), **content))


def test_key_is_eight_hex_digits_and_stable():
    assert key_of() == key_of()
    assert len(key_of()) == 8
    assert int(key_of(), 16) >= 0


def test_what_changes_the_outcome_changes_the_key():
    changes = [
        "seed=1",
        "lr=1e-4",
        "batch_size=32",
        "epochs=3",
        "freeze_depth=1",
        "warmup=0.2",
        "weight_decay=0.3",
        "label_smoothing=0.1",
        "trainer.precision=bf16-mixed",
        "dataset.shots=3",
        "model.image_size=48",
        "augment=none",
        "strategy=linear_probe",
    ]
    keys = [key_of(change) for change in changes]
    assert len({key_of(), *keys}) == len(changes) + 1
    assert key_of(data={"train": "a"}) != key_of(data={"train": "b"})


def test_what_cannot_change_the_outcome_does_not_change_the_key():
    for change in (
        "dataset.root=/elsewhere",
        "dataset.workers=3",
        "logger=none",
        "callbacks=none",
        "gate=off",
        "trainer.log_every_n_steps=1",
        "recipe.lr=7",  # the root's lr is given, so the recipe's is not used
        "model.recommended.lr=7",
    ):
        overrides = [change] if "root" not in change else [change, "dataset=elpv"]
        base = [] if "root" not in change else ["dataset=elpv"]
        assert key_of(*overrides) == key_of(*base), change


def test_a_record_is_read_back_and_numbers_that_are_not_finite_are_null(tmp_path):
    store.write(tmp_path, RunRecord(lr=math.nan, final={"a": math.nan, "b": [math.inf, 1.5]}))
    assert len(result_json(tmp_path)["sha256"]) == 64  # of its own body
    record = store.read(tmp_path)
    assert (record.lr, record.final) == (None, {"a": None, "b": [None, 1.5]})


def test_a_torn_or_foreign_record_is_none(tmp_path):
    path = tmp_path / "result.json"
    store.write(tmp_path, RunRecord(curve=[{"epoch": n} for n in range(3)]))
    whole = path.read_text()
    for end in range(len(whole.rstrip())):
        path.write_text(whole[:end])
        assert store.read(tmp_path) is None
    path.write_text(json.dumps({"schema": 99}))
    assert store.read(tmp_path) is None


def _killed_while_writing(folder):
    os.fsync = lambda descriptor: os._exit(9)
    store.write(folder, RunRecord(key="new"))


def test_a_kill_while_writing_leaves_the_old_record(tmp_path):
    store.write(tmp_path, RunRecord(key="old"))
    process = multiprocessing.get_context("fork").Process(
        target=_killed_while_writing, args=(tmp_path,)
    )
    process.start()
    process.join()
    assert process.exitcode == 9
    assert store.read(tmp_path).key == "old"


def test_a_strategy_that_does_not_train_has_one_key_whatever_the_recipe():
    from clipbench.core.jobs import Job
    from clipbench.training.spec import resolve

    def key(strategy, *overrides):
        config = composed(*TINY, f"strategy={strategy}", FEW[0], "dataset.shots=2", *overrides)
        choices = {"model": "timm", "dataset": "shapes", "strategy": strategy}
        return resolve(Job(config, choices, [])).key

    assert key("zero_shot") == key("zero_shot", "lr=7", "epochs=3", "augment=none")
    assert key("linear_probe") == key("linear_probe", "freeze_depth=2", "augment=none")
    assert key("linear_probe") == key("linear_probe", "lr=7")  # by L-BFGS
    sgd = "strategy.solver=sgd"
    assert key("linear_probe", sgd) != key("linear_probe", sgd, "lr=7")
    assert key("finetune") != key("finetune", "freeze_depth=2")
    idle = ("merge=fisher", "merge_bn=reestimate", "retention_every_epoch=true", "mix_weight=2")
    assert key("finetune") == key("finetune", *idle)
    assert key("finetune") != key("finetune", "alphas=2")
    assert key("finetune", "alphas=2") != key("finetune", "alphas=2", "merge=fisher")
