"""Runs on captions without classes, whole: what is measured, what trains, what is refused."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss
from PIL import Image

import clipbench
from clipbench import predict
from clipbench.core import paths
from clipbench.core.errors import UserError
from clipbench.core.jobs import Job
from clipbench.datamodules.captions import CaptionsDataModule
from clipbench.models import weight_files
from clipbench.strategies.contrastive import Contrastive
from clipbench.training.run import execute
from tests.conftest import clipbench as clipbench_run
from tests.conftest import composed, result_jsons
from tests.datamodules.folders import AUGMENT, TINY

SPLITS = {"train": 20, "val": 7, "test": 6}
COLOURS = ("red", "green", "blue", "black", "white", "yellow", "purple", "grey")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Pictures with one to three captions each, no two captions equal but two of train."""
    home, rows = tmp_path_factory.mktemp("captioned"), ["image,caption,split"]
    rng = np.random.default_rng(0)
    for split, count in SPLITS.items():
        for i in range(count):
            name = f"{split}{i}.png"
            Image.fromarray(rng.integers(0, 255, (70, 80, 3), dtype=np.uint8)).save(home / name)
            said = [f"a {COLOURS[i % 8]} {w} of {split} {i}" for w in ("ball", "box", "dog")]
            rows += [f"{name},{text},{split}" for text in said[: 1 + i % 3]]
    rows += ["train0.png,the same,train", "train3.png,the same,train"]
    rows.append(f"train5.png,{'a very ' * 20}long one,train")
    (home / "captions.csv").write_text("\n".join(rows) + "\n")
    return home / "captions.csv"


def run(file, *words, model="clip_tiny", strategy="contrastive"):
    choices = {"model": model, "dataset": "captions", "strategy": strategy}
    words = (
        *("dataset=captions", f"dataset.file={file}", "dataset.decoder=pillow", "trainer=cpu"),
        *("logger=none", "callbacks=none", "batch_size=6", "epochs=1", "augment=none"),
        *(f"model={model}", f"strategy={strategy}", *words),
    )
    torch.manual_seed(0)  # as if in a process of its own
    return execute(Job(composed(*words), choices, list(words)))


def only_record(outputs):
    ((folder, record),) = result_jsons(outputs)
    return folder, record


def captions_of(file, split):
    table = pd.read_csv(file)
    table = table[table["split"] == split]
    return {name: list(own) for name, own in table.groupby("image", sort=False)["caption"]}


@torch.no_grad()
def by_hand(file, split, model, preprocess, tokenizer, batch=6):
    """Recall, median ranks and loss of a split, with a model of open_clip's and sorted lists."""
    own = captions_of(file, split)
    pictures = [preprocess(Image.open(file.parent / name).convert("RGB")) for name in own]
    image = F.normalize(model.encode_image(torch.stack(pictures)), dim=-1)
    texts = [text for captions in own.values() for text in captions]
    owner = np.repeat(np.arange(len(own)), [len(captions) for captions in own.values()])
    text = F.normalize(model.encode_text(tokenizer(texts)), dim=-1)
    scores = (text @ image.T).numpy()
    find = [1 + list(np.argsort(-row)).index(i) for row, i in zip(scores, owner, strict=True)]
    told = []
    for i in range(len(own)):
        order = list(np.argsort(-scores[:, i]))
        told.append(1 + min(order.index(j) for j in np.flatnonzero(owner == i)))
    values = {"image_median_rank": np.median(find), "text_median_rank": np.median(told)}
    for k in (1, 5, 10):
        values[f"image_recall@{k}"] = np.mean([rank <= k for rank in find])
        values[f"text_recall@{k}"] = np.mean([rank <= k for rank in told])
    values["mean_recall"] = np.mean([v for name, v in values.items() if "recall@" in name])
    first = text[[int(np.flatnonzero(owner == i)[0]) for i in range(len(own))]]
    scale, parts = model.logit_scale.exp(), zip(image.split(batch), first.split(batch), strict=True)
    losses = [float(ClipLoss()(i, t, scale)) * len(i) for i, t in parts]
    return values | {"loss": sum(losses) / len(own)}


@pytest.fixture(scope="module")
def tuned(photos, tmp_path_factory):
    """A run of two epochs, with averages and another dataset to remember."""
    monkeypatch, outputs = pytest.MonkeyPatch(), tmp_path_factory.mktemp("tuned")
    monkeypatch.setenv("CLIPBENCH_OUTPUTS", str(outputs))
    words = ("epochs=2", "lr=1e-3", "alphas=[0,1]", "retention=shapes")
    few = ("retention.counts={train: 1, val: 1, test: 1, test_ood: 1}",)
    outcome = run(photos, *words, *few)
    monkeypatch.undo()
    assert outcome.status == "completed", outcome.error
    return only_record(outputs)


