"""What comes after training, through whole runs: averages with the start, what is forgotten."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from clipbench.core.config.instantiate import build
from clipbench.core.errors import UserError
from clipbench.inference import saved_model
from clipbench.models import weight_files
from clipbench.results import identity as identity_module
from clipbench.results import predictions, store
from clipbench.results.record import RunRecord
from clipbench.training.robustness import wise_ft
from tests.conftest import FEW, TINY, composed, result_json, result_jsons
from tests.test_run import run_here

COUNTS = "counts={train: 4, val: 8, test: 12, test_ood: 12}"
WORDS = ("model=clip_tiny", *FEW, "dataset.subset=3", f"dataset.{COUNTS}", "batch_size=3")
WORDS = (*WORDS, "lr=3e-3", "warmup=0")
OTHER = ("retention=shapes", "retention.subset=4", f"retention.{COUNTS}", "retention.world_seed=1")


def completed(*words, **choices):
    done = run_here(*words, **{"model": "clip_tiny", **choices})
    assert done.status == "completed", done.error
    return Path(done.folder), result_json(Path(done.folder))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A plain run, and the same with alphas and a retention task."""
    patch = pytest.MonkeyPatch()
    patch.setenv("CLIPBENCH_OUTPUTS", str(tmp_path_factory.mktemp("after")))
    plain = completed(*WORDS)
    return plain, completed(*WORDS, *OTHER, "alphas=[0,0.25,0.5,1]")


def test_alphas_take_the_weights_of_a_run_that_trained_the_same(runs):
    (folder, plain), (_, averaged) = runs
    assert plain["key"] == plain["training"] == averaged["training"]
    assert averaged["key"] != plain["key"]
    assert plain["weights_from"] is None
    assert averaged["weights_from"] == {"key": plain["key"], "folder": folder.name}
    assert averaged["curve"][1:] == plain["curve"][1:]
    assert averaged["selection"]["epoch"] == plain["selection"]["epoch"]
    assert {k: averaged["final"][k] for k in plain["final"]} == plain["final"]
    assert averaged["cost"]["images_per_second"] == plain["cost"]["images_per_second"]
    assert averaged["cost"]["seconds"] > plain["cost"]["seconds"]


def line(runs):
    """Start, end and data of the runs: weights of open_clip's names and heads."""
    (folder, record), _ = runs
    data = build(record["config"]["dataset"])
    data.prepare(record["seed"])
    start = build(record["config"]["model"])
    head = start.zero_shot_head([[t.format(c) for t in data.templates] for c in data.classes])
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    end = {k.removeprefix("classifier."): v for k, v in last.items()}
    begin = {f"tower.{k}": v for k, v in start.state_dict().items()}
    begin |= {f"head.{k}": v for k, v in head.state_dict().items()}
    if record["selection"]["epoch"]:
        tuned = saved_model.classifier(folder).state_dict()
        assert all(torch.equal(tuned[k], end[k]) for k in tuned)  # there is but one epoch
    return begin, end, data


def test_a_point_of_the_curve_is_the_average_evaluated_by_hand(runs):
    begin, end, data = line(runs)
    _, (_, record) = runs
    weights = {k: 0.75 * begin[k] + 0.25 * end[k] for k in end}
    tower = build(record["config"]["model"])
    tower.load_state_dict(
        {k.removeprefix("tower."): v for k, v in weights.items() if k.startswith("tower.")}
    )
    data.attach(preprocess=tower.preprocess, augment=None, batch_size=64, seed=0)
    scores, labels = [], []
    with torch.no_grad():
        for batch in data.eval_dataloader("test_ood"):
            features = F.normalize(tower.eval()(batch["image"]), dim=-1)
            scores.append(F.linear(features, weights["head.weight"], weights["head.bias"]))
            labels.append(batch["label"])
    expected = F.cross_entropy(torch.cat(scores), torch.cat(labels))
    got = record["final"]["test_ood/loss@alpha=0.25"]
    assert got == pytest.approx(float(expected), rel=1e-4)
    assert got != pytest.approx(record["final"]["test_ood/loss@alpha=0"], rel=1e-2)


