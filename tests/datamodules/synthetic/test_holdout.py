"""What the embedded models were pretrained on, and what they know before any fine-tuning."""

import pytest

from clipbench.core import paths
from clipbench.core.config import instantiate
from clipbench.datamodules.synthetic.drawing import FILLS, SHAPES
from clipbench.inference.embedded_models import zero_shot
from tests.conftest import composed

ATTRIBUTES = {"shape": 1 / 12, "fill": 1 / 8, "colour": 1 / 10}
PRETRAINED = ("clip_tiny", "resnet_tiny")


def shapes(*overrides):
    data = instantiate.build(composed("dataset=shapes", *overrides)["dataset"])
    data.prepare(seed=0)
    return data


def pairs(data):
    return {
        (shown["fill"], shown["shape"])
        for split in data.splits.values()
        for shown in map(data.attributes, split.ids)
    }


@pytest.fixture(scope="module")
def downstream():
    return shapes("dataset.counts={train: 4, val: 20, test: 40, test_ood: 4}")


@pytest.mark.parametrize("model", PRETRAINED)
def test_no_class_is_in_the_pretraining(model, downstream):
    """Not an image, not a label, not a caption names a pair of fill and shape asked for later."""
    config = composed(f"experiment=pretrain_{model}")
    assert config["dataset"]["scene"] == "pretrain"
    assert config["model"]["pretrained"] is None
    seen = instantiate.build(config["dataset"] | {"counts": {"train": 12, "val": 2}})
    seen.prepare(config["seed"])
    asked = pairs(downstream)
    assert len(asked) == 24
    assert pairs(seen) == {(fill, shape) for fill in FILLS for shape in SHAPES} - asked
    assert not set(seen.classes) & set(downstream.classes)
    for split in seen.splits.values():
        for captions in split.captions:
            for caption in captions:
                words = set(caption.replace(",", "").split())
                assert not any({fill, shape} <= words for fill, shape in asked), caption


def test_each_part_of_a_class_is_in_the_pretraining(downstream):
    seen = pairs(shapes("dataset.scene=pretrain", "dataset.counts={train: 1, val: 1}"))
    assert {fill for fill, _ in seen} == set(FILLS)
    assert {shape for _, shape in seen} == set(SHAPES)


def test_the_new_style_is_in_no_pretraining_image(downstream):
    seen = shapes("dataset.scene=pretrain", "dataset.counts={train: 20, val: 1}")
    styles = {seen.scenes[name].style for split in seen.splits.values() for name in split.ids}
    shift = {downstream.scenes[name].style for name in downstream.splits["test_ood"].ids}
    assert shift - styles == {"relief"}


@pytest.mark.parametrize("model", PRETRAINED)
def test_the_weights_are_small(model):
    assert (paths.ASSETS / f"{model}.safetensors").stat().st_size < 10e6


def test_clip_tiny_knows_each_attribute_by_itself(downstream):
    """Five times chance for shape, fill and colour apart; classes well, but not fine-tuned well."""
    tower = instantiate.build(composed("model=clip_tiny")["model"])
    known = zero_shot(tower, downstream, "test")
    for attribute, chance in ATTRIBUTES.items():
        assert known[attribute] >= 5 * chance, known
    assert 5 / 24 <= known["class"] <= 0.85, known