def test_epoch_0_is_the_zero_shot_model_measured_by_hand(tuned, photos):
    folder, record = tuned
    model, preprocess, tokenizer = clipbench.load(folder)
    model.load_state_dict(weight_files.read(paths.ASSETS / "clip_tiny.safetensors"))
    expected = by_hand(photos, "val", model.eval(), preprocess, tokenizer)
    row = record["curve"][0]
    for name, value in expected.items():
        assert row[f"val/{name}"] == pytest.approx(value, rel=1e-4), name


def test_captions_that_the_model_does_not_read_to_their_end_are_counted(tuned, photos):
    _, record = tuned
    count = len(pd.read_csv(photos))
    (said,) = [text for text in record["warnings"] if "cut off" in text]
    assert said.startswith(f"1 of {count} captions are longer than this model reads")


def test_the_file_that_is_left_gives_the_numbers_that_were_told(tuned, photos):
    folder, record = tuned
    model, preprocess, tokenizer = clipbench.load(folder)
    for split in ("val", "test"):
        expected = by_hand(photos, split, model.eval(), preprocess, tokenizer)
        for name, value in expected.items():
            assert record["final"][f"{split}/{name}"] == pytest.approx(value, rel=1e-4), name


def test_what_a_run_on_captions_leaves(tuned, photos):
    folder, record = tuned
    assert record["selection"]["metric"] == "val/mean_recall"
    assert [row["epoch"] for row in record["curve"]] == [0, 1, 2]
    assert record["steps"]["total"] == 2 * (20 // 6)  # what is left over is left out
    assert {name: split["n"] for name, split in record["data"].items()} == {
        **SPLITS,
        "retention": 24,
    }
    assert {"retention/acc", "test/image_recall@5", "test/text_recall@5"} <= record["final"].keys()
    for name in ("val/mean_recall", "val/loss", "val/text_recall@1"):
        assert record["final"][f"{name}@alpha=0"] == pytest.approx(record["curve"][0][name])
    ranks = pd.read_parquet(folder / "ranks.parquet")
    own = captions_of(photos, "test")
    asked = ranks[(ranks["split"] == "test") & (ranks["query"] == "text")]
    assert list(asked["caption"]) == [text for captions in own.values() for text in captions]
    assert np.mean(asked["rank"] <= 1) == record["final"]["test/image_recall@1"]
    asked = ranks[(ranks["split"] == "test") & (ranks["query"] == "image")]
    assert list(asked["id"]) == list(own)
    assert np.mean(asked["rank"] <= 1) == record["final"]["test/text_recall@1"]
    assert (folder / "examples.html").is_file() == bool(record["selection"]["epoch"])
    assert record["temperature"] is None
    with pytest.raises(UserError, match=r"no classes\. Use clipbench"):
        predict.predict([f"run={folder}", f"images={photos.parent}"])


@pytest.mark.parametrize(
    ("strategy", "frozen"), [("image_only", "text"), ("text_only", "visual"), ("zero_shot", "")]
)
def test_a_frozen_tower_is_left_as_it_is_to_the_bit(outputs, photos, strategy, frozen):
    outcome = run(photos, "lr=1e-2", strategy=strategy)
    assert outcome.status == "completed", outcome.error
    folder, record = only_record(outputs)
    start = weight_files.read(paths.ASSETS / "clip_tiny.safetensors")
    checkpoint = folder / "checkpoints" / "last.ckpt"
    if strategy == "zero_shot":
        assert len(record["curve"]) == 1
        end = weight_files.read(folder / "model.safetensors")
    else:
        state = torch.load(checkpoint, weights_only=True)["state_dict"]
        prefix = "classifier.tower.model."
        end = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
    moved = {name for name, value in start.items() if not torch.equal(value, end[name])}
    of_text = {name for name in start if not name.startswith("visual.") and name != "logit_scale"}
    of_image = {name for name in start if name.startswith("visual.")}
    stays = {"text": of_text, "visual": of_image, "": set(start)}[frozen]
    assert not moved & stays
    if frozen:
        assert moved & (of_image if frozen == "text" else of_text)
        assert "logit_scale" in moved


@pytest.mark.parametrize("captions", ["sampled", "all"])
def test_pictures_encoded_once_train_as_those_encoded_in_every_epoch(outputs, photos, captions):
    tiny = ("model.arch=test_resnet", "model.pretrained=null", "model.image_size=32")
    text = ("strategy.text.width=32", "strategy.text.layers=1", "strategy.text.heads=2")
    words = (*tiny, *text, "epochs=2", "lr=1e-3", f"strategy.captions={captions}")
    for once in ("true", "false"):
        outcome = run(photos, *words, f"strategy.encode_once={once}", model="timm", strategy="lit")
        assert outcome.status == "completed", outcome.error
    (_, one), (_, other) = result_jsons(outputs)
    assert one["curve"][0]["val/mean_recall"] is not None
    pairs = sum(len(own) for own in captions_of(photos, "train").values())
    assert one["steps"]["total"] == 2 * ((pairs if captions == "all" else 20) // 6)
    for first, second in zip(one["curve"], other["curve"], strict=True):
        for name in ("train/loss", "val/loss"):
            if name in first:
                assert first[name] == pytest.approx(second[name], rel=1e-4)


def test_an_epoch_of_all_captions_has_every_pair_once(photos):
    data = CaptionsDataModule(file=photos)
    data.prepare(0)
    data.arrange(every_pair=True, full_batches=True)
    data.attach(preprocess=TINY, augment=AUGMENT, batch_size=4, seed=0)
    seen = []
    for batch in data.train_dataloader():
        assert len(batch["image"]) == 4
        seen += [
            (i, text) for i, (text,) in zip(batch["index"].tolist(), batch["captions"], strict=True)
        ]
    train = data.splits["train"]
    everything = {(i, text) for i, own in enumerate(train.captions) for text in own}
    assert len(seen) == len(set(seen)) == len(everything) // 4 * 4
    assert set(seen) <= everything
    assert data.record()["train"].n == 20


def test_a_pictures_caption_is_drawn_by_its_number_wherever_it_comes_in_a_batch():
    strategy = Contrastive(seed=1)
    batch = {
        "index": torch.arange(9),
        "captions": [[f"{i} {k}" for k in range(5)] for i in range(9)],
    }
    ((_, whole),) = strategy.drawn(batch, 3)
    half = {"index": batch["index"][4:].flip(0), "captions": batch["captions"][4:][::-1]}
    assert strategy.drawn(half, 3)[0][1] == whole[4:][::-1]
    assert {text.split()[1] for text in whole} != {whole[0].split()[1]}
    assert strategy.drawn(batch, 4)[0][1] != whole


REFUSED = [
    ("strategy=finetune needs; use strategy=contrastive", "clip_tiny", "finetune", ()),
    ("strategy=linear_probe needs", "clip_tiny", "linear_probe", ()),
    ("strategy=flyp needs", "clip_tiny", "flyp", ()),
    ("strategy=ce_text needs", "clip_tiny", "ce_text", ()),
    ("no text tower for.*use strategy=lit", "resnet_tiny", "contrastive", ()),
    ("use merge=wise_ft", "clip_tiny", "contrastive", ("merge=fisher", "alphas=[0.5]")),
    ("there are sampled and all", "clip_tiny", "contrastive", ("strategy.captions=some",)),
    ("needs freeze_depth=all", "clip_tiny", "contrastive", ("strategy.encode_once=true",)),
]


@pytest.mark.parametrize(("cause", "model", "strategy", "words"), REFUSED)
def test_what_means_nothing_for_captions_is_refused_at_once(
    outputs, photos, cause, model, strategy, words
):
    outcome = run(photos, *words, model=model, strategy=strategy)
    assert outcome.status == "failed"
    assert re.search(cause, outcome.error), outcome.error
    assert not list(result_jsons(outputs))


@pytest.mark.slow
def test_two_devices_train_as_one(tmp_path, photos):
    """Each batch of 6 in two ranks of 3, in parts of 2 rows."""
    done = clipbench_run(
        *("-m", "dataset=captions", f"dataset.file={photos}", "model=clip_tiny", "lr=1e-3"),
        *("strategy=contrastive", "trainer=cpu", "trainer.devices=1,2", "micro_batch=2"),
        *("batch_size=6", "epochs=2", "logger=none", "callbacks=none"),
        env={"CLIPBENCH_OUTPUTS": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    (_, one), (_, two) = result_jsons(tmp_path)
    for first, second in zip(one["curve"], two["curve"], strict=True):
        for name in set(first) & {"train/loss", "val/loss"}:
            assert first[name] == pytest.approx(second[name], rel=1e-5), name
