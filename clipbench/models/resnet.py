"""ResNets through torchvision, ready for a new head."""

from typing import Any

import torchvision
from torch import Tensor, nn

from clipbench.models import layers
from clipbench.models.base import ImageTower
from clipbench.transforms import Preprocess


class ResNet(ImageTower):
    """A torchvision ResNet without its classifier.

    Args:
        arch: ``resnet50`` or any other torchvision network with ``layer1`` to ``layer4``.
        pretrained: a torchvision weights name, a local file, or None for random weights.
        image_size: side in pixels, or None for the checkpoint's own; the resize before the crop
            keeps its proportion.

    Raises:
        Refused: for an unknown name, or weights that do not fit.
    """

    normalized = False

    def __init__(
        self, *, arch: str, pretrained: str | None = None, image_size: int | None = None
    ) -> None:
        super().__init__()
        self.model = torchvision.models.get_model(arch, weights=None)
        self.feature_dim = self.model.fc.in_features
        self.model.fc = nn.Identity()
        self.loaded = None
        self.preprocess = _preprocess(
            torchvision.models.get_model_weights(arch).DEFAULT, image_size
        )

    def forward(self, images: Tensor) -> Tensor:
        """Pooled features of shape (B, D)."""
        features: Tensor = self.model(images)
        return features

    def layers(self) -> list[list[nn.Parameter]]:
        """conv1 and bn1, each residual block (16 in ResNet50), and an empty tail."""
        model = self.model
        blocks = [block for i in (1, 2, 3, 4) for block in getattr(model, f"layer{i}")]
        return layers.by_blocks(model, [model.conv1, model.bn1], blocks)

    def native_state_dict(self, head: nn.Linear) -> dict[str, Tensor]:
        """The names of torchvision, with the head as its ``fc``."""
        state: dict[str, Tensor] = self.model.state_dict()
        return {**state, "fc.weight": head.weight.detach(), "fc.bias": head.bias.detach()}


def _preprocess(weights: Any, image_size: int | None) -> Preprocess:
    told = weights.transforms()
    (crop,), (resize,) = told.crop_size, told.resize_size
    size = image_size or crop
    return Preprocess(
        size=size,
        resize=round(size * resize / crop),
        mean=tuple(told.mean),
        std=tuple(told.std),
        interpolation=told.interpolation.value,
    )