def test_the_curve_has_every_split_and_its_ends_are_the_ends(runs):
    (_, plain), (folder, record) = runs
    rows = record["alpha_curve"]
    assert [row["alpha"] for row in rows] == [0, 0.25, 0.5, 1]
    splits = {name.split("/")[0] for name in rows[0]} - {"alpha"}
    assert splits == {"val", "test", "test_ood", "retention"}
    flat = {
        f"{k}@alpha={row['alpha']:g}": v for row in rows for k, v in row.items() if k != "alpha"
    }
    assert flat.items() <= record["final"].items()
    zero = {k: v for k, v in plain["curve"][0].items() if k.startswith("val/")}
    assert zero == {k: rows[0][k] for k in zero}
    if plain["selection"]["epoch"]:
        ends = {k: v for k, v in plain["final"].items() if not k.endswith("scaled")}
        assert ends == {k: rows[-1][k] for k in ends}
    assert (folder / "alpha_curve.png").read_bytes()[:4] == b"\x89PNG"


def test_alpha_is_chosen_on_val_and_of_equals_the_smallest(runs):
    _, (folder, record) = runs
    scores = {row["alpha"]: row["val/acc"] for row in record["alpha_curve"]}
    best = min(alpha for alpha in scores if scores[alpha] == max(scores.values()))
    assert record["selection"]["alpha"] == best
    row = store.row(folder, RunRecord.from_json(record))
    assert row["test/acc@alpha"] == record["final"][f"test/acc@alpha={best:g}"]


def test_the_average_is_a_file_of_its_own(runs):
    (plain, _), (folder, record) = runs
    begin, end, _ = line(runs)
    alpha = record["selection"]["alpha"]
    merged = saved_model.classifier(folder, "merged").state_dict()
    for name in (n for n in merged if merged[n].is_floating_point()):
        expected = (1 - alpha) * begin[name] + alpha * end[name]
        torch.testing.assert_close(merged[name], expected, atol=1e-6, rtol=1e-5)
    same = load_file(folder / "model.safetensors"), load_file(plain / "model.safetensors")
    assert all(torch.equal(same[0][k], same[1][k]) for k in same[0])


def test_predictions_of_the_chosen_alpha_are_kept(runs):
    (plain, _), (folder, record) = runs
    alpha = record["selection"]["alpha"]
    for split in ("val", "test", "test_ood"):
        rows = predictions.predictions(folder, split, f"={alpha:g}")
        right = float((rows["label"] == rows["prediction"]).mean())
        assert right == record["final"][f"{split}/acc@alpha={alpha:g}"]
        assert predictions.saved(folder, split, "")
        assert not predictions.saved(plain, split, "")
    other = next(row["alpha"] for row in record["alpha_curve"] if row["alpha"] != alpha)
    assert not predictions.saved(folder, "test", f"={other:g}")
    with pytest.raises(UserError, match=f"at alpha={alpha:g} only, not at alpha={other:g}"):
        predictions.predictions(folder, "test", f"={other:g}")


def test_a_record_says_what_its_seed_means(runs):
    """Of the same setting but for its seed, in which few-shot training draws other images."""
    (_, plain), (_, merged) = runs
    assert plain["varies"]
    assert plain["setting"] != merged["setting"]  # it says nothing of averages
    dataset = {**plain["config"]["dataset"], "shots": None}
    start = {**plain["config"], "dataset": dataset}
    identity = {"config": start, "data": {"train": "a", "val": "b"}}
    config = {**start, "seed": 7}
    few = {**config, "dataset": {**config["dataset"], "shots": 5}}
    setting = identity_module.setting
    assert setting({**identity, "config": config}) == setting(identity)
    other = {"train": "c", "val": "b"}
    assert setting({"config": config, "data": other}) != setting(identity)
    drawn = [setting({"config": few, "data": data}) for data in (identity["data"], other)]
    assert drawn[0] == drawn[1]
    assert identity_module.of_seed({**identity, "config": few}, random=False, fits=True)["varies"]
    assert not identity_module.of_seed({**identity, "config": few}, random=False, fits=False)[
        "varies"
    ]
    assert not identity_module.of_seed(identity, random=False, fits=True)["varies"]


