"""The guide's ranges, what recipes say, and what is chosen where a recipe leaves it open."""

import re

import pytest

from clipbench.core import paths
from clipbench.core.config.instantiate import build
from clipbench.core.jobs import Job
from clipbench.strategies.finetune import Finetune
from clipbench.strategies.zero_shot import ZeroShot
from clipbench.training import recommendations
from clipbench.training.run import execute
from tests.conftest import TINY, composed, result_jsons
from tests.test_run import CHOICES

CLIP = ("model=clip_vitb32", "dataset=shapes")
FEW = "dataset.counts={train: 2, val: 3, test: 3, test_ood: 3}"


def run_here(*words):
    """A whole run, in this process."""
    return execute(Job(composed(*words), CHOICES, list(words)))


def of(*words, pictures=1020, classes=102, gpu=False):
    """Facts and recipe of a command line, on a dataset of any size."""
    config = composed(*words)
    strategy = build(config["strategy"])
    found = recommendations.Facts(
        images=pictures,
        classes=classes,
        model=config["model"],
        tuning=config["strategy"],
        strategy=strategy,
        gpu=gpu,
    )
    root = {k: v for k, v in config.items() if k in config["recipe"]}
    return found, {**config["recipe"], **root}


def chosen(*words, **about):
    found, recipe = of(*CLIP, "recipe=auto", *words, **about)
    return recommendations.chosen(recipe, found)


# The guide's table.
@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("strategy=finetune",), "full fine-tuning"),
        (("strategy=finetune", "freeze_depth=6"), "partial fine-tuning"),
        (("strategy=finetune", "freeze_depth=all"), "a frozen encoder"),
        (("strategy=linear_probe",), "a frozen encoder"),
        (("strategy=contrastive",), "full fine-tuning"),
        (("strategy=contrastive", "text_freeze_depth=3"), "partial fine-tuning"),
        (("strategy=image_only",), "a frozen encoder"),
        (("strategy=text_only",), "a frozen encoder"),
        (("strategy=flyp",), "full fine-tuning"),
        (("strategy=lit",), "training from scratch"),
    ],
)
def test_every_way_of_tuning_has_its_row_of_the_guide(words, kind):
    assert of(*CLIP, *words)[0].kind == kind


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("lr=1e-5", "epochs=10"), None),
        (("lr=1e-4", "epochs=5"), None),
        (("lr=2e-4",), "full fine-tuning: lr=0.0002 (1e-05 to 0.0001)"),
        (("lr=2e-4", "freeze_depth=6"), None),
        (("lr=9e-6", "epochs=21"), "lr=9e-06 (1e-05 to 0.0001), epochs=21 (5 to 10)"),
        (("lr=1e-5", "epochs=20", "batch_size=64"), None),  # what recipe=auto takes
        (("lr=1e-5", "epochs=20", "batch_size=8"), "epochs=20 (5 to 10)"),  # 128 steps each
        (("recipe=wise_ft",), "full fine-tuning: warmup_steps=500 (1000 to 5000)"),
        (("recipe=wise_ft", "warmup_steps=1000"), None),
        (("strategy=text_only", "lr=1e-3", "epochs=20"), None),
        (("strategy=text_only", "lr=1e-3", "epochs=5"), "a frozen encoder: epochs=5 (10 to 20)"),
        (("strategy=lit", "epochs=40"), None),
        (("strategy=lit", "epochs=8"), "training from scratch: epochs=8 (32 or more)"),
        (("epochs=3", "steps=500"), None),  # steps count then
        (("model=clip_tiny", "lr=3e-4"), None),  # what its own file recommends
        (("model=resnet50", "lr=0.1"), None),  # the guide is on CLIP
        (("strategy=zero_shot", "epochs=1"), None),
        (("freeze_depth=6", "lr=3e-5"), "partial fine-tuning: lr=3e-05 (5e-05 to 0.0005)"),
        (("model.pretrained=null", "lr=2e-3", "epochs=32", "warmup_steps=10000"), None),
        (("model.pretrained=null", "lr=1e-4", "epochs=32"), "lr=0.0001 (0.001 to 0.005)"),
    ],
)
def test_a_value_outside_the_guides_range_is_said(words, said):
    found = recommendations.check_ranges(*of(*CLIP, *words))
    if said is None:
        assert found == []
    else:
        (warning,) = found
        assert warning.startswith("outside the OpenCLIP guide's range for ")
        assert warning.endswith(said)


