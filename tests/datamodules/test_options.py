"""The options that every dataset takes, each against what it says, worked by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight

from clipbench.core.errors import UserError
from clipbench.datamodules.base_captions import CaptionDataModule
from clipbench.loading.samplers import KeyedSampler
from clipbench.loading.split import Split
from clipbench.models.base import Classifier
from clipbench.strategies.finetune import Finetune
from tests.datamodules.folders import AUGMENT, TINY
from tests.datamodules.test_base import CLASSES, Garden, garden, split_of
from tests.strategies.test_finetune import resnet


@pytest.fixture
def splits(tmp_path):
    return {name: split_of(tmp_path, name, 4) for name in ("train", "val", "test")}


def test_a_subset_keeps_its_classes_in_the_order_asked(splits):
    groups = {"place": np.arange(12) % 3}
    splits["test"] = replace(splits["test"], groups=groups, among=(0, 2))
    data = Garden(splits, subset=["iris", "rose"])
    data.levels = {"family": [0, 1, 0]}
    data.prepare(0)
    data.check()
    assert data.classes == ["iris", "rose"]
    assert data.levels == {"family": [0, 0]}
    test = data.splits["test"]
    assert (len(test), test.expected, test.among) == (8, 8, (1, 0))
    names = [data.classes[label] for label in test.labels]
    assert [i.split("/")[1][:4] for i in test.ids] == names
    assert test.groups["place"].tolist() == groups["place"][[0, 1, 2, 3, 8, 9, 10, 11]].tolist()
    assert "classes 2,0" in data.record()["test"].rule


def test_names_and_templates_are_the_users_where_given(splits):
    data = Garden(splits, class_names={"rose": "a", "tulip": "b", "iris": "c"}, templates=["{}!"])
    data.prepare(0)
    assert (data.classes, data.templates) == (["a", "b", "c"], ["{}!"])


@pytest.mark.parametrize(
    "options", [{"balance": "even"}, {"resize_mode": "bend"}, {"bad_images": "keep"}]
)
def test_a_value_that_there_is_not_is_refused_with_those_there_are(splits, options):
    ((key, value),) = options.items()
    with pytest.raises(UserError, match=f"dataset.{key}={value}: unknown. Use one of "):
        Garden(splits, **options)


# unequal classes


@pytest.fixture
def uneven(splits):
    """One rose, three tulips, no iris to train on."""
    splits["train"] = splits["train"].take(np.array([0, 4, 5, 6]))
    return splits


def test_class_weights_are_sklearns_balanced_ones(uneven):
    weights = garden(uneven, balance="weights").class_weights()
    labels = uneven["train"].labels
    sklearns = compute_class_weight("balanced", classes=np.array([0, 1]), y=labels)
    assert weights.tolist() == [*sklearns, 0.0]
    assert garden(uneven).class_weights() is None
    assert weights[labels].mean() == pytest.approx(1)


def test_the_weighted_loss_is_the_mean_of_weighted_terms(uneven):
    weights = torch.from_numpy(garden(uneven, balance="weights").class_weights())
    tower = resnet()
    classifier = Classifier(tower, torch.nn.Linear(tower.feature_dim, 3), meaningful=False).eval()
    images, label = torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 1, 1])
    batch = {"image": images, "label": label}
    loss = Finetune().loss(classifier, batch, smoothing=0.0, step=0, weights=weights)
    each = F.cross_entropy(classifier(images), label, reduction="none")
    torch.testing.assert_close(loss, (weights[label].float() * each).mean())


def test_the_balanced_sampler_draws_classes_equally_and_by_seed_and_epoch(uneven):
    data = garden(uneven, balance="sampler")
    sampler = data.train_sampler()
    assert len(list(sampler)) == 4
    assert list(sampler) == list(data.train_sampler())
    drawn = []
    for epoch in range(500):
        sampler.set_epoch(epoch)
        drawn += [int(uneven["train"].labels[i]) for _, i, _ in sampler]
    assert np.mean(np.array(drawn) == 0) == pytest.approx(0.5, abs=0.03)
    plain = garden(uneven).train_sampler()
    assert sorted(i for _, i, _ in plain) == [0, 1, 2, 3]
    assert plain.share is None
    assert KeyedSampler(4, 7).share is None


@pytest.mark.parametrize("workers", [0, 2])
def test_each_draw_of_a_rare_image_is_augmented_anew(uneven, workers):
    data = garden(uneven, balance="sampler", workers=workers)
    loader, rare = data.train_dataloader(), 0  # the one rose, half of all draws
    views, counts = [], []
    for epoch in range(6):
        loader.sampler.set_epoch(epoch)
        rows = [row for batch in loader for row in zip(batch["index"], batch["image"], strict=True)]
        drawn = [image for index, image in rows if index == rare]
        counts.append(len(drawn))
        views += drawn
    assert max(counts) > 2
    assert len({view.numpy().tobytes() for view in views}) == len(views)
    # The first draw of an epoch looks as in a run that draws each image once.
    plain = garden(uneven).train_dataloader()
    for epoch in (0, 1):
        plain.sampler.set_epoch(epoch)
        once = {int(i): x for b in plain for i, x in zip(b["index"], b["image"], strict=True)}
        if counts[epoch]:
            assert torch.equal(views[sum(counts[:epoch])], once[rare])


# bad images


def test_bad_images_may_be_left_out_and_are_counted(splits):
    broken = splits["test"].images[1]
    broken.write_bytes(b"")
    data = garden(splits, bad_images="skip")
    data.check()
    assert (data.record()["test"].n, data.record()["test"].expected) == (11, 12)
    (warning,) = data.warnings
    said = "1 of the 12 images of test cannot be read and were left out, first "
    assert warning.startswith(f"{said}{broken}: empty, 0 bytes")
    with pytest.raises(UserError, match="bad_images=skip"):
        garden(splits).check()


def test_a_split_of_which_nothing_can_be_read_is_refused(splits):
    for path in splits["val"].images:
        path.write_bytes(b"not an image")
    with pytest.raises(UserError, match="no image of val can be read"):
        garden(splits, bad_images="skip")


# captions


class Album(CaptionDataModule):
    def __init__(self, splits, **options):
        super().__init__(**options)
        self.read = splits

    def read_splits(self):
        return dict(self.read)


def said(split: Split, each: int = 2) -> Split:
    captions = [[f"{i} seen {k}" for k in range(each + n % 2)] for n, i in enumerate(split.ids)]
    return replace(split, labels=np.full(len(split), -1), captions=captions)


def test_captions_come_in_batches_and_in_the_fingerprint(splits):
    album = Album({name: said(split) for name, split in splits.items()})
    album.prepare(0)
    album.check()
    album.attach(preprocess=TINY, augment=AUGMENT, batch_size=5, seed=7)
    batch = next(iter(album.eval_dataloader("test")))
    assert batch["captions"] == [list(own) for own in album.splits["test"].captions[:5]]
    assert batch["image"].shape == (5, 3, 16, 16)
    train = album.splits["train"]
    other = replace(train, captions=[["else"], *train.captions[1:]])
    assert other.fingerprint() != train.fingerprint()
    assert train.take(np.arange(12)[::-1]).fingerprint() == train.fingerprint()


@pytest.mark.parametrize("options", [{"subset": 2}, {"shots": 1}, {"balance": "weights"}])
def test_captions_have_no_classes_to_choose_among(splits, options):
    album = Album({name: said(split) for name, split in splits.items()}, **options)
    with pytest.raises(UserError, match=f"dataset.{next(iter(options))} means nothing"):
        album.prepare(0)


def test_classes_without_captions_are_given_their_prompts(splits):
    data = garden(splits)
    data.caption([["a rose"], ["a tulip", "tulips"], ["an iris"]])
    train = data.splits["train"]
    assert train.captions[5] == ["a tulip", "tulips"]
    assert CLASSES[train.labels[5]] == "tulip"
    own = garden({**splits, "train": said(splits["train"])})
    own.caption([["x"]] * 3)
    assert own.splits["train"].captions[0] == ["train/rose0.png seen 0", "train/rose0.png seen 1"]