def test_the_temperature_is_kept_and_calibrates_val(runs):
    (folder, record), _ = runs
    assert 0.01 <= record["temperature"] <= 100
    for split in ("val", "test", "test_ood"):
        assert 0 <= record["final"][f"{split}/ece_scaled"] <= 1
    assert not (folder / "merged.safetensors").exists()


def test_nothing_is_forgotten_by_steps_of_no_size_and_much_by_large_ones(outputs):
    for lr, every in (("1e-30", "true"), ("0.05", "false")):
        words = (*WORDS, *OTHER, f"lr={lr}", f"retention_every_epoch={every}")
        _, record = completed(*words)
        before, after = record["curve"][0], record["curve"][1]
        names = [k for k in before if k.startswith("retention/")]
        assert {"retention/acc", "retention/loss"} <= set(names)
        assert record["data"]["retention"]["n"] == 48
        if lr == "1e-30":
            assert {k: before[k] for k in names} == {k: after[k] for k in names}
            assert {k: before[k] for k in names} == {k: record["final"][k] for k in names}
            assert before["retention/acc"] > 0.5
            continue
        assert not any(k.startswith("retention/") for k in after)
        _, record = completed(*words, "alphas=[1]")
        assert record["final"]["retention/acc@alpha=1"] < before["retention/acc"] - 0.1


def test_each_epochs_retention_is_of_the_weights_that_are_evaluated(outputs):
    """Of their average, where one is kept; and of both towers, where both train."""
    words = (*WORDS, *OTHER, "epochs=2", "retention_every_epoch=true", "alphas=[0,1]")
    for strategy, more in (("finetune", "ema=0.5"), ("flyp", "lr=1e-4")):
        _, record = completed(*words, more, strategy=strategy)
        assert record["weights_from"] is None
        names = [k for k in record["final"] if k.startswith("retention/") and "@" not in k]
        rows = [[row[k] for k in names] for row in record["curve"]]
        assert len({tuple(row) for row in rows}) == 3
        final = record["final"]
        chosen = record["selection"]["epoch"]
        assert [final[k] for k in names] == pytest.approx(rows[chosen], rel=1e-5)
        assert [final[f"{k}@alpha=0"] for k in names] == pytest.approx(rows[0], rel=1e-5)
        assert [final[f"{k}@alpha=1"] for k in names] == pytest.approx(rows[chosen or 2], rel=1e-5)


def test_another_dataset_is_seen_in_the_precision_of_the_run(outputs):
    """A head of text is made in float32, pictures are; the towers may be in double."""
    words = (*WORDS, *OTHER, "lr=1e-30", "alphas=[0,1]", "merge=fisher")
    mix = ("mix=shapes", "mix.subset=4", f"mix.{COUNTS}", "mix.world_seed=1")
    found = {}
    for precision in ("32-true", "64-true"):
        own = f"trainer.precision={precision}"
        found[precision] = completed(*words, *mix, "mix_fraction=0.34", own)[1]["final"]
    assert found["64-true"] == pytest.approx(found["32-true"], rel=1e-4, abs=1e-6)
    assert found["64-true"] != found["32-true"]


def test_a_probe_is_averaged_with_the_head_of_text(outputs):
    _, record = completed(*WORDS, "alphas=2", strategy="linear_probe")
    zero, _, one = record["alpha_curve"]
    assert zero["val/loss"] == pytest.approx(record["curve"][0]["val/loss"], rel=1e-5)
    assert one["val/loss"] == pytest.approx(record["curve"][1]["val/loss"], rel=1e-5)
    _, record = completed(*WORDS, "alphas=2", strategy="zero_shot")
    assert "where nothing is trained" in record["warnings"][-1]