def test_a_small_set_gets_steps_regularisation_and_proposals():
    """Flowers102, where the blog's batch of 512 left two steps an epoch."""
    values, reasons = chosen()
    assert values == {
        "batch_size": 64,
        "epochs": 20,
        "warmup": 0.2,
        "lr": 3e-5,
        "weight_decay": 0.2,
        "label_smoothing": 0.1,
    }
    assert [line.split("=")[0] for line in reasons[:6]] == list(values)
    assert "linear_probe" in reasons[6]
    assert "freeze_depth" in reasons[7]


def test_a_large_set_has_few_epochs_and_no_proposals():
    values, reasons = chosen(pictures=76_863, classes=62, gpu=True)
    assert values["batch_size"] == 256
    assert values["epochs"] == 5
    assert values["warmup"] == 0.1
    assert (values["weight_decay"], values["label_smoothing"]) == (0.1, 0.0)
    assert len(reasons) == len(values)


@pytest.mark.parametrize(
    ("words", "about", "key", "value"),
    [
        (("freeze_depth=6",), {}, "lr", 15e-5),  # the guide: partial is 5 times full
        (("freeze_depth=all",), {}, "lr", 3e-4),  # and frozen 10 times
        (("strategy=text_only",), {}, "lr", 3e-4),  # its own
        (("strategy=text_only",), {"pictures": 10**6}, "epochs", 10),
        ((), {"pictures": 40, "classes": 20}, "batch_size", 16),
        (("batch_size=16",), {}, "epochs", 8),  # 64 steps an epoch
        (("model=resnet50", "freeze_depth=8"), {}, "lr", 1e-3),  # no CLIP: the model's
        (("model=resnet50",), {}, "weight_decay", 1e-4),
    ],
)
def test_what_is_chosen_follows_from_the_facts(words, about, key, value):
    values, reasons = chosen(*words, **about)
    assert values[key] == pytest.approx(value)
    assert any(line.startswith(f"{key}=") for line in reasons)


def test_what_is_given_is_kept_and_null_asks_any_recipe():
    values, _ = chosen("lr=1e-4", "epochs=7")
    assert not {"lr", "epochs"} & set(values)
    found, recipe = of(*CLIP, "recipe=wise_ft", "lr=null", "batch_size=64")
    values, _ = recommendations.chosen(recipe, found)
    assert values == {"lr": 3e-5}
    found, recipe = of(*CLIP, "recipe=wise_ft")
    assert recommendations.chosen(recipe, found) == ({}, [])


def test_too_few_pictures_to_tune_on():
    _, reasons = chosen(pictures=204)
    assert any("strategy=zero_shot" in line for line in reasons)
    _, reasons = chosen("model=resnet50", pictures=204)
    assert not any("zero_shot" in line for line in reasons)


def test_an_average_too_slow_for_its_run_is_said():
    """FT-CLIP's 0.9998 on Flowers102's 80 steps."""
    (warning,) = recommendations.check_ema(0.9998, 80)
    assert warning.startswith("ema=0.9998 leaves 98% of the first step's weights")
    assert recommendations.check_ema(0.9998, 31_250) == []
    assert recommendations.check_ema("auto", 80) == recommendations.check_ema(None, 80) == []


def test_a_stage_that_never_begins_is_said():
    """Epochs count from 0: what begins once 4 are over has no place in 4."""
    staged = Finetune(freeze_depth="all", stages=[[2, 2], [4, 0], [7, 0]])
    assert recommendations.check_stages(staged, 8) == []
    (warning,) = recommendations.check_stages(staged, 4)
    assert warning.startswith("strategy.stages: what should begin once 4 and 7 epochs are over")
    assert warning.endswith("never does in epochs=4; begin earlier, or train for longer")
    found, recipe = of(*CLIP, "strategy.stages=[[9,0]]", "epochs=9")
    assert (
        sum("strategy.stages" in line for line in recommendations.warnings(found, recipe, 90)) == 1
    )
    assert recommendations.check_stages(ZeroShot(), 1) == []


