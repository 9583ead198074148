"""Splits evaluated by several ranks are to the last picture what one rank makes of them."""

import multiprocessing
import os
import socket
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

from clipbench.core import distributed
from clipbench.core.config.instantiate import build
from clipbench.core.jobs import Job
from clipbench.datamodules.base_captions import CaptionDataModule
from clipbench.datamodules.base_classification import ClassificationDataModule
from clipbench.datamodules.feature_loaders import FeatureLoaders
from clipbench.inference import saved_model
from clipbench.loading.split import Split
from clipbench.models.base import Classifier
from clipbench.strategies.recipe import Recipe
from clipbench.strategies.zero_shot import ZeroShot
from clipbench.training import checkpoint_io
from clipbench.training import schedule as optim
from clipbench.training.evaluator import Evaluator
from clipbench.training.module import ClassificationModule, RetrievalModule
from clipbench.training.robustness.retention import Retention
from clipbench.training.run import execute
from clipbench.training.trainer import trainer
from tests.conftest import FEW, TINY, composed, result_jsons
from tests.test_run import CHOICES

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="forks, which a GPU forbids")
SIZES = range(1, 66)
SOME = (*range(1, 8), 13, 64, 65)
BATCH = 12  # divides by 2, 3 and 4
DIM = 8
COUNTS = "dataset.counts={train: 8, val: 1, test: 3, test_ood: 1}"


class Rows:
    """In place of pictures, the features that an encoder would make of them."""

    def eval_dataloader(self, name):
        labels = self.splits[name].labels
        rows = [{"image": r, "label": labels[i], "index": i} for i, r in enumerate(self.rows)]
        return DataLoader(rows, batch_size=5, sampler=distributed.own(len(rows)))


class Quiz(Rows, ClassificationDataModule):
    metrics = ("macro_f1", "acc_worst_place", "acc_kind")

    def __init__(self):
        super().__init__()
        self.classes, self.groups = list("abcdefg"), {"place": ("here", "there", "nowhere")}
        self.levels = {"kind": (0, 0, 1, 1, 2, 2, 2)}

    def read_splits(self):
        return {}


class Captions(Rows, CaptionDataModule):
    def read_splits(self):
        return {}


def split(size, captions=False):
    """Labels, groups or captions, and features that are small integers: their sums are exact."""
    rng = np.random.default_rng(size)
    said = [[f"{i} {k}" for k in range(1 + i % 3)] for i in rng.integers(0, 40, size)]
    own = Split(
        ids=[str(i) for i in range(size)],
        labels=rng.integers(0, 7, size),
        images=np.zeros((size, 1, 1, 3), np.uint8),
        expected=size,
        captions=said if captions else None,
        groups={} if captions else {"place": rng.integers(-1, 3, size)},
        among=None if captions else (0, 1, 2, 3, 5, 6),
    )
    return own, torch.from_numpy(rng.integers(-4, 5, (size, DIM))).float()


def modules():
    """A module of each kind with its data; what it computes is a row's own to the bit."""
    torch.manual_seed(0)
    config = composed("model=clip_tiny", "trainer=cpu", "logger=none", "callbacks=none")
    recipe = replace(Recipe.of(config), batch_size=BATCH, micro_batch=None, lr=1e-3)
    schedule, quiz, captions = optim.Schedule(total=1, warmup=0), Quiz(), Captions()
    head = torch.nn.Linear(DIM, 7)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randint(-4, 5, parameter.shape))
    plain = build(composed("model.pretrained=null", *TINY)["model"])
    towers = build(config["model"])
    table = torch.randint(-4, 5, (50_000, DIM)).float()
    towers.encode_text = lambda tokens: table[tokens[:, 1:6]].sum(1)
    for data in (quiz, captions):
        data.batch_size = BATCH
    return (
        (
            (quiz, ClassificationModule, Classifier(plain, head, meaningful=True)),
            (captions, RetrievalModule, Classifier(towers, head, meaningful=True)),
        ),
        (ZeroShot(), recipe, schedule),
        config,
    )


class Seen(torch.nn.Identity):
    normalized = False