def test_a_model_without_text_has_neither_whether_or_not_a_twin_trained_the_same(outputs):
    words = (*TINY, *FEW, "dataset.subset=3", "trainer.limit_train_batches=1")
    for more in (("alphas=2",), ()):  # by itself, then from the run that trained the same
        _, record = completed(*words, *OTHER, *more, model="timm")
        assert bool(record["weights_from"]) == (not more)
        missing = [w.split(":")[0] for w in record["warnings"] if w.startswith("no ")]
        assert missing == ["no retention", *(["no alphas"] if more else [])]
        assert not record["alpha_curve"]
        assert not any(k.startswith("retention/") or "@" in k for k in record["final"])
    (_, first), (_, second) = result_jsons(outputs)
    assert first["final"] == second["final"]
    assert first["curve"] == second["curve"]
    for name in ("best.ckpt", "../model.safetensors"):
        weights_of = [weight_files.read(f / "checkpoints" / name) for f, _ in result_jsons(outputs)]
        assert all(torch.equal(weights_of[0][k], weights_of[1][k]) for k in weights_of[0])


def test_what_a_clip_with_a_random_head_forgets_is_that_of_its_twin(outputs):
    words = (*WORDS, "strategy.head=random")
    _, plain = completed(*words)
    _, record = completed(*words, *OTHER)
    assert record["weights_from"]["key"] == plain["key"]
    assert 0 < record["final"]["retention/acc"] <= 1
    assert {k: record["final"][k] for k in plain["final"]} == plain["final"]


@pytest.mark.parametrize("merge", ["fisher", "paint"])
def test_other_merges(outputs, merge):
    words = (*WORDS, "alphas=[0,0.5,1]", f"merge={merge}", "merge_bn=reestimate")
    if merge == "paint":
        refused = run_here(*words, model="clip_tiny")
        assert "add strategy.head_trains=false" in refused.error
        words = (*words, "strategy.head_trains=false")
    folder, record = completed(*words)
    assert record["final"]["test/loss@alpha=0.5"] != record["final"]["test/loss@alpha=1"]
    assert any("replaces the pretrained statistics" in w for w in record["warnings"])
    if merge == "paint":
        data = build(record["config"]["dataset"])
        data.prepare(0)
        tower = build(record["config"]["model"])
        head = tower.zero_shot_head([[t.format(c) for t in data.templates] for c in data.classes])
        for stem in ("", "merged_"):
            assert torch.equal(load_file(folder / f"{stem}head.safetensors")["weight"], head.weight)


def test_alphas_are_a_list_or_a_number_of_steps():
    def asked(alphas_, merge="wise_ft", statistics="average"):
        return wise_ft.requested({"alphas": alphas_, "merge": merge, "merge_bn": statistics})

    assert asked(None) is None
    tenths = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]
    assert list(asked(10).alphas) == tenths
    assert list(asked([1, 0, 0.5, 0.5]).alphas) == [0, 0.5, 1]
    for wrong in ([1.1], "x", 0, -3, 0.5, ["0.1"], []):
        with pytest.raises(UserError, match="not numbers from 0 to 1"):
            asked(wrong)
    with pytest.raises(UserError, match="merge=soup: is not one of wise_ft, fisher, paint"):
        asked(None, merge="soup")
    with pytest.raises(UserError, match="merge_bn=x: is not one of"):
        asked(None, statistics="x")


def test_any_dataset_composes_as_a_retention_task_or_a_mix():
    for group in ("retention", "mix"):
        config = composed(f"{group}=flowers102", f"{group}.workers=3", "dataset.workers=1")
        assert config[group] == {**composed("dataset=flowers102")["dataset"], "workers": 3}
        assert config["dataset"]["workers"] == 1
    assert composed()["retention"] is None
