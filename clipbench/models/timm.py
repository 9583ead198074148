"""Any timm backbone, ready for a new head."""

import copy
import difflib
import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data.config import resolve_data_config
from torch import Tensor, nn

from clipbench.core.errors import UserError
from clipbench.models import hub, layers, weight_files
from clipbench.models.base import ImageTower
from clipbench.transforms.preprocess import Preprocess

_FILES = ("model.safetensors", "pytorch_model.bin")


class Timm(ImageTower):
    """A timm network without its classifier.

    Args:
        arch: timm's name, with or without tag (``resnet50.a1_in1k``).
        pretrained: ``default`` for the arch's own tag, another tag of timm's,
            ``hf-hub:org/name``, a local file, ``assets:`` or ``pip:`` (see ``hub.local``), or None
            for random weights.
        image_size: side in pixels, or None for the checkpoint's own; position embeddings are
            interpolated by timm.
        options: further keyword arguments of the network's own, such as ``drop_path_rate``.

    Raises:
        UserError: for an unknown name, or weights that are not to be had or do not fit.
    """

    normalized = False
    extra: str | None = None  # of this package, that brings the weights
    model: Any  # timm networks differ in everything but their conventions

    def __init__(
        self,
        *,
        arch: str,
        pretrained: str | None = None,
        image_size: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.arch, self.loaded = arch, pretrained
        known, file = _find(arch, pretrained, self.extra)
        self.model = _build(arch, known, image_size, options or {})
        self.preprocess = _preprocess(known, image_size)
        self.feature_dim = int(getattr(self.model, "head_hidden_size", self.model.num_features))
        if file is not None:
            self._load(file, image_size)

    def _load(self, file: Path, image_size: int | None) -> None:
        about = weight_files.metadata(file)
        if "preprocess" in about:
            self.preprocess = Preprocess.from_json(about["preprocess"]).at(image_size)
        state = self.renamed(weight_files.read(file))
        classifier = self.model.default_cfg["classifier"] + "."
        state = {k: v for k, v in state.items() if not k.startswith(classifier)}
        own = {k: v.shape for k, v in self.model.state_dict().items()}
        # timm's own conversion of old names and of position embeddings of another size.
        convert = getattr(sys.modules[type(self.model).__module__], "checkpoint_filter_fn", None)
        if convert is not None and own != {k: v.shape for k, v in state.items()}:
            # Weights of another network may fail here; load_into() says which tensors differ.
            with suppress(Exception):
                state = convert(dict(state), self.model)
        weight_files.load_into(self.model, state, source=str(file), target=self.arch)

    def renamed(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A checkpoint's tensors under timm's names, for checkpoints that have their own."""
        return state

    def forward(self, images: Tensor) -> Tensor:
        """Pooled features of shape (B, D)."""
        features: Tensor = self.model(images)
        return features

    def layers(self) -> list[list[nn.Parameter]]:
        """The stem, each block as timm counts them, and what follows the last one."""
        return layers.by_timm(self.model)

    def native(self, head: nn.Linear) -> nn.Module:
        """Timm's network, with the head as its classifier."""
        model: Any = copy.deepcopy(self.model)
        model.reset_classifier(head.out_features)
        classifier = model.get_classifier()
        with torch.no_grad():  # some classifiers are 1 x 1 convolutions
            classifier.weight.copy_(head.weight.view_as(classifier.weight))
            classifier.bias.copy_(head.bias)
        whole: nn.Module = model
        return whole


def _find(
    arch: str, pretrained: str | None, extra: str | None
) -> tuple[Mapping[str, Any], Path | None]:
    """A record of the weights (the arch's own, unless others are asked by name), and their file."""
    own = _record(arch)
    if pretrained is None:
        return own, None
    if pretrained.startswith(hub.HUB):
        repo = pretrained.removeprefix(hub.HUB)
        told = hub.description(hub.from_hub(repo, ["config.json"]), "architecture")
        if told["architecture"] != arch.partition(".")[0]:
            raise UserError(f"{pretrained} is no {arch}; use model.arch={told['architecture']}")
        return {**own, **told.get("pretrained_cfg", told)}, hub.from_hub(repo, _FILES)
    file = hub.local(pretrained, extra=extra)
    if file is not None:
        return own, file
    record = own if pretrained == "default" else _record(f"{arch.partition('.')[0]}.{pretrained}")
    if record["hf_hub_id"]:
        name = record["hf_hub_filename"]
        return record, hub.from_hub(record["hf_hub_id"], _safe(name) if name else _FILES)
    if record["url"]:
        return record, hub.from_url(record["url"])
    raise UserError(f"timm has no weights for {arch}; say model.pretrained=/path/to/them, or null")


def _record(name: str) -> Mapping[str, Any]:
    base = name.partition(".")[0]
    if not timm.is_model(base):
        near = ", ".join(difflib.get_close_matches(base, timm.list_models(), 3)) or "nothing"
        raise UserError(f"timm knows no arch {base}; near it: {near}")
    try:
        record: Any = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:
        tags = ", ".join(tag.partition(".")[2] for tag in timm.list_pretrained(f"{base}.*"))
        raise UserError(f"timm has no weights {name}; its tags of {base}: {tags}") from None
    fields: dict[str, Any] = vars(record)
    return fields


def _safe(name: str) -> Sequence[str]:
    """A file name and its safetensors twin, that one first."""
    twin = name.replace("_pytorch", "").rpartition(".")[0] + ".safetensors"
    return [twin, name] if twin != name else [name]


def _build(
    arch: str, record: Mapping[str, Any], image_size: int | None, options: Mapping[str, Any]
) -> Any:
    if not isinstance(record["classifier"], str):
        raise UserError(f"{arch} has no single classifier; use another arch")
    model: Any = timm.create_model(arch, pretrained=False, num_classes=0, **options)
    if image_size is not None:
        if hasattr(model, "set_input_size"):
            model.set_input_size(img_size=image_size)
        elif record["fixed_input_size"] and image_size != record["input_size"][-1]:
            raise UserError(f"{arch} works at {record['input_size'][-1]} px only; drop image_size")
    return model


def _preprocess(record: Mapping[str, Any], image_size: int | None) -> Preprocess:
    resolve: Any = resolve_data_config  # untyped
    told = resolve(pretrained_cfg=record)
    size = image_size or int(told["input_size"][-1])
    if told["crop_mode"] not in ("center", "squash"):
        raise UserError(f"timm's crop mode {told['crop_mode']} is not supported; use another arch")
    return Preprocess(
        size=size,
        resize=math.floor(size / told["crop_pct"]),
        mean=tuple(told["mean"]),
        std=tuple(told["std"]),
        interpolation=told["interpolation"],
        resize_mode="squash" if told["crop_mode"] == "squash" else "shortest",
    )