def test_a_run_keeps_the_reasons_and_is_the_run_that_says_the_same(outputs):
    words = (*TINY, FEW, "trainer=cpu", "dataset.subset=5", "logger=none")
    auto = run_here(*words, "recipe=auto", "epochs=2")
    assert auto.status == "completed", auto.error
    ((_, record),) = result_jsons(outputs)
    assert any(line.startswith("lr=0.001: what conf/model") for line in record["advice"])
    assert record["lr"] == record["config"]["lr"] == 1e-3
    assert record["batch_size"] == 16
    values = ("batch_size=16", "warmup=0.2", "lr=1e-3", "weight_decay=1e-4", "label_smoothing=0.0")
    said = run_here(*words, "recipe=auto", "epochs=2", *values)
    assert said.before
    assert said.key == auto.key


def test_a_warning_is_kept_in_the_record(outputs):
    words = ("model=clip_tiny", FEW, "epochs=1", "batch_size=8", "trainer=cpu", "lr=2e-3")
    words += ("ema=0.999",)
    done = run_here(*words)
    assert done.status == "completed", done.error
    ((_, record),) = result_jsons(outputs)
    (warning,) = [w for w in record["warnings"] if "OpenCLIP" in w]
    assert warning.endswith("lr=0.002 (1e-05 to 0.0001), epochs=1 (5 to 10)")
    assert any("ema=auto fits the run" in w for w in record["warnings"])


RECIPES = sorted((paths.CONF / "recipe").glob("*.yaml"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("wise_ft",), {"lr": 3e-5, "batch_size": 512, "epochs": 10, "warmup_steps": 500}),
        (("wise_ft",), {"weight_decay": 0.1, "decay_all": True, "clip_norm": 1.0}),
        (("flyp",), {"lr": 1e-5, "batch_size": 256, "weight_decay": 0.2, "clip_norm": None}),
        (("ft_clip",), {"lr": 6e-4, "layer_decay": 0.6, "ema": "auto", "min_lr": 1e-6}),
        (("ft_clip",), {"label_smoothing": 0.1, "warmup": 0.2, "epochs": 50, "weight_decay": 0.05}),
        (("ft_clip", "batch_size=64"), {"lr": 6e-4 / 32}),  # in proportion to the batch
        (("ft_clip", "batch_size=64", "recipe.base_lr=4e-4"), {"lr": 4e-4 / 32}),
        (("ft_clip", "batch_size=64", "lr=1e-4"), {"lr": 1e-4}),
        (("openclip_full",), {"lr": 3e-5, "epochs": 8}),
        (("openclip_partial",), {"lr": 1.6e-4, "epochs": 8}),
        (("openclip_frozen",), {"lr": 3e-4, "epochs": 15}),
        (("quick",), {"lr": 1e-5, "epochs": 5, "eps": 1e-6}),
        (("production",), {"epochs": 10, "warmup_steps": 1000}),
        (("conservative",), {"lr": 1e-5, "layer_decay": 0.65}),
        (("blog_clip",), {"lr": 3e-5, "batch_size": 512, "epochs": 10, "warmup_steps": 500}),
        (("blog_resnet50",), {"lr": 1e-3, "head_lr_factor": 10, "batch_size": 256, "epochs": 20}),
        (("jina",), {"lr": 1e-6, "min_lr": 1e-6, "epochs": 5, "batch_size": 64}),
    ],
)
def test_a_recipe_says_what_its_source_says(words, expected):
    name, *overrides = words
    _, recipe = of(*CLIP, f"recipe={name}", *overrides)
    for key, value in expected.items():
        assert recipe[key] == (pytest.approx(value) if isinstance(value, float) else value), key


def test_the_middles_of_the_guides_ranges_are_the_recipes_and_inside_them():
    for name, words in {
        "full": (),
        "partial": ("freeze_depth=6",),
        "frozen": ("strategy=text_only",),
    }.items():
        found, recipe = of(*CLIP, f"recipe=openclip_{name}", *words)
        assert recommendations.check_ranges(found, recipe) == []
        middle = recommendations.GUIDE[found.kind].middle
        assert recipe["lr"] == pytest.approx(middle, rel=0.06)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_value_of_a_recipe_names_its_source(path):
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ")
    values = [line for line in lines if re.match(r"\w+: ", line)]
    assert values
    if path.stem not in ("default", "auto"):
        assert [line for line in values if "#" not in line] == []


def test_the_recipes_that_people_type_are_frozen():
    assert {path.stem for path in RECIPES} == {
        *("default", "auto", "wise_ft", "flyp", "ft_clip"),
        *("openclip_full", "openclip_partial", "openclip_frozen"),
        *("quick", "production", "conservative", "blog_clip", "blog_resnet50", "jina"),
    }
