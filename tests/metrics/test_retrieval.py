"""Ranks and recall, held to a ranking by hand and to the clip-benchmark package."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from clip_benchmark.metrics import zeroshot_retrieval

from clipbench.core.config import instantiate
from clipbench.datamodules.coco import COCODataModule
from clipbench.datamodules.flickr import Flickr8kDataModule
from clipbench.metrics import retrieval
from tests.conftest import composed
from tests.datamodules.folders import AUGMENT

REAL = os.environ.get("CLIPBENCH_DATA")


def by_hand(scores, owner):
    """The place of what belongs to each query, in a list sorted by score, then by picture."""
    texts, pictures = len(scores), len(scores[0])
    image, text = [], []
    for t in range(texts):
        listed = sorted(range(pictures), key=lambda p: (-scores[t][p], p))
        image.append(1 + listed.index(owner[t]))
    for p in range(pictures):
        listed = sorted(range(texts), key=lambda t: (-scores[t][p], owner[t]))
        text.append(1 + next(i for i, t in enumerate(listed) if owner[t] == p))
    return image, text


def drawn(rng):
    """A matrix of a few pictures and captions in any order, its scores of few values: ties."""
    pictures, more = rng.integers(1, 12), rng.integers(0, 25)
    owner = np.concatenate([np.arange(pictures), rng.integers(0, pictures, more)])
    rng.shuffle(owner)
    return rng.integers(0, rng.integers(2, 40), (len(owner), pictures)).astype(np.float32), owner


def ranks_of(scores, owner, block=retrieval.BLOCK):
    """Of a matrix of scores: its rows are features whose products with unit vectors are they."""
    return retrieval.ranks(torch.eye(scores.shape[1], dtype=scores.dtype), scores, owner, block)


@pytest.mark.parametrize("block", [1, 3, 512])
def test_ranks_are_those_of_a_sorted_list(block):
    rng = np.random.default_rng(0)
    tied = 0
    for _ in range(200):
        scores, owner = drawn(rng)
        found = ranks_of(torch.from_numpy(scores), torch.from_numpy(owner), block)
        image, text = by_hand(scores.tolist(), owner.tolist())
        assert (found.image.tolist(), found.text.tolist()) == (image, text)
        tied += int(((scores == scores[range(len(owner)), owner][:, None]).sum(1) > 1).any())
        values = found.metrics((1, 2, 5))
        for name, ranks in (("image", image), ("text", text)):
            assert values[f"{name}_median_rank"] == np.median(ranks)
            for k in (1, 2, 5):
                assert values[f"{name}_recall@{k}"] == np.mean([rank <= k for rank in ranks])
    assert tied > 100


def features(pictures, captions, seed=0):
    """Pictures and captions near them, the captions' owners in order."""
    generator = torch.Generator().manual_seed(seed)
    image = F.normalize(torch.randn(pictures, 64, generator=generator), dim=-1)
    owner = torch.arange(pictures).repeat_interleave(captions)
    noise = torch.randn(len(owner), 64, generator=generator)
    return image, F.normalize(image[owner] + 0.35 * noise, dim=-1), owner


@pytest.mark.parametrize("block", [7, 64, 512])
def test_features_are_ranked_as_their_scores_are_however_they_are_cut(block):
    image, text, owner = features(150, 5)
    shuffled = torch.randperm(len(owner), generator=torch.Generator().manual_seed(1))
    whole = ranks_of(text.double() @ image.double().T, owner)
    found = retrieval.ranks(image.double(), text.double(), owner, block)
    mixed = retrieval.ranks(image.double(), text.double()[shuffled], owner[shuffled], block)
    assert torch.equal(found.image, whole.image)
    assert torch.equal(found.text, whole.text)
    assert torch.equal(mixed.image, whole.image[shuffled])
    assert torch.equal(mixed.text, whole.text)
    assert 0.2 < whole.metrics()["image_recall@1"] < 0.9


def test_twins_are_told_apart_by_the_lower_picture():
    """The same picture, and the same caption, at every place: chance, and neither 0 nor 1."""
    image, text, owner = features(40, 5)
    image[:], text[:] = image[0], text[0]
    for block in (20, 512):
        values = retrieval.recall(image, text, owner, block=block)
        assert values["image_recall@5"] == 5 / 40
        assert values["text_recall@5"] == 1 / 40  # the five captions of the first
        assert values["image_median_rank"] == 20.5


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_features_of_half_precision_are_compared_in_whole(half):
    image, text, owner = features(60, 3)
    whole = retrieval.ranks(image.to(half).float(), text.to(half).float(), owner)
    with torch.autocast("cpu", torch.bfloat16):
        found = retrieval.ranks(image.to(half), text.to(half), owner)
    assert torch.equal(found.image, whole.image)
    assert torch.equal(found.text, whole.text)


