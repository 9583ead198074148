import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningModule, Trainer

from clipbench.core.errors import UserError
from clipbench.datamodules.base_classification import ClassificationDataModule
from clipbench.loading.samplers import KeyedSampler
from clipbench.loading.split import Split, carve, few_shot
from tests.datamodules.folders import AUGMENT, TINY, draw

CLASSES = ["rose", "tulip", "iris"]


def split_of(root: Path, name: str, each: int) -> Split:
    ids = [f"{name}/{c}{i}.png" for c in CLASSES for i in range(each)]
    for k, i in enumerate(ids):
        draw(root / i, seed=k)
    return Split(ids, np.repeat(np.arange(3), each), [root / i for i in ids], len(ids))


class Garden(ClassificationDataModule):
    classes = CLASSES
    templates = ("a photo of a {}.",)

    def __init__(self, splits: dict[str, Split], **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.read = splits

    def read_splits(self) -> dict[str, Split]:
        return dict(self.read)


@pytest.fixture
def splits(tmp_path) -> dict[str, Split]:
    return {name: split_of(tmp_path, name, 4) for name in ("train", "val", "test", "test_ood")}


def garden(splits: dict[str, Split], **kwargs: object) -> Garden:
    data = Garden(splits, **kwargs)
    data.prepare(seed=0)
    data.attach(preprocess=TINY, augment=AUGMENT, batch_size=5, seed=7)
    return data


# presence


@pytest.mark.parametrize("name", ["train", "val"])
def test_an_image_absent_from_train_or_val_stops_the_run(splits, name):
    lost = [splits[name].images[i] for i in (1, 5)]
    for path in lost:
        path.unlink()
    with pytest.raises(UserError, match=f"2 of the 12 images of {name}") as refusal:
        Garden(splits).prepare(0)
    assert refusal.value.details == [f"{path}: not there" for path in lost]


def test_an_image_absent_from_test_is_one_warning(splits):
    for i in (0, 3, 4):
        splits["test"].images[i].unlink()
    data = garden(splits)
    data.check()
    assert (data.record()["test"].n, data.record()["test"].expected) == (9, 12)
    assert len(data.warnings) == 1
    assert "3 of the 12 images of test" in data.warnings[0]
    whole = np.setdiff1d(np.arange(12), [0, 3, 4])
    assert data.splits["test"].ids == [splits["test"].ids[i] for i in whole]
    assert data.record()["test"].sha256 != splits["test"].fingerprint()


def test_an_evaluation_split_with_nothing_on_disk_is_refused(splits):
    for path in splits["test_ood"].images:
        path.unlink()
    with pytest.raises(UserError, match="12 of the 12 images of test_ood"):
        Garden(splits).prepare(0)


def test_few_shot_needs_only_what_it_chose(splits):
    chosen = few_shot(splits["train"], 1, seed=0)
    for path in set(splits["train"].images) - set(chosen.images):
        path.unlink()
    assert garden(splits, shots=1).splits["train"].ids == chosen.ids


# the image gate


def test_all_bad_images_are_listed_before_the_first_step(splits):
    broken = [splits["train"].images[2], splits["test"].images[0]]
    broken[0].write_bytes(broken[0].read_bytes()[:-1])
    broken[1].write_bytes(b"")
    data = garden(splits)
    with pytest.raises(UserError, match="2 of 48 images cannot be read") as refusal:
        data.check()
    first, second = refusal.value.details
    assert first.startswith(f"{broken[0]}: cut off: the PNG end chunk is missing")
    assert second.startswith(f"{broken[1]}: empty, 0 bytes")


def test_pixels_in_memory_need_no_check(splits):
    pixels = np.zeros((12, 8, 8, 3), np.uint8)
    data = garden({name: replace(split, images=pixels) for name, split in splits.items()})
    data.check()
    assert data.splits["test"].image(3).size == (8, 8)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_lost_amid_training_is_named(splits, workers):
    data = garden(splits, workers=workers)
    data.check()
    path = data.splits["val"].images[3]
    path.unlink()
    said = ""
    try:
        list(data.eval_dataloader("val"))
    except UserError as refusal:
        said = str(refusal)
        # The frames of torch's reraise() hold the loader in a cycle, whose collection would wait
        # 5 s for each worker.
        refusal.with_traceback(None)
    assert said.startswith(f"{path} cannot be read")
    assert "\n" not in said


def test_a_refusal_crosses_a_process_whole():
    refusal = pickle.loads(pickle.dumps(UserError("cause; fix", ["a: b"], "diverged")))
    assert (str(refusal), refusal.details, refusal.status) == ("cause; fix", ["a: b"], "diverged")


# labels and names


@pytest.mark.parametrize("label", [-100, 3])
def test_a_label_without_a_class_is_refused(splits, label):
    splits["val"].labels[2] = label
    with pytest.raises(UserError, match=r"1 labels of val are outside 0\.\.2") as refusal:
        garden(splits).check()
    assert refusal.value.details == [f"{splits['val'].ids[2]}: label {label}"]


def test_an_image_in_train_and_test_is_refused(splits):
    both = splits["train"].ids[0]
    splits["test"] = replace(splits["test"], ids=[both, *splits["test"].ids[1:]])
    with pytest.raises(UserError, match="train and test share 1 images") as refusal:
        garden(splits).check()
    assert refusal.value.details == [both]


def test_shifts_may_show_the_scenes_of_test(splits):
    splits["test_ood"] = replace(splits["test_ood"], ids=splits["test"].ids)
    garden(splits).check()


def test_an_empty_split_is_refused(splits):
    splits["val"] = splits["val"].take(np.arange(0))
    with pytest.raises(UserError, match="val is empty"):
        garden(splits).check()


def test_a_class_that_is_never_trained_is_a_warning(splits):
    splits["train"] = splits["train"].take(np.arange(8))
    data = garden(splits)
    data.check()
    assert data.warnings == ["1 class is evaluated without any training image: iris"]


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("classes", ["rose", "rose", "iris"], "rose"),
        ("classes", ["rose", " ", "iris"], "empty"),
        ("classes", ["rose"], "1 class"),
        ("templates", [], "none"),
        ("templates", ["a photo"], "a photo"),
        ("templates", ["{} and {}"], "exactly one"),
    ],
)
def test_names_that_make_no_prompts_are_refused(splits, attribute, value, message):
    data = garden(splits)
    setattr(data, attribute, value)
    with pytest.raises(UserError, match=message):
        data.check()


