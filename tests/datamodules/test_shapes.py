"""dataset=shapes: its splits, classes, captions, and the production line."""

from collections import Counter

import numpy as np
import pytest

from clipbench.core import paths
from clipbench.core.config import instantiate
from clipbench.core.config.instantiate import build
from clipbench.core.errors import UserError
from clipbench.datamodules.shapes import main
from clipbench.datamodules.synthetic.drawing import COLOURS, FILLS, SHAPES
from clipbench.datamodules.synthetic.styles import draw
from tests.conftest import composed


def shapes(*overrides):
    data = instantiate.build(composed("dataset=shapes", *overrides)["dataset"])
    data.prepare(seed=0)
    return data


# The whole world is drawn once; where its size does not matter, a corner of it.
FEW = "dataset.counts={train: 8, val: 1, test: 1, test_ood: 1}"


@pytest.fixture(scope="module")
def things():
    return shapes()


@pytest.fixture(scope="module")
def static():
    return shapes("dataset.scene=static")


@pytest.fixture(scope="module")
def pretrain():
    return shapes("dataset.scene=pretrain", "dataset.counts.train=4", "dataset.counts.val=1")


def test_splits_are_named_balanced_and_small(things):
    assert list(things.splits) == ["train", "val", "test", "test_ood"]
    assert len(things.classes) == len(set(things.classes)) == 24
    assert len(things.splits["train"]) <= 2000
    for split in things.splits.values():
        assert len(set(np.bincount(split.labels))) == 1
        assert split.images.shape == (len(split), 64, 64, 3)


def test_labels_say_what_the_scenes_show(things):
    for split in things.splits.values():
        for name, label in zip(split.ids, split.labels, strict=True):
            shown = things.attributes(name)
            assert things.classes[label] == f"{shown['fill']} {shown['shape']}"


def test_every_shape_fill_and_colour_occurs(things):
    shown = [things.attributes(name) for name in things.splits["val"].ids]
    assert {row["shape"] for row in shown} == set(SHAPES)
    assert {row["fill"] for row in shown} == set(FILLS)
    assert {row["colour"] for row in shown} == set(COLOURS)


def test_classes_have_confusable_neighbours(things):
    """Each class shares its fill with two others and its shape with one."""
    pairs = [name.split() for name in things.classes]
    assert set(Counter(fill for fill, _ in pairs).values()) == {3}
    assert set(Counter(shape for _, shape in pairs).values()) == {2}


def test_the_same_world_twice():
    first, again = shapes(FEW), shapes(FEW)
    for name, split in first.splits.items():
        assert split.fingerprint() == again.splits[name].fingerprint()
        assert np.array_equal(split.images, again.splits[name].images)
    other = shapes(FEW, "dataset.world_seed=1").splits["test"]
    assert not set(other.ids) & set(first.splits["test"].ids)


def test_the_world_is_the_committed_one(things, static):
    """Scenes, not pixels: these are equal on every machine; a change here is another dataset."""
    assert {name: split.fingerprint()[:12] for name, split in things.splits.items()} == THINGS
    assert {name: split.fingerprint()[:12] for name, split in static.splits.items()} == STATIC


def test_no_image_is_in_two_splits(things):
    keys = [things.scenes[name].key() for split in things.splits.values() for name in split.ids]
    assert len(set(keys)) == len(keys)


def test_the_shift_is_another_style(things):
    styles = {
        name: {things.scenes[i].style for i in split.ids} for name, split in things.splits.items()
    }
    assert styles["train"] == styles["val"] == styles["test"] == {"paper"}
    assert "paper" not in styles["test_ood"]
    assert len(styles["test_ood"]) == 5


def test_five_captions_that_name_what_is_there(things):
    for split in things.splits.values():
        for name, captions in zip(split.ids, split.captions, strict=True):
            assert len(set(captions)) == 5
            for value in things.attributes(name).values():
                assert all(value in caption.replace(",", "").split() for caption in captions)


def test_pretraining_captions_name_what_their_position_says(pretrain):
    named = [{"shape"}] * 3 + [{"fill"}] * 3 + [{"colour"}] * 3 + [{"shape", "fill"}] * 3
    named += [{"shape", "fill", "colour"}] * 5
    values = {"shape": set(SHAPES), "fill": set(FILLS), "colour": set(COLOURS)}
    split = pretrain.splits["train"]
    for name, captions in zip(split.ids, split.captions, strict=True):
        shown = pretrain.attributes(name)
        for caption, names in zip(captions, named, strict=True):
            words = set(caption.replace(",", "").split())
            for attribute, possible in values.items():
                said = words & possible
                assert said == ({shown[attribute]} if attribute in names else set()), caption


def test_a_pretraining_image_is_drawn_when_it_is_looked_at(pretrain):
    split = pretrain.splits["train"]
    assert len(split) == 72 * 4
    assert split.image(5).size == (64, 64)
    assert split.image(5).tobytes() == split.image(5).tobytes()


def test_more_shots_add_to_fewer():
    few, more = shapes(FEW, "dataset.shots=2"), shapes(FEW, "dataset.shots=5")
    assert len(few.splits["train"]) == 48
    assert set(few.splits["train"].ids) < set(more.splits["train"].ids)
    assert few.splits["test"].fingerprint() == more.splits["test"].fingerprint()


def test_the_production_line_is_imbalanced_and_has_its_own_names(static, things):
    train = static.splits["train"]
    counts = np.bincount(train.labels)
    assert len(train) <= 2000
    assert counts.max() / counts.min() >= 20
    assert static.classes[int(counts.argmax())] == "flawless biscuit"
    assert static.templates != things.templates
    assert static.metrics[0] == "macro_f1"  # accuracy rewards calling everything flawless
    for split in static.splits.values():
        assert np.array_equal(np.unique(split.labels), np.arange(len(static.classes)))
    assert all(len(set(own)) == 5 for own in train.captions)
    assert all(
        static.attributes(i)["defect"] in own[0]
        for i, own in zip(train.ids, train.captions, strict=True)
    )


def test_bad_options_are_refused_with_the_good_ones():
    with pytest.raises(UserError, match="pretrain"):
        shapes("dataset.scene=statik")
    with pytest.raises(UserError, match="hollow"):
        shapes("dataset.classes=[{fill: furry, shape: star}, {fill: plain, shape: star}]")


def test_the_door_draws_the_contact_sheets(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["shapes", str(tmp_path)])
    main()
    for name in ("shapes.png", "biscuits.png"):
        assert 10_000 < (tmp_path / name).stat().st_size < 400_000
        assert (paths.EXPERIMENTS / "figures" / name).is_file()


THINGS = {
    "train": "20c9b28d33f4",
    "val": "f2d284dcc52c",
    "test": "04e2d3a2bd03",
    "test_ood": "ec099f95bfce",
}
STATIC = {
    "train": "3f14c2c4ef4d",
    "val": "3e718e73f83a",
    "test": "b54852908110",
    "test_ood": "0d1f58d520b6",
}


def test_few_shots_of_the_pretraining_world_keep_their_scenes():
    data = build(composed("dataset=shapes", "dataset.scene=pretrain", "dataset.shots=1")["dataset"])
    data.prepare(0)
    train = data.splits["train"]
    assert len(train) == len(data.classes)
    for i in (0, 40):
        assert np.array_equal(np.asarray(train.image(i)), draw(data.scenes[train.ids[i]]))
