import pytest
import torch

from clipbench.core.errors import UserError
from clipbench.loading.samplers import EpochPlan
from clipbench.models.base import Classifier
from clipbench.models.clip import CLIP
from clipbench.models.timm import Timm
from clipbench.strategies.finetune import Finetune
from clipbench.strategies.recipe import Recipe
from clipbench.training import sanity_checks
from clipbench.training.schedule import Schedule
from tests.conftest import composed

RECIPE = Recipe.of(composed("lr=3e-5", "epochs=10"))


def test_the_blogs_warmup_is_refused_with_its_cause():
    with pytest.raises(
        UserError, match=r"500 steps never ends in a run of 20 steps.*4%.*warmup=0.1"
    ):
        sanity_checks.warmup(Schedule(20, 500), RECIPE, allowed=False)
    sanity_checks.warmup(Schedule(20, 500), RECIPE, allowed=True)
    sanity_checks.warmup(Schedule(20, 19), RECIPE, allowed=False)


def test_no_steps_is_an_error_even_when_unfinished_warmup_is_allowed():
    with pytest.raises(UserError, match="no training step"):
        sanity_checks.warmup(Schedule(0, 0), RECIPE, allowed=True)


def test_the_published_number_of_flowers102_is_found_and_others_are_not():
    found = sanity_checks.published_zero_shot("ViT-B-32-quickgelu", "openai", "vtab/flowers")
    assert found == pytest.approx(0.66, abs=0.01)
    assert sanity_checks.published_zero_shot("ViT-B-32-quickgelu", None, "vtab/flowers") is None
    assert sanity_checks.published_zero_shot("ViT-B-32-quickgelu", "openai", None) is None
    assert sanity_checks.published_zero_shot("ViT-B-32-quickgelu", "nobody", "vtab/flowers") is None


def test_zero_shot_gate():
    def ask(acc, reference, gate=True):
        return sanity_checks.zero_shot(
            "accuracy",
            acc,
            chance=1 / 102,
            reference=reference,
            cause="names and labels disagree",
            gate=gate,
        )

    with pytest.raises(UserError, match="names and labels disagree"):
        ask(0.05, 0.66)
    assert "disagree" in ask(0.05, 0.66, gate=False)
    assert ask(0.34, 0.66) is None
    assert "at chance" in ask(0.01, None)  # nothing to compare with: a warning, no stop
    assert ask(0.2, None) is None


@pytest.mark.parametrize(
    ("rows", "size", "devices", "micro", "least"),
    [
        *((33, 8, 1, None, 1), (32, 8, 1, None, 8), (5, 8, 1, None, 5), (0, 8, 1, None, 0)),
        *((34, 8, 2, None, 1), (35, 8, 2, None, 2), (32, 8, 2, 3, 1), (32, 8, 1, 3, 2)),
    ],
)
def test_the_fewest_rows_are_those_of_the_shortest_part(rows, size, devices, micro, least):
    """Worked by hand: 33 are 4 x 8 and 1; 35 on two devices end in 3, which are 2 and 2."""
    assert EpochPlan(rows).fewest(size, devices, micro) == least


def test_one_image_for_a_batchnorm_is_refused_where_torch_would_raise():
    options = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}
    strategy = Finetune()

    def classifier(side):
        tower = Timm(arch="resnet18", image_size=side, options=options)
        return Classifier(tower, torch.nn.Linear(8, 3), meaningful=False)

    small, large = classifier(32), classifier(64)
    with pytest.raises(ValueError, match="more than 1 value"):
        small.train()(torch.zeros(1, 3, 32, 32))
    before = {name: value.clone() for name, value in small.state_dict().items()}
    with pytest.raises(UserError, match=r"batch_size=8 leaves a device one image.*batch_size=7"):
        sanity_checks.lone_image(small, strategy, EpochPlan(33).fewest, 8)
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())
    sanity_checks.lone_image(small, strategy, EpochPlan(34).fewest, 8)
    sanity_checks.lone_image(large, strategy, EpochPlan(33).fewest, 8)
    sanity_checks.lone_image(small, Finetune(frozen_statistics=True), EpochPlan(33).fewest, 8)
    with pytest.raises(UserError, match=r"batch_size=1 .*use strategy.frozen_statistics=true"):
        sanity_checks.lone_image(small, strategy, lambda size: 1, 1)


LONG = "a photo of the part of a machine that is shown on the drawing at the left side of the "


def test_prompts_that_are_cut_off_and_the_classes_that_then_share_one():
    tower = CLIP(arch="clip_tiny")
    classes = ["bolt", "nut", f"{LONG} bolt", f"{LONG} nut", f"{LONG} cog"]
    prompts = [[f"a {name}.", f"{name}"] for name in classes]
    cut, same = sanity_checks.texts(tower, [], {"": (classes, prompts)})
    assert cut == "6 of 10 class prompts are longer than this model reads: their ends are cut off"
    assert same.startswith(
        f"this model reads the prompts of {LONG} bolt and {LONG} nut (and 1 more) as the same"
    )
    assert sanity_checks.texts(tower, [], {"": (classes[:2], prompts[:2])}) == []
    assert sanity_checks.texts(tower, [], {"": (classes[:3], prompts[:3])}) == [
        "2 of 6 class prompts are longer than this model reads: their ends are cut off"
    ]
    assert (
        sanity_checks.texts(
            Timm(arch="test_resnet", pretrained=None), [LONG], {"": (classes, prompts)}
        )
        == []
    )
    other = sanity_checks.texts(
        tower, ["a dog", LONG * 2], {"retention: ": (["a", "b"], [["x"], ["x"]])}
    )
    assert other[0].startswith("1 of 2 captions are longer")
    assert other[1].startswith("retention: this model reads the prompts of a and b as the same")
