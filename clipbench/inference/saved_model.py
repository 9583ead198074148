"""Saving a fine-tuned model under the names of its library, and loading it."""

import json
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor, nn

from clipbench.core.config import instantiate
from clipbench.core.errors import UserError
from clipbench.loading.images.decoding import Range, as_read
from clipbench.models import weight_files
from clipbench.models.base import Classifier, as_head
from clipbench.results import store
from clipbench.results.record import RunRecord
from clipbench.strategies.base import Strategy
from clipbench.transforms.preprocess import ImageInput, Preprocess, Transform, View


def save(
    folder: Path,
    classifier: Classifier,
    classes: list[str],
    metadata: dict[str, str],
    stem: str = "model",
) -> None:
    """Write a run's weights: ``model.safetensors`` and ``head.safetensors``, or another stem's.

    The model's file holds what its own library would load, and ``metadata`` besides: a whole
    open_clip CLIP, or a ResNet with its head. open_clip has no name for a head, so that has its own
    file, with the names of its ``classes``.
    """
    tower, head = classifier.tower, classifier.head
    about = {**tower.metadata(), **metadata}
    weight_files.save(folder / f"{stem}.safetensors", tower.native_state_dict(head), about)
    about = {"classes": json.dumps(classes)}
    weight_files.save(folder / _head_file(stem), head.state_dict(), about)


def _head_file(stem: str) -> str:
    return "head.safetensors" if stem == "model" else f"{stem}_head.safetensors"


def completed(run: str | Path, stem: str = "model") -> RunRecord:
    """Return the record of a completed run that has its weights.

    Raises:
        UserError: if the folder has no completed run, or the run has no such weights.
    """
    folder = Path(run)
    record = store.read(folder)
    if record is None or not record.completed:
        raise UserError(f"{folder} has no completed run. Give a folder that has a result.json.")
    for name in (f"{stem}.safetensors", _head_file(stem)):
        if not (folder / name).is_file():
            fix = "run it with alphas=10" if stem != "model" else "restore it, or run it again"
            raise UserError(f"{folder} has no {name}; {fix}")
    return record


def classes(run: str | Path, stem: str = "model") -> list[str]:
    """Return the class names of a saved head's rows.

    Raises:
        UserError: as :func:`completed` does.
    """
    completed(run, stem)
    names: list[str] = json.loads(weight_files.metadata(Path(run) / _head_file(stem))["classes"])
    return names


def classifier(run: str | Path, stem: str = "model") -> Classifier:
    """Return the fine-tuned classifier of a run, in eval mode.

    The stem ``merged`` is the average of start and end that was best on val.

    Raises:
        UserError: as :func:`completed` does.
    """
    folder, record = Path(run), completed(run, stem)
    strategy: Strategy = instantiate.build(record.config["strategy"])
    tower = strategy.restored(record.config["model"], str(folder / f"{stem}.safetensors"))
    head = weight_files.read(folder / _head_file(stem))
    return Classifier(tower, as_head(head["weight"], head["bias"]), meaningful=True).eval()


def apart(tuned: Classifier) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the weights of the image tower, and the others, under their library's names.

    The others are a CLIP's text tower and logit scale; a ResNet has none, as its head is part of
    the first.
    """
    whole = tuned.tower.native_state_dict(tuned.head)
    if not tuned.tower.has_text:
        return whole, {}
    native = tuned.tower.native(tuned.head)
    image = next(name for name, part in native.named_modules() if part is tuned.tower.trained())
    inside = {name: value for name, value in whole.items() if name.startswith(f"{image}.")}
    return inside, {name: value for name, value in whole.items() if name not in inside}


def towers(run: str | Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the image tower and the text tower of a run, as :func:`apart` does.

    Raises:
        UserError: as :func:`completed` does.
    """
    return apart(classifier(run))


class OpenedView(View):
    """The eval transform, for images that were opened with Pillow.

    They are first rotated upright, put on white and converted to 8 bits, as when a run reads files
    with ``dataset.value_range``.
    """

    def __init__(self, preprocess: Preprocess, value_range: Range | None = None) -> None:
        super().__init__(preprocess)
        self.value_range = value_range

    def __call__(self, image: ImageInput) -> Tensor:
        """Transform an image to float32 (3, S, S).

        Raises:
            UserError: if a run would not read the image, such as one with too many pixels.
        """
        if isinstance(image, Image.Image):
            try:
                image = as_read(image, self.value_range)
            except ValueError as unfit:
                raise UserError(str(unfit)) from None
        return super().__call__(image)


def load(run: str | Path) -> tuple[nn.Module, Transform, Any]:
    """Return a run's fine-tuned model as open_clip's factory does.

    Returns:
        The model of its own library, its eval transform, which reads images as the run did, and
        its tokenizer (None for a ResNet).
    """
    record, tuned = completed(run), classifier(run)
    tower, values = tuned.tower, record.config["dataset"].get("value_range")
    transform = OpenedView(tower.preprocess, values and tuple(values))
    return tower.native(tuned.head), transform, tower.tokenizer()
