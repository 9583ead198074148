"""A batch of each set of captions goes through both towers of the embedded CLIP."""

import os
from pathlib import Path

import pytest
import torch
from open_clip.loss import ClipLoss

from clipbench.core.config import instantiate
from clipbench.datamodules.captions import CaptionsDataModule
from clipbench.datamodules.coco import COCODataModule
from clipbench.datamodules.flickr import Flickr8kDataModule, Flickr30kDataModule
from clipbench.models.clip import CLIP
from tests.conftest import composed
from tests.datamodules import test_captions, test_coco, test_flickr
from tests.datamodules.folders import AUGMENT
from tests.loading.readers import test_webdataset

REAL = os.environ.get("CLIPBENCH_DATA")


def flickr8k(root):
    test_flickr.official_8k(root)
    return Flickr8kDataModule(root=root, scheme="official")


def flickr30k(root):
    test_flickr.photos(root / "flickr30k-images")
    test_flickr.karpathy(root, "flickr30k")
    return Flickr30kDataModule(root=root)


def coco(root):
    test_coco.official(root, 2017)
    test_coco.karpathy(root)
    return COCODataModule(root=root)


def captions(root):
    test_captions.images(root)
    return CaptionsDataModule(file=test_captions.table(root / "my.csv", test_captions.ROWS))


def shards(root):
    test_webdataset.shards(root, "train-{}.tar")
    return CaptionsDataModule(file=root / "set")


@pytest.fixture(scope="module")
def tiny() -> CLIP:
    return instantiate.build(composed("model=clip_tiny")["model"]).eval()


def look(data, tiny, split):
    """Batch, and the CLIP loss of its images with the first caption of each."""
    data.prepare(0)
    data.check()
    data.attach(preprocess=tiny.preprocess, augment=AUGMENT, batch_size=4, seed=0)
    loader = data.train_dataloader() if split == "train" else data.eval_dataloader(split)
    batch = next(iter(loader))
    with torch.no_grad():
        image = torch.nn.functional.normalize(tiny(batch["image"]), dim=-1)
        words = tiny.tokenizer()([own[0] for own in batch["captions"]])
        text = torch.nn.functional.normalize(tiny.encode_text(words), dim=-1)
        return batch, ClipLoss()(image, text, tiny.logit_scale.exp())


@pytest.mark.parametrize("kind", [flickr8k, flickr30k, coco, captions, shards])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_batch_goes_through_both_towers(tmp_path, outputs, tiny, kind, split):
    data = kind(tmp_path)
    batch, loss = look(data, tiny, split)
    own = data.splits[split]
    assert set(batch) == {"image", "label", "index", "captions"}
    assert batch["image"].shape == (len(batch["index"]), 3, 64, 64)
    assert (batch["label"] == -1).all()
    assert batch["captions"] == [list(own.captions[i]) for i in batch["index"].tolist()]
    assert torch.isfinite(loss)


@pytest.mark.skipif(not REAL, reason="needs CLIPBENCH_DATA")
@pytest.mark.parametrize(
    ("kind", "folder"), [(Flickr8kDataModule, "flickr8k"), (COCODataModule, "coco")]
)
def test_a_batch_of_real_photos(tiny, kind, folder):
    batch, loss = look(kind(root=Path(REAL) / folder, scheme="official"), tiny, "test")
    assert all(len(own) >= 5 for own in batch["captions"])
    assert torch.isfinite(loss)
