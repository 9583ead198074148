"""A tuned model in the names of the library that it comes from, and back again."""

import json
from pathlib import Path
from typing import Any

from open_clip import get_tokenizer
from safetensors.torch import load_file, save_file
from torch import nn

from clipbench import results, schema
from clipbench.errors import Refused
from clipbench.models.base import Classifier, ImageTower, as_head
from clipbench.transforms import Transform, eval_transform


def save(
    folder: Path, classifier: Classifier, classes: list[str], metadata: dict[str, str]
) -> None:
    """Write ``model.safetensors`` and ``head.safetensors``.

    The model's file holds what its own library would load: a whole open_clip CLIP, or a ResNet with
    its head. A CLIP has no name for a head, so the head has a file of its own.
    """
    tensors = classifier.tower.native_state_dict(classifier.head)
    # safetensors refuses tensors that share memory; CLIP's tied ones must be written apart.
    whole = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    save_file(whole, folder / "model.safetensors", metadata)
    head = {k: v.detach().cpu().contiguous() for k, v in classifier.head.state_dict().items()}
    save_file(head, folder / "head.safetensors", {"classes": json.dumps(classes)})


def classifier(run: str | Path) -> Classifier:
    """The tuned classifier of a run, in eval mode.

    Args:
        run: a run's folder.

    Raises:
        Refused: if there is no completed run in it.
    """
    folder = Path(run)
    record = results.read(folder)
    if record is None or record["status"] != "completed":
        raise Refused(f"{folder} holds no completed run; give a folder that has a result.json")
    tower: ImageTower = schema.build(
        {**record["config"]["model"], "pretrained": str(folder / "model.safetensors")}
    )
    head = load_file(folder / "head.safetensors")
    return Classifier(tower, as_head(head["weight"], head["bias"]), meaningful=True).eval()


def load(run: str | Path) -> tuple[nn.Module, Transform, Any]:
    """A tuned model as open_clip's factory returns one.

    Args:
        run: a run's folder.

    Returns:
        The model of its own library, its eval transform, and its tokenizer (None for a ResNet).
    """
    tuned = classifier(run)
    tower: Any = tuned.tower
    arch = getattr(tower, "arch", None)
    tokenizer = get_tokenizer(arch) if tower.has_text else None
    return tower.native(tuned.head), eval_transform(tower.preprocess), tokenizer
