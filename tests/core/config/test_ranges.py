"""Numbers and keys that cannot be meant are refused before any data is looked at."""

import copy
import itertools

import pytest

from clipbench import doctor, plan
from clipbench.core.config import compose, ranges
from clipbench.core.errors import UserError
from clipbench.core.jobs import Job
from clipbench.training import sanity_checks
from clipbench.training.run import execute
from tests.conftest import clipbench, composed


@pytest.fixture(scope="module")
def root():
    return composed("dataset=imagefolder", "dataset.root=/nowhere", "retention=shapes")


def given(root, key, value):
    """The root with one value changed, as the command line would."""
    changed = copy.deepcopy(root)
    node, *rest = changed, *key.split(".")
    for part in rest[:-1]:
        node = node[part]
    node[rest[-1]] = value
    if key == "epochs":  # as conf/trainer has it
        changed["trainer"]["max_epochs"] = value
    return changed


BAD = {
    "lr": (0, -1e-5, float("nan"), float("inf")),
    "batch_size": (0, -3),
    "micro_batch": (0,),
    "seed": (-1, 2**32),
    "epochs": (-1,),
    "steps": (0,),
    "warmup": (-0.1,),
    "warmup_steps": (-5,),
    "weight_decay": (-0.1, float("inf")),
    "layer_decay": (0, 1.5),
    "ema": (1, -0.5, "often"),
    "label_smoothing": (1.0, -0.1),
    "mix_fraction": (0, 1),
    "patience": (0,),
    "keep": (0, "some", 1.5),
    "timeout": (0,),
    "rank_timeout": (-1,),
    "freeze_depth": (-1, "half", 1.5),
    "ckpt.every_steps": (0, "often"),
    "recipe.betas": ([0.9, 1.0], [-1, 0.9]),
    "recipe.clip_norm": (0,),
    "trainer.limit_train_batches": (0,),
    "trainer.log_every_n_steps": (0,),
    "dataset.workers": (-1,),
    "dataset.shots": (0,),
    "retention.cache_gb": (-2.0,),
}


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, vs in BAD.items() for v in vs])
def test_a_number_out_of_range_names_its_key_and_what_it_may_be(root, key, value):
    with pytest.raises(UserError) as refusal:
        sanity_checks.config(given(root, key, value))
    assert str(refusal.value).startswith(f"{key}={value}: is not a")
    assert refusal.value.details == []


GOOD = {
    "lr": (1e-9, 10, None),
    "batch_size": (1, 4096, None),
    "epochs": (0, 5),
    "seed": (0, 2**32 - 1),
    "warmup": (0.0, 0.5, None),
    "layer_decay": (1.0, 0.65),
    "ema": ("auto", 0.999, 0, None),
    "keep": ("all", 3, None),
    "freeze_depth": (0, 12, "all"),
    "recipe.betas": ([0.9, 0.98],),
    "recipe.clip_norm": (None, 0.05),
    "trainer.limit_train_batches": (3, 0.1, None),
    "trainer.limit_val_batches": (1.0, None),
    "trainer.accumulate_grad_batches": (1,),
    "trainer.max_steps": (-1,),
}


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, vs in GOOD.items() for v in vs])
def test_what_has_a_meaning_is_taken(root, key, value):
    sanity_checks.config(given(root, key, value))


@pytest.mark.parametrize(
    ("key", "value", "instead"),
    [
        ("max_epochs", 3, "Use epochs=3"),
        ("max_steps", 100, "Use steps=100"),
        ("accumulate_grad_batches", 4, "micro_batch"),
        ("fast_dev_run", True, "debug=limit"),
        ("fast_dev_run", 1, "debug=limit"),
        ("overfit_batches", 2, "debug=limit"),
        ("limit_val_batches", 0, "evaluated whole"),
        ("limit_val_batches", 1, "evaluated whole"),
        ("limit_test_batches", 0.5, "evaluated whole"),
        ("val_check_interval", 0.5, "after each epoch"),
        ("num_sanity_val_steps", 2, "epoch 0"),
        ("max_time", "00:01:00:00", "timeout="),
    ],
)
def test_a_key_of_lightnings_that_a_run_plans_itself_names_ours(root, key, value, instead):
    with pytest.raises(UserError) as refusal:
        sanity_checks.config(given(root, f"trainer.{key}", value))
    assert str(refusal.value).startswith(f"trainer.{key}={value}: ")
    assert instead in str(refusal.value)


