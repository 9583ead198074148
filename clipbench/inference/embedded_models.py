"""The weights that come with the package, and what they know before any fine-tuning."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F

from clipbench.core import paths
from clipbench.core.console import console
from clipbench.datamodules.shapes import ShapesDataModule
from clipbench.datamodules.synthetic.drawing import COLOURS, FILLS, SHAPES
from clipbench.loading.prompts import fill
from clipbench.models import weight_files
from clipbench.models.base import ImageTower
from clipbench.results import store
from clipbench.transforms.preprocess import View

# Each attribute's values, and the prompts that name it and nothing else.
ATTRIBUTES: Mapping[str, tuple[list[str], list[str]]] = {
    "shape": (list(SHAPES), ["a {}", "a picture of a {}", "a drawing of a {}"]),
    "fill": (list(FILLS), ["a {} shape", "a {} thing", "a {} figure"]),
    "colour": (list(COLOURS), ["a {} shape", "a {} thing", "a {} figure"]),
}


@torch.inference_mode()
def zero_shot(tower: ImageTower, data: ShapesDataModule, split: str) -> dict[str, float]:
    """Return the zero-shot accuracy of the class and of each attribute alone, as fractions.

    The tower has a text tower; the prepared data's scene is ``things``.
    """
    rows = data.splits[split]
    view = View(tower.preprocess)
    images = torch.stack([view(rows.image(i)) for i in range(len(rows))])
    tower.eval()
    parts = [tower(images[i : i + 256]) for i in range(0, len(images), 256)]
    features = F.normalize(torch.cat(parts), dim=-1)
    truth = [data.attributes(name) for name in rows.ids]
    prompts = {"class": (list(data.classes), list(data.templates)), **ATTRIBUTES}
    labels = {"class": torch.from_numpy(rows.labels)}
    for name, (values, _) in ATTRIBUTES.items():
        labels[name] = torch.tensor([values.index(row[name]) for row in truth])
    right = {}
    for name, (values, templates) in prompts.items():
        head = tower.zero_shot_head([[fill(t, v) for t in templates] for v in values])
        assert head is not None
        right[name] = float((head(features).argmax(1) == labels[name]).double().mean())
    return right


def keep(name: str) -> None:
    """Save the weights of the newest pretraining run in the package, in half precision."""
    completed = [
        (folder.stat().st_mtime, folder)
        for folder, record in store.records(paths.outputs())
        if record.model == name and record.config["dataset"].get("scene") == "pretrain"
        if record.completed
    ]
    file = max(completed)[1] / "model.safetensors"
    half = {
        key: tensor.half() if tensor.is_floating_point() else tensor
        for key, tensor in weight_files.read(file).items()
    }
    target = paths.ASSETS / f"{name}.safetensors"
    weight_files.save(target, half, weight_files.metadata(file))
    console.print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")
