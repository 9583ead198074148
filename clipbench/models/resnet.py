"""ResNets through torchvision, ready for a new head."""

import copy
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from clipbench.core.errors import UserError
from clipbench.models import hub, layers, weight_files
from clipbench.models.base import ImageTower
from clipbench.transforms.preprocess import Preprocess

# Those of torchvision's networks that have layer1 to layer4 and an fc.
_ARCHS = [n for n in torchvision.models.list_models(torchvision.models) if "resne" in n]


class ResNet(ImageTower):
    """A torchvision ResNet without its classifier.

    Args:
        arch: ``resnet50`` or any other ResNet, ResNeXt or Wide ResNet of torchvision's.
        pretrained: a torchvision weights name (``IMAGENET1K_V2``), a local file, or None for random
            weights.
        image_size: side in pixels, or None for the checkpoint's own; the resize before the crop
            keeps its proportion.

    Raises:
        UserError: for an unknown name, or weights that are not to be had or do not fit.
    """

    normalized = False

    def __init__(
        self, *, arch: str, pretrained: str | None = None, image_size: int | None = None
    ) -> None:
        super().__init__()
        if arch not in _ARCHS:
            near = difflib.get_close_matches(arch, _ARCHS, 3) or _ARCHS
            raise UserError(
                f"model.arch={arch}: torchvision has no ResNet {arch}. Similar: {', '.join(near)}."
            )
        self.arch, self.loaded = arch, pretrained
        known = torchvision.models.get_model_weights(arch)
        file = None if pretrained is None else hub.local(pretrained)
        chosen = known.DEFAULT
        if pretrained is not None and file is None:
            chosen = _named(arch, known, pretrained)
            # Never by torchvision itself: it unpickles what lies in its cache, unchecked.
            file = hub.from_url(chosen.url)
        self.model = torchvision.models.get_model(arch, weights=None)
        self.feature_dim = int(self.model.fc.in_features)
        self.model.fc = nn.Identity()
        self.preprocess = _preprocess(chosen).at(image_size)
        if file is not None:
            self._load(file, image_size)

    def _load(self, file: Path, image_size: int | None) -> None:
        about = weight_files.metadata(file)
        if "preprocess" in about:
            self.preprocess = Preprocess.from_json(about["preprocess"]).at(image_size)
        state = {k: v for k, v in weight_files.read(file).items() if not k.startswith("fc.")}
        weight_files.load_into(
            self.model, state, source=str(file), target=self.arch, guess=looks_like
        )

    def layers(self) -> list[list[nn.Parameter]]:
        """Return conv1 and bn1, each residual block (16 in ResNet50), and an empty tail."""
        model = self.model
        blocks = [block for i in (1, 2, 3, 4) for block in getattr(model, f"layer{i}")]
        return layers.by_blocks(model.parameters(), [model.conv1, model.bn1], blocks)

    def native(self, head: nn.Linear) -> nn.Module:
        """Return torchvision's network, with the head as its ``fc``."""
        model: nn.Module = copy.deepcopy(self.model)
        model.fc = copy.deepcopy(head)
        return model


def looks_like(state: Mapping[str, Tensor]) -> str | None:
    """Return the torchvision ResNet that has these tensors, if there is one."""
    theirs = {k: v.shape for k, v in state.items() if not k.startswith("fc.")}
    for arch in map(str, _ARCHS):
        with torch.device("meta"):
            model = torchvision.models.get_model(arch, weights=None)
        if theirs == {k: v.shape for k, v in model.state_dict().items() if k[:3] != "fc."}:
            return arch
    return None


def _named(arch: str, known: Any, name: str) -> Any:
    if name not in known.__members__:
        names = ", ".join(known.__members__)
        raise UserError(f"model.pretrained={name}: neither a file nor weights of {arch}: {names}.")
    return known[name]


def _preprocess(chosen: Any) -> Preprocess:
    transform = chosen.transforms()
    (crop,), (resize,) = transform.crop_size, transform.resize_size
    return Preprocess(
        size=crop,
        resize=resize,
        mean=tuple(transform.mean),
        std=tuple(transform.std),
        interpolation=transform.interpolation.value,
    )
