"""The exported model, and what it is given, are those that were measured; training sees anew."""

import numpy as np
import torch
from PIL import Image

import clipbench
from clipbench.core.config.instantiate import build
from clipbench.core.errors import UserError
from clipbench.inference import averages, saved_model
from clipbench.loading import dataset
from clipbench.loading.images.decoding import ORIENTATION
from clipbench.metrics import classification
from tests.faults.planted import image_folder, plants, run

SMALL = "dataset.counts={train: 4, val: 6, test: 3, test_ood: 3}"
LINE = (SMALL, "dataset.subset=5", "alphas=[0,0.3,1]", "warmup=0", "monitor=loss")


def _val_loss(classifier, record):
    data = build(record["config"]["dataset"])
    data.prepare(record["seed"])
    data.attach(preprocess=classifier.tower.preprocess, augment=None, batch_size=64, seed=0)
    with torch.no_grad():
        parts = [(classifier(b["image"]), b["label"]) for b in data.val_dataloader()]
    return classification.loss(*(torch.cat(column) for column in zip(*parts, strict=True)))


@plants(
    "a merged export where the start was chosen",
    blind={"clipbench.inference.averages._load_end": lambda *args: None},
)
def merged(place):
    """Each epoch is worse than the start: the line still leads to the last one."""
    ran = run(place, *LINE, "lr=3e-3", model="clip_tiny", dataset="shapes")
    assert ran.outcome.status == "completed", ran.outcome.error
    assert ran.record["selection"]["epoch"] == 0
    for row in ran.record["alpha_curve"]:
        found = _val_loss(averages.between(ran.outcome.folder, row["alpha"]), ran.record)
        expected = row["val/loss"]
        assert abs(found - expected) <= 1e-3 * expected, f"alpha={row['alpha']:g}: {found}"


@plants(
    "a merged export of a Fisher average",
    blind={"clipbench.inference.averages._check_reproducible": lambda *args: None},
)
def merged_fisher(place):
    words = (*LINE, "lr=1e-3", "merge=fisher")
    ran = run(place, *words, model="clip_tiny", dataset="shapes")
    assert ran.outcome.status == "completed", ran.outcome.error
    said = ""
    try:
        averages.between(ran.outcome.folder, 0.7)
    except UserError as refused:
        said = str(refused)
    assert "merge=fisher" in said, "an average that nobody measured was exported"


@plants(
    "a rotated photo",
    blind={
        "clipbench.inference.saved_model.as_read": lambda image, value_range: image.convert("RGB")
    },
)
def rotated(place):
    root = image_folder(place / "images")
    ran = run(place, f"dataset.root={root}")
    y, x = np.mgrid[:90, :120]
    upright = Image.fromarray(np.stack([x * 2, y * 2, 255 - x], -1).astype(np.uint8))
    held = Image.Exif()
    held[ORIENTATION] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(place / "photo.png", exif=held)
    model, transform, _ = clipbench.load(ran.outcome.folder)
    with Image.open(place / "photo.png") as photo, torch.no_grad():
        seen = model.eval()(transform(photo)[None])
        expected = saved_model.classifier(ran.outcome.folder)(transform(upright)[None])
    assert torch.allclose(seen, expected, atol=1e-4), "the photo was seen lying on its side"


class _Alike(dict):
    """In place of the counter: every draw of an image in an epoch as if it were the first."""

    def __missing__(self, position):
        return 0

    def __setitem__(self, position, draws):
        pass


@plants(
    "an oversampled rare class",
    blind={"clipbench.loading.samplers.Counter": _Alike},
)
def oversampled(place):
    root = image_folder(place / "images", {"train": 9, "val": 4, "test": 4})
    for path in sorted((root / "train" / "dark").glob("*.png"))[1:]:
        path.unlink()
    views = []
    look = dataset.ImageDataset.__getitem__

    def noted(self, key):
        row = look(self, key)
        if isinstance(key, tuple) and self.split.ids[row["index"]].startswith("train/dark"):
            views.append(row["image"].numpy().tobytes())
        return row

    dataset.ImageDataset.__getitem__ = noted  # in this case's own process
    ran = run(place, f"dataset.root={root}", "dataset.balance=sampler", "epochs=3")
    assert ran.outcome.status == "completed", ran.outcome.error
    assert len(views) > 9  # of 9 draws in each of 3 epochs
    different = len(set(views))
    assert different > 0.8 * len(views), f"{len(views)} looks, {different} different"
