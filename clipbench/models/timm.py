"""Any timm backbone, ready for a new head."""

import math
from collections.abc import Mapping
from typing import Any

import timm
from timm.data.config import resolve_data_config
from torch import Tensor, nn

from clipbench.errors import Refused
from clipbench.models import layers
from clipbench.models.base import ImageTower
from clipbench.transforms import Preprocess


class Timm(ImageTower):
    """A timm network without its classifier.

    Args:
        arch: timm's name, with or without tag (``resnet50.a1_in1k``).
        pretrained: a timm tag, ``hf-hub:org/name``, a local file, or None for random weights.
        image_size: side in pixels, or None for the checkpoint's own; position embeddings are
            interpolated by timm.
        options: further keyword arguments of the network's own, such as ``drop_path_rate``.

    Raises:
        Refused: for an unknown name, or weights that do not fit.
    """

    normalized = False
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
        self.model: Any = timm.create_model(
            arch, pretrained=False, num_classes=0, **(options or {})
        )
        self.loaded = None
        if image_size is not None and hasattr(self.model, "set_input_size"):
            self.model.set_input_size(img_size=image_size)
        self.preprocess = _preprocess(self.model, image_size)
        self.feature_dim = int(getattr(self.model, "head_hidden_size", self.model.num_features))

    def forward(self, images: Tensor) -> Tensor:
        """Pooled features of shape (B, D)."""
        features: Tensor = self.model(images)
        return features

    def layers(self) -> list[list[nn.Parameter]]:
        """The stem, each block as timm counts them, and what follows the last one."""
        return layers.by_timm(self.model)

    def native_state_dict(self, head: nn.Linear) -> dict[str, Tensor]:
        """The names of timm, with the head as the network's classifier."""
        state: dict[str, Tensor] = self.model.state_dict()
        name = self.model.default_cfg["classifier"]
        return {**state, f"{name}.weight": head.weight.detach(), f"{name}.bias": head.bias.detach()}


def _build(arch: str, options: Mapping[str, Any]) -> Any:
    return timm.create_model(arch, pretrained=False, num_classes=0, **options)


def _preprocess(model: Any, image_size: int | None) -> Preprocess:
    resolve: Any = resolve_data_config  # untyped
    told = resolve(model=model)
    size = image_size or int(told["input_size"][-1])
    if told["crop_mode"] not in ("center", "squash"):
        raise Refused(f"timm's crop mode {told['crop_mode']} is not supported; choose another arch")
    return Preprocess(
        size=size,
        resize=math.floor(size / told["crop_pct"]),
        mean=tuple(told["mean"]),
        std=tuple(told["std"]),
        interpolation=told["interpolation"],
        resize_mode="squash" if told["crop_mode"] == "squash" else "shortest",
    )