@pytest.mark.parametrize("name", ["gpu", "cuda", "mps", "tpu"])
def test_an_accelerator_that_is_not_there(root, name, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    with pytest.raises(UserError, match=rf"trainer.accelerator={name}: .*Use "):
        sanity_checks.config(given(root, "trainer.accelerator", name))
    sanity_checks.config(given(root, "trainer.accelerator", "cpu"))


def test_more_devices_than_there_are(root, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    gpu = given(root, "trainer.accelerator", "gpu")
    sanity_checks.config(given(gpu, "trainer.devices", 2))
    with pytest.raises(UserError, match=r"trainer\.devices=3: there are 2 here"):
        sanity_checks.config(given(gpu, "trainer.devices", 3))
    sanity_checks.config(given(given(gpu, "trainer.accelerator", "cpu"), "trainer.devices", 3))


def test_every_key_of_the_table_is_a_key_of_the_config():
    keys = set(compose.keys())
    also = ("retention.", "mix.")  # datasets in two more places, which are null by default
    assert {key for key in ranges.RANGES if not key.startswith(also)} <= keys
    assert {key for key in ranges.RANGES if key.startswith("dataset.")} <= keys
    for place in also:
        nodes = {key.removeprefix(place) for key in ranges.RANGES if key.startswith(place)}
        assert nodes == {"workers", "shots", "cache_gb"}


def test_several_are_told_at_once_and_before_the_data(root, outputs):
    wrong = given(given(root, "lr", -1.0), "trainer.max_steps", 7)
    choices = {"model": "clip_tiny", "dataset": "imagefolder", "strategy": "finetune"}
    outcome = execute(Job(wrong, choices, []))
    assert outcome.error.startswith("lr=-1.0: is not a number above 0")
    assert outcome.details == ["trainer.max_steps=7: the length of a run is epochs or steps. Use "
                               "steps=7"]  # fmt: skip
    assert not list(outputs.rglob("*"))


@pytest.mark.parametrize("door", [doctor.examine, plan.plan])
def test_the_commands_that_only_look_refuse_the_same(door):
    with pytest.raises(UserError, match="batch_size=0: is not a whole number from 1 up"):
        door(["model=resnet_tiny", "dataset=shapes", "batch_size=0"])


def test_one_pair_is_nothing_to_tell_apart(outputs):
    words = ("strategy=contrastive", "trainer=cpu", "dataset.shots=2")
    for batch, word in itertools.product((1,), ("strategy=contrastive", "strategy=flyp")):
        node = composed(*words[1:], word, f"batch_size={batch}")
        choices = {"model": "clip_tiny", "dataset": "shapes", "strategy": word}
        outcome = execute(Job(node, choices, []))
        assert outcome.error.startswith("batch_size=1: the loss compares pairs")


def test_from_the_command_line(tmp_path):
    env = {"CLIPBENCH_OUTPUTS": str(tmp_path)}
    done = clipbench("-m", "seed=-1,0", "+trainer.max_steps=3", "lr=1e-3", env=env)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    first, second = done.stderr.split("failed: ")[1:]
    assert first.startswith("seed=-1: is not a whole number from 0 to 4294967295. Use one")
    assert "trainer.max_steps=3" in first.splitlines()[1]
    assert second.startswith("trainer.max_steps=3: the length of a run is epochs or steps.")
