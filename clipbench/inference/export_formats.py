"""A fine-tuned classifier in files that other programs read: open_clip, safetensors, ONNX."""

import copy
import json
import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipbench.core import files
from clipbench.core.errors import UserError
from clipbench.inference import saved_model
from clipbench.models import weight_files
from clipbench.models.base import Classifier
from clipbench.models.clip import CLIP

OPSET = 20  # torch 2.14's own default; onnxruntime reads it since 1.17
TOLERANCE = 1e-4  # absolute and relative, of ONNX against PyTorch


@dataclass(frozen=True)
class Tuned:
    """A classifier on the CPU, what its files say of it, and the towers to export.

    ``about`` is metadata of every file: the run's key, and the alpha of an average.
    """

    classifier: Classifier
    classes: list[str]
    about: dict[str, str]
    towers: str = "both"

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata of a file: the preprocessing, and the class of each logit."""
        tower = self.classifier.tower
        return {**tower.metadata(), **self.about, "classes": json.dumps(self.classes)}

    def write_head(self, folder: Path) -> Path:
        """Write the linear head, which is not part of a CLIP: it reads normalised features."""
        file = folder / "head.safetensors"
        weight_files.save(file, self.classifier.head.state_dict(), self.metadata)
        return file

    def check_text(self) -> None:
        """Raise a UserError if the text tower is requested of a model that has none."""
        if self.towers == "text" and not self.classifier.tower.has_text:
            arch = self.classifier.tower.arch
            raise UserError(f"{arch} has no text tower; leave towers= out")


def to_open_clip(tuned: Tuned, folder: Path) -> list[Path]:
    """Write a folder that open_clip loads: ``create_model_and_transforms("local-dir:FOLDER")``.

    The weights also load alone, with ``create_model`` and ``pretrained=`` the weight file.

    Raises:
        UserError: if the model is not one of open_clip, or only one tower is requested.
    """
    tower = tuned.classifier.tower
    if not isinstance(tower, CLIP) or not tower.has_text:
        raise UserError(f"{tower.arch} is not from open_clip. Use format=safetensors or onnx.")
    if tuned.towers != "both":
        raise UserError(f"towers={tuned.towers}: open_clip loads both. Use format=safetensors.")
    config = copy.deepcopy(open_clip.get_model_config(tower.open_clip_name))
    config["vision_cfg"]["image_size"] = tower.preprocess.size
    view = tower.preprocess
    prepared = {"mean": view.mean, "std": view.std, "interpolation": view.interpolation}
    about = {"model_cfg": config, "preprocess_cfg": {**prepared, "resize_mode": view.resize_mode}}
    files.write_text(folder / "open_clip_config.json", json.dumps(about, indent=2) + "\n")
    file = folder / "open_clip_model.safetensors"
    weight_files.save(file, tower.native_state_dict(tuned.classifier.head), tuned.metadata)
    return [file, folder / "open_clip_config.json", tuned.write_head(folder)]


def to_safetensors(tuned: Tuned, folder: Path) -> list[Path]:
    """Write the towers under the names of their library; a ResNet as a whole, with its head.

    Raises:
        UserError: if the text tower is requested of a model that has none.
    """
    tuned.check_text()
    image, text = saved_model.apart(tuned.classifier)
    parts = {"image": image, "text": text} if text else {"model": image}
    if text and tuned.towers != "both":
        parts = {tuned.towers: parts[tuned.towers]}
    written = [folder / f"{name}.safetensors" for name in parts]
    for file, part in zip(written, parts.values(), strict=True):
        weight_files.save(file, part, tuned.metadata)
    return [*written, *([tuned.write_head(folder)] if text and tuned.towers != "text" else [])]


class _Image(nn.Module):
    """Preprocessed images (B, 3, S, S) to logits (B, C) and features (B, D)."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.classifier.tower(image)
        if self.classifier.tower.normalized:
            features = F.normalize(features, dim=-1)
        return self.classifier.head(features), features


class _Text(nn.Module):
    """Tokens (B, length) to normalised features (B, D)."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.tower: Any = classifier.tower

    def forward(self, tokens: Tensor) -> Tensor:
        return F.normalize(self.tower.encode_text(tokens), dim=-1)


def to_onnx(tuned: Tuned, folder: Path) -> list[Path]:
    """Write ``image.onnx`` and, of a CLIP, ``text.onnx``, checked with onnxruntime.

    ``image.onnx`` takes ``image`` and gives ``logits`` and ``features``; ``text.onnx`` takes
    ``tokens`` and gives ``features``. Both features are normalised if the head reads them so.
    The batch size is free. Preprocessing, class names and the logit scale are in the metadata.

    Raises:
        UserError: if the extra is not installed, the model has no such tower, or onnxruntime's
            numbers differ.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(name) is None:
            raise UserError(f"format=onnx needs {name}; pip install 'clipbench[onnx]'")
    tuned.check_text()
    tower, size = tuned.classifier.tower, tuned.classifier.tower.preprocess.size
    about = tuned.metadata
    if tower.has_text:
        about["logit_scale"] = str(float(tower.scales()[0].exp()))
    draws = torch.Generator().manual_seed(0)
    images = torch.randn(5, 3, size, size, generator=draws)
    written = []
    if tuned.towers != "text":
        written.append(folder / "image.onnx")
        gives = ["logits", "features"]
        _onnx(_Image(tuned.classifier), "image", images, gives, written[-1], about)
    if tuned.towers != "image" and tower.has_text:
        written.append(folder / "text.onnx")
        tokens = tower.tokenizer()([f"a photo of a {name}." for name in (tuned.classes * 5)[:5]])
        _onnx(_Text(tuned.classifier), "tokens", tokens, ["features"], written[-1], about)
    return written


def _onnx(
    module: nn.Module,
    takes: str,
    sample: Tensor,
    gives: list[str],
    file: Path,
    about: Mapping[str, str],
) -> None:
    """Trace a module, and write it only if onnxruntime agrees, for five rows and for one."""
    import onnxruntime

    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    with warnings.catch_warnings(action="ignore"):
        program = torch.onnx.export(
            module.eval(),
            (sample[:2],),
            input_names=[takes],
            output_names=gives,
            dynamic_shapes={takes: {0: torch.export.Dim("batch")}},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(about)
    content = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for rows in (sample, sample[:1]):
        theirs = session.run(None, {takes: rows.numpy()})
        with torch.no_grad():
            ours = module(rows)
        pairs = zip(gives, theirs, ours if len(gives) > 1 else [ours], strict=True)
        for name, actual, expected in pairs:
            gap = float((torch.from_numpy(actual) - expected).abs().max())
            if gap > TOLERANCE * (1 + float(expected.abs().max())):
                fault = f"onnxruntime's {name} differ by {gap:.1e} from PyTorch's"
                raise UserError(f"{fault}; use format=safetensors")
    files.write_bytes(file, content)


FORMATS: Mapping[str, Callable[[Tuned, Path], list[Path]]] = {
    "open_clip": to_open_clip,
    "safetensors": to_safetensors,
    "onnx": to_onnx,
}
