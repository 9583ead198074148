"""Any timm backbone, ready for a new head."""

import copy
import difflib
import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data.config import resolve_data_config
from timm.models import PretrainedCfg
from torch import Tensor, nn

from clipbench.core.errors import UserError
from clipbench.models import hub, layers, weight_files
from clipbench.models.base import ImageTower
from clipbench.transforms.preprocess import Preprocess

_FILES = ("model.safetensors", "pytorch_model.bin")
TimmOption = bool | float | str  # a keyword argument of a timm network


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

    def __init__(
        self,
        *,
        arch: str,
        pretrained: str | None = None,
        image_size: int | None = None,
        options: Mapping[str, TimmOption] | None = None,
    ) -> None:
        super().__init__()
        self.arch, self.loaded = arch, pretrained
        config, file = _find(arch, pretrained, self.extra)
        self.model = _build(arch, config, image_size, options or {})
        self.preprocess = _preprocess(config, image_size)
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
        shapes = {k: v.shape for k, v in self.model.state_dict().items()}
        # timm's conversion of old names and of position embeddings of another size.
        convert = getattr(sys.modules[type(self.model).__module__], "checkpoint_filter_fn", None)
        if convert is not None and shapes != {k: v.shape for k, v in state.items()}:
            # Weights of another network may fail here; load_into() says which tensors differ.
            with suppress(Exception):
                state = convert(dict(state), self.model)
        weight_files.load_into(self.model, state, source=str(file), target=self.arch)

    def renamed(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return a checkpoint's tensors under timm's names, where it has other names."""
        return state

    def layers(self) -> list[list[nn.Parameter]]:
        """Return the stem, each block as timm counts them, and what follows the last block."""
        return layers.by_timm(self.model)

    def native(self, head: nn.Linear) -> nn.Module:
        """Return timm's network, with the head as its classifier."""
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
) -> tuple[PretrainedCfg, Path | None]:
    """Return the config of the weights (by default the arch's), and their file."""
    config = _config(arch)
    if pretrained is None:
        return config, None
    if pretrained.startswith(hub.HUB):
        repo = pretrained.removeprefix(hub.HUB)
        described = hub.description(hub.from_hub(repo, ["config.json"]), "architecture")
        if described["architecture"] != arch.partition(".")[0]:
            raise UserError(
                f"model.pretrained={pretrained}: not of {arch}. "
                f"Use model.arch={described['architecture']}"
            )
        changed = described.get("pretrained_cfg", described)
        known = {k: v for k, v in changed.items() if k in vars(config)}
        return replace(config, **known), hub.from_hub(repo, _FILES)
    file = hub.local(pretrained, extra=extra)
    if file is not None:
        return config, file
    if pretrained != "default":
        config = _config(f"{arch.partition('.')[0]}.{pretrained}")
    if config.hf_hub_id:
        name = config.hf_hub_filename
        return config, hub.from_hub(config.hf_hub_id, _safe(name) if name else _FILES)
    if config.url:
        return config, hub.from_url(str(config.url))
    raise UserError(
        f"model.pretrained={pretrained}: timm has no weights for {arch}. "
        "Use model.pretrained=/path/to/them, or null."
    )


def _config(name: str) -> PretrainedCfg:
    base = name.partition(".")[0]
    if not timm.is_model(base):
        near = ", ".join(difflib.get_close_matches(base, timm.list_models(), 3)) or "none"
        raise UserError(f"model.arch={base}: unknown to timm. Similar names: {near}.")
    try:
        config: Any = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:
        tags = ", ".join(tag.partition(".")[2] for tag in timm.list_pretrained(f"{base}.*"))
        raise UserError(
            f"timm has no weights {name}. Use one of the tags of {base}: {tags}."
        ) from None
    found: PretrainedCfg = config
    return found


def _safe(name: str) -> Sequence[str]:
    """Return a file name and its safetensors twin, the twin first."""
    twin = name.replace("_pytorch", "").rpartition(".")[0] + ".safetensors"
    return [twin, name] if twin != name else [name]


def _build(
    arch: str, config: PretrainedCfg, image_size: int | None, options: Mapping[str, TimmOption]
) -> Any:
    if not isinstance(config.classifier, str):
        raise UserError(f"model.arch={arch}: it has no single classifier. Use another.")
    create_model: Any = timm.create_model  # whose options depend on the network
    model = create_model(arch, pretrained=False, num_classes=0, **options)
    if image_size is not None:
        if hasattr(model, "set_input_size"):
            model.set_input_size(img_size=image_size)
        elif config.fixed_input_size and image_size != config.input_size[-1]:
            raise UserError(
                f"model.image_size={image_size}: {arch} works at {config.input_size[-1]} px only. "
                "Leave it out."
            )
    return model


def _preprocess(config: PretrainedCfg, image_size: int | None) -> Preprocess:
    resolve: Any = resolve_data_config  # untyped
    data = resolve(pretrained_cfg=vars(config))
    size = image_size or int(data["input_size"][-1])
    if data["crop_mode"] not in ("center", "squash"):
        raise UserError(
            f"model.arch: timm's crop mode {data['crop_mode']} is not supported. Use another arch."
        )
    return Preprocess(
        size=size,
        resize=math.floor(size / data["crop_pct"]),
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        interpolation=data["interpolation"],
        resize_mode="squash" if data["crop_mode"] == "squash" else "shortest",
    )