def remembered(data, own, head):
    """The metrics of the same rows as those of another dataset."""
    retention = Retention.__new__(Retention)
    retention.data, retention.split, retention.trainer = data, "val", own
    retention.head = lambda tower: head
    return retention(Classifier(Seen(), head, meaningful=True))


def evaluated(folder, made, sizes):
    """Of every size the metrics and what they were measured from, for both kinds of data."""
    kinds, rest, config = made
    config["trainer"]["devices"] = distributed.here.world
    found = {}
    for data, kind, classifier in kinds:
        module = kind(classifier, *rest, data.measure)
        own = trainer(config, folder, [])
        for size in sizes if kind is ClassificationModule else [n for n in sizes if n % 4 == 1]:
            data.splits["val"], data.rows = split(size, captions=kind is RetrievalModule)
            loaders = FeatureLoaders(data, lambda images: images)
            evaluate = Evaluator(own, module, loaders, data)
            values = evaluate(["val"])
            if kind is ClassificationModule:
                values |= remembered(data, own, classifier.head)
            found[kind.__name__, size] = values, dict(evaluate.outputs["val"])
    return found


def _rank(rank, world, port, folder, work, given):
    place = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": world}
    place |= {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "LOCAL_WORLD_SIZE": world}
    os.environ.update({name: str(value) for name, value in place.items()})
    os.environ["TORCHELASTIC_RUN_ID"] = "evaluation"
    distributed.join(rank, world, 60)
    torch.save(work(folder, *given), folder / f"{world}-{rank}.pt")


def together(world, folder, work, *given):
    """What each of some ranks makes of it."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    rest = (world, port, folder, work, given)
    started = [context.Process(target=_rank, args=(rank, *rest)) for rank in range(world)]
    for process in started:
        process.start()
    for process in started:
        process.join(240)
    assert [process.exitcode for process in started] == [0] * world
    return [torch.load(folder / f"{world}-{r}.pt", weights_only=True) for r in range(world)]


@pytest.fixture(scope="module")
def made():
    return modules()


@pytest.fixture(scope="module")
def alone(tmp_path_factory, made):
    return evaluated(tmp_path_factory.mktemp("alone"), made, SIZES)


def test_one_rank_measures_what_is_there(alone, made):
    values, outputs = alone["ClassificationModule", 65]
    rows, features = split(65)
    assert outputs["label"].tolist() == rows.labels.tolist()
    ((_, _, classifier), _), *_ = made
    with torch.no_grad():
        scores = classifier.classify(features).numpy()
    assert np.array_equal(outputs["logits"].numpy(), scores)
    scores[:, 4] = -np.inf  # not among those of the split
    right = scores.argmax(1) == rows.labels
    assert values["val/acc"] == values["retention/acc"] == right.mean()
    kinds = np.array(Quiz().levels["kind"])
    assert values["val/acc_kind"] == (kinds[scores.argmax(1)] == kinds[rows.labels]).mean()
    worst = min(right[rows.groups["place"] == place].mean() for place in range(3))
    assert values["val/acc_worst_place"] == worst


@pytest.mark.parametrize(
    ("world", "sizes"),
    [
        *((2, SOME), (3, (1, 2, 5, 64)), (4, (1, 3, 5, 65))),
        *(pytest.param(world, SIZES, marks=pytest.mark.slow) for world in (2, 3, 4)),
    ],
)
def test_every_metric_of_several_ranks_is_that_of_one(world, sizes, alone, made, tmp_path):
    for found in together(world, tmp_path, evaluated, made, sizes):
        assert len(found) == len(sizes) + len([n for n in sizes if n % 4 == 1])
        for name, (values, outputs) in found.items():
            mine, own = alone[name]
            assert values == mine, name
            assert outputs.keys() == own.keys()
            assert all(torch.equal(outputs[part], own[part]) for part in own), name


def trained(folder, *words):
    """A run in these ranks, with its outputs in a folder of their number's name."""
    os.environ["CLIPBENCH_OUTPUTS"] = str(folder / f"world{distributed.here.world}")
    words = (
        *FEW,
        "logger=none",
        "callbacks=none",
        *words,
        f"trainer.devices={distributed.here.world}",
    )
    model = next(word for word in words if word.startswith("model=")).removeprefix("model=")
    done = execute(Job(composed(*words), {**CHOICES, "model": model}, list(words)))
    assert done.status == "completed", done.error
    return done.status


