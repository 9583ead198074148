"""Rebuild the weights of the embedded models, and measure what they know before any fine-tuning.

Run: python -m clipbench.pretrain clip_tiny     (or resnet_tiny; `make pretrain` does both)
     python -m clipbench.pretrain clip_tiny --measure     (the weights at hand, half a minute)
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping

import torch
import torch.nn.functional as F

from clipbench.core import paths
from clipbench.core.config.compose import compose
from clipbench.core.config.instantiate import build
from clipbench.core.console import console, show
from clipbench.datamodules.shapes import ShapesDataModule
from clipbench.datamodules.synthetic.drawing import COLOURS, FILLS, SHAPES
from clipbench.loading.prompts import fill
from clipbench.models import weight_files
from clipbench.models.base import ImageTower
from clipbench.results import store
from clipbench.transforms.preprocess import eval_transform

# Each attribute's values, and the prompts that name it and nothing else.
ATTRIBUTES: Mapping[str, tuple[list[str], list[str]]] = {
    "shape": (list(SHAPES), ["a {}", "a picture of a {}", "a drawing of a {}"]),
    "fill": (list(FILLS), ["a {} shape", "a {} thing", "a {} figure"]),
    "colour": (list(COLOURS), ["a {} shape", "a {} thing", "a {} figure"]),
}


@torch.inference_mode()
def zero_shot(tower: ImageTower, data: ShapesDataModule, split: str) -> dict[str, float]:
    """Zero-shot accuracy of the class and of each attribute by itself, as fractions.

    Args:
        tower: one with a text side.
        data: prepared, its scene ``things``.
        split: of ``data``.
    """
    rows = data.splits[split]
    view = eval_transform(tower.preprocess)
    pictures = torch.stack([view(rows.image(i)) for i in range(len(rows))])
    tower.eval()
    parts = [tower(pictures[i : i + 256]) for i in range(0, len(pictures), 256)]
    features = F.normalize(torch.cat(parts), dim=-1)
    truth = [data.attributes(name) for name in rows.ids]
    asked = {"class": (list(data.classes), list(data.templates)), **ATTRIBUTES}
    labels = {"class": torch.from_numpy(rows.labels)}
    for name, (values, _) in ATTRIBUTES.items():
        labels[name] = torch.tensor([values.index(row[name]) for row in truth])
    right = {}
    for name, (values, templates) in asked.items():
        head = tower.zero_shot_head([[fill(t, v) for t in templates] for v in values])
        assert head is not None
        right[name] = float((head(features).argmax(1) == labels[name]).double().mean())
    return right


def keep(name: str) -> None:
    """Put the weights of the newest pretraining run into the package, at half precision."""
    found = [
        (folder.stat().st_mtime, folder)
        for folder, record in store.records(paths.outputs())
        if record.model == name and record.config["dataset"].get("scene") == "pretrain"
        if record.completed
    ]
    file = max(found)[1] / "model.safetensors"
    half = {
        key: tensor.half() if tensor.is_floating_point() else tensor
        for key, tensor in weight_files.read(file).items()
    }
    target = paths.ASSETS / f"{name}.safetensors"
    weight_files.save(target, half, weight_files.metadata(file))
    console.print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")


def main() -> None:
    """Pretrain, keep, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=["clip_tiny", "resnet_tiny"])
    parser.add_argument("--measure", action="store_true", help="only measure what is there")
    asked = parser.parse_args()
    if not asked.measure:
        command = [sys.executable, "-m", "clipbench.run", f"experiment=pretrain_{asked.model}"]
        subprocess.run(command, check=True)
        keep(asked.model)
    config = compose(f"model={asked.model}", "dataset=shapes")
    tower: ImageTower = build(config["model"])
    if not tower.has_text:
        return
    data: ShapesDataModule = build(config["dataset"])
    data.prepare(0)
    measured = {split: zero_shot(tower, data, split) for split in ("val", "test", "test_ood")}
    chance = {"class": 1 / len(data.classes)}
    chance |= {name: 1 / len(values) for name, (values, _) in ATTRIBUTES.items()}
    rows = [(n, chance[n], *(measured[split][n] for split in measured)) for n in chance]
    show(f"{asked.model}, zero-shot on shapes", ("names the", "chance", *measured), rows)


if __name__ == "__main__":
    main()