def test_what_cannot_be_ranked_is_refused():
    image, text, owner = features(4, 2)
    with pytest.raises(ValueError, match="8 texts, but 7 owners"):
        retrieval.recall(image, text, owner[1:])
    with pytest.raises(ValueError, match="not all among the 3 images"):
        retrieval.recall(image[:3], text, owner)
    with pytest.raises(ValueError, match=r"1 images have no text, first \[3\]"):
        retrieval.recall(image, text[:6], owner[:6])
    text[2, 3] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        retrieval.recall(image, text, owner)


class Known:
    """A model whose features are what it is given: texts are their rows in a table."""

    def __init__(self, text):
        self.text = text

    def encode_image(self, images):
        return images

    def encode_text(self, tokens):
        return self.text[tokens]


def test_pictures_of_1_to_12_captions_count_as_in_clip_benchmark():
    generator = torch.Generator().manual_seed(2)
    counts = torch.randint(1, 13, (70,), generator=generator)
    owner = torch.arange(70).repeat_interleave(counts)
    image = F.normalize(torch.randn(70, 32, generator=generator), dim=-1)
    noise = torch.randn(len(owner), 32, generator=generator)
    text = F.normalize(image[owner] + 0.5 * noise, dim=-1)
    rows = [own.tolist() for own in torch.arange(len(owner)).split(counts.tolist())]
    batches = [(image[i : i + 16], rows[i : i + 16]) for i in range(0, 70, 16)]
    theirs = zeroshot_retrieval.evaluate(
        Known(text), batches, torch.tensor, "cpu", amp=False, recall_k_list=[1, 5, 10]
    )
    found = retrieval.recall(image, text, owner)
    for k in (1, 5, 10):
        for name in ("image", "text"):
            recall = theirs[f"{name}_retrieval_recall@{k}"]
            assert found[f"{name}_recall@{k}"] == pytest.approx(recall, abs=1e-6)
    assert 0.1 < found["image_recall@1"] < found["text_recall@1"] < 0.95


class Batches:
    """A split's pictures and captions as clip-benchmark reads them: (images, lists of texts)."""

    def __init__(self, loader):
        self.loader = loader

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        return ((batch["image"], batch["captions"]) for batch in self.loader)


@pytest.fixture(scope="module")
def tiny():
    return instantiate.build(composed("model=clip_tiny")["model"]).eval()


@torch.no_grad()
def encoded(tower, loader):
    """Features of pictures and of captions, and the captions' owners, by our own towers."""
    image, text, owner = [], [], []
    for batch in loader:
        image.append(F.normalize(tower(batch["image"]), dim=-1))
        words = tower.tokenizer()([caption for own in batch["captions"] for caption in own])
        text.append(F.normalize(tower.encode_text(words), dim=-1))
        owner += [
            i
            for i, own in zip(batch["index"].tolist(), batch["captions"], strict=True)
            for _ in own
        ]
    return torch.cat(image), torch.cat(text), torch.tensor(owner)


@pytest.mark.skipif(not REAL, reason="needs CLIPBENCH_DATA")
@pytest.mark.parametrize(
    ("kind", "folder"),
    [
        (Flickr8kDataModule, "flickr8k"),
        (COCODataModule, "coco"),
    ],
)
def test_recall_is_that_of_clip_benchmark(tiny, kind, folder):
    data = kind(root=Path(REAL) / folder, scheme="official")
    data.prepare(0)
    data.attach(preprocess=tiny.preprocess, augment=AUGMENT, batch_size=50, seed=0)
    loader = data.eval_dataloader("test")
    found = retrieval.recall(*encoded(tiny, loader))
    theirs = zeroshot_retrieval.evaluate(
        tiny.model, Batches(loader), tiny.tokenizer(), "cpu", amp=False, recall_k_list=[1, 5, 10]
    )
    for k in (1, 5, 10):
        for name in ("image", "text"):
            recall = theirs[f"{name}_retrieval_recall@{k}"]
            assert found[f"{name}_recall@{k}"] == pytest.approx(recall, abs=1e-6)
    assert 0 < found["image_recall@10"] < 1
