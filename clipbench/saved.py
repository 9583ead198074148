"""A tuned model in the names of the library that it comes from, and back again."""

import json
from pathlib import Path
from typing import Any

from torch import nn

from clipbench import results, schema, weights
from clipbench.errors import Refused
from clipbench.models.base import Classifier, as_head
from clipbench.strategies.base import Strategy
from clipbench.transforms import Transform, eval_transform


def save(
    folder: Path, classifier: Classifier, classes: list[str], metadata: dict[str, str]
) -> None:
    """Write ``model.safetensors`` and ``head.safetensors``.

    The model's file holds what its own library would load: a whole open_clip CLIP, or a ResNet with
    its head. A CLIP has no name for a head, so the head has a file of its own.
    """
    tower, head = classifier.tower, classifier.head
    about = {**tower.metadata(), **metadata}
    weights.save(folder / "model.safetensors", tower.native_state_dict(head), about)
    weights.save(folder / "head.safetensors", head.state_dict(), {"classes": json.dumps(classes)})


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
    strategy: Strategy = schema.build(record["config"]["strategy"])
    tower = strategy.restored(record["config"]["model"], str(folder / "model.safetensors"))
    head = weights.read(folder / "head.safetensors")
    return Classifier(tower, as_head(head["weight"], head["bias"]), meaningful=True).eval()


def load(run: str | Path) -> tuple[nn.Module, Transform, Any]:
    """A tuned model as open_clip's factory returns one.

    Args:
        run: a run's folder.

    Returns:
        The model of its own library, its eval transform, and its tokenizer (None for a ResNet).
    """
    tuned = classifier(run)
    tower = tuned.tower
    return tower.native(tuned.head), eval_transform(tower.preprocess), tower.tokenizer()