def with_batchnorm(folder):
    # Nine pictures of val: one rank has two batches of four, or less, and the other one.
    words = ("dataset.subset=9", "dataset.shots=4", "batch_size=8", "lr=1e-2", "epochs=2")
    return trained(folder, *TINY, COUNTS, *words)


def test_two_ranks_with_batchnorm_evaluate_the_weights_that_are_saved(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPBENCH_OUTPUTS", str(tmp_path / "world2"))
    together(2, tmp_path, with_batchnorm)
    ((folder, record),) = result_jsons(tmp_path / "world2")
    told = pd.read_parquet(folder / "predictions.parquet")
    for name, count in (("val", 9), ("test", 27), ("test_ood", 9)):
        own = told[told["split"] == name]
        assert len(own) == count == own["id"].nunique()
        assert record["final"][f"{name}/acc"] == (own["label"] == own["prediction"]).mean()
    chosen = next(r for r in record["curve"] if r["epoch"] == record["selection"]["epoch"])
    assert chosen["val/acc"] == record["final"]["val/acc"]
    assert record["batch"] == {"devices": 2, "per_device": 4, "accumulation": 1}
    data = build({**record["config"]["dataset"]})
    data.prepare(record["seed"])
    classifier = saved_model.classifier(folder)
    data.attach(preprocess=classifier.tower.preprocess, augment=None, batch_size=50, seed=0)
    written, start = np.load(folder / "logits.npy"), 0
    for name in told["split"].unique():
        (batch,) = data.eval_dataloader(name)
        with torch.no_grad():
            scores = classifier(batch["image"]).numpy()
        np.testing.assert_allclose(written[start : start + len(scores)], scores, atol=1e-4)
        start += len(scores)


# How a run trains, and in how many parts one rank and each of two take a batch of 12.
EXACT = ("recipe.optimizer=sgd", "trainer.precision=64-true", "augment=crop_flip")
PARTS = {
    "micro-batches of 4": (("lr=1e-2", "micro_batch=4"), (3, 2)),
    "features computed once": (
        ("strategy=text_only", "strategy.encode_once=true", "lr=1e-2", "epochs=2"),
        (1, 1),
    ),
    "stages": (
        (
            "freeze_depth=all",
            "strategy.stages=[[1,3],[2,0]]",
            "epochs=4",
            "lr=1e-2",
            "micro_batch=4",
        ),
        (3, 2),
    ),
}


def in_shares(folder, words):
    few = ("dataset.subset=4", "dataset.shots=6", COUNTS, "batch_size=12")
    return trained(folder, "model=clip_tiny", *EXACT, *few, *words)


@pytest.mark.parametrize("kind", PARTS)
def test_two_ranks_train_as_one(tmp_path, monkeypatch, kind):
    """Batches of 12 in one rank, or a half of each in either of two."""
    words, parts = PARTS[kind]
    monkeypatch.setenv("CLIPBENCH_OUTPUTS", os.environ.get("CLIPBENCH_OUTPUTS", ""))
    in_shares(tmp_path, words)
    together(2, tmp_path, in_shares, words)
    found = [result_jsons(tmp_path / f"world{world}")[0] for world in (1, 2)]
    assert tuple(record["batch"]["accumulation"] for _, record in found) == parts
    start, one, two = (
        checkpoint_io.read(folder / "checkpoints" / f"{when}.ckpt")["state_dict"]
        for folder, when in ((found[0][0], "best"), (found[0][0], "last"), (found[1][0], "last"))
    )
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=1e-9, msg=name)
    assert sum(float((one[name] - start[name]).abs().max()) > 1e-5 for name in one) > 10
    for name in ("train/loss", "val/loss"):
        values = [[row[name] for row in record["curve"][1:]] for _, record in found]
        # Features are kept in single precision; a product of 6 rows may round otherwise than of 12.
        rel = 1e-6 if kind == "features computed once" else 1e-9
        assert values[0] == pytest.approx(values[1], rel=rel)