# rules


def of_classes(n: int, classes: int = 4) -> Split:
    ids = [f"{i}.jpg" for i in range(n)]
    return Split(ids, np.arange(n) % classes, [Path(i) for i in ids], n)


def test_carving_depends_on_the_ids_alone():
    split = of_classes(103)
    shuffled = split.take(np.random.default_rng(1).permutation(103))
    for one, other in zip(carve(split, 0.2), carve(shuffled, 0.2), strict=True):
        assert one.fingerprint() == other.fingerprint()
    rest, taken = carve(split, 0.2)
    assert set(rest.ids) | set(taken.ids) == set(split.ids)
    assert not set(rest.ids) & set(taken.ids)
    assert np.bincount(taken.labels).tolist() == [5, 5, 5, 5]
    assert taken.rule == "0.2 of each class by lowest sha256 of the id"
    assert carve(rest, 0.5)[0].rule == f"{rest.rule}; then all but 0.5{taken.rule[3:]}"


def test_one_more_image_moves_at_most_one_other():
    before, after = carve(of_classes(100), 0.2)[1], carve(of_classes(101), 0.2)[1]
    assert len(set(before.ids) - set(after.ids)) <= 1


def test_more_shots_add_to_fewer():
    split = of_classes(80)
    chosen = [set(few_shot(split, k, seed=3).ids) for k in (1, 2, 5, 100)]
    assert [len(ids) for ids in chosen] == [4, 8, 20, 80]
    assert chosen[0] < chosen[1] < chosen[2] < chosen[3]
    assert set(few_shot(split, 5, seed=4).ids) != chosen[2]
    with pytest.raises(UserError, match="shots=0"):
        few_shot(split, 0, seed=3)


def test_a_fingerprint_is_of_ids_and_labels_in_any_order():
    split = of_classes(9)
    assert split.take(np.arange(9)[::-1]).fingerprint() == split.fingerprint()
    assert replace(split, labels=split.labels[::-1]).fingerprint() != split.fingerprint()


# loaders


def epochs_of(data: Garden, epochs: int = 2) -> list[dict[str, torch.Tensor]]:
    loader, seen = data.train_dataloader(), []
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        batches = list(loader)
        seen.append({k: torch.cat([batch[k] for batch in batches]) for k in batches[0]})
    return seen


def test_an_epoch_is_a_function_of_seed_and_epoch_in_any_worker(splits):
    torch.manual_seed(1)
    alone = epochs_of(garden(splits))
    torch.manual_seed(2)
    for one, other in zip(alone, epochs_of(garden(splits, workers=2)), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)
    first, second = (
        {int(i): x for i, x in zip(e["index"], e["image"], strict=True)} for e in alone
    )
    assert alone[0]["index"].tolist() != alone[1]["index"].tolist()
    assert first.keys() == second.keys() == set(range(12))
    assert not any(torch.equal(first[i], second[i]) for i in first)
    another = garden(splits)
    another.seed = 8
    assert epochs_of(another, 1)[0]["index"].tolist() != alone[0]["index"].tolist()


def test_augmenting_leaves_the_random_state_of_the_run_alone(splits):
    state = torch.get_rng_state()
    epochs_of(garden(splits), 1)
    # a DataLoader draws its own base seed, and nothing more, from the global generator
    torch.set_rng_state(state)
    loader = garden(splits).train_dataloader()
    rows = loader.dataset
    before = torch.get_rng_state()
    assert rows[0, 3, 0]["index"] == 3
    assert torch.equal(torch.get_rng_state(), before)


class Listener(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.order: list[list[int]] = []

    def training_step(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        if len(self.order) == self.current_epoch:
            self.order.append([])
        self.order[-1] += batch["index"].tolist()
        return self.layer(batch["image"].mean().view(1)).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.0)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*logging interval")
def test_the_trainer_tells_the_sampler_its_epoch(splits, tmp_path, workers):
    module, data = Listener(), garden(splits, workers=workers)
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, train_dataloaders=data.train_dataloader())
    expected = []
    for epoch in range(2):
        sampler = KeyedSampler(12, seed=7)
        sampler.set_epoch(epoch)
        expected.append([index for _, index, _ in sampler])
    assert module.order == expected
    assert expected[0] != expected[1]
