"""CLIP through open_clip: any of its architectures, its weights, its zero-shot classifier."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import open_clip
import torch
from torch import Tensor, nn

from clipbench import paths
from clipbench.errors import Refused
from clipbench.models import layers
from clipbench.models.base import ImageTower, as_head
from clipbench.transforms import Preprocess

if (paths.ASSETS / "model_configs").is_dir():
    open_clip.add_model_config(paths.ASSETS / "model_configs")


class CLIP(ImageTower):
    """Both towers of a CLIP; features are those of the image tower, before normalisation.

    Args:
        arch: open_clip's name, native QuickGELU names included (``ViT-B-32-quickgelu``).
        pretrained: an open_clip tag, ``hf-hub:org/name``, a local file, or None for random weights.
        image_size: side in pixels, or None for the checkpoint's own; when it is raised, position
            embeddings are interpolated (open_clip's ``resize_pos_embed``).

    Raises:
        Refused: for an unknown name, weights that do not fit, or an activation that disagrees.
    """

    normalized = True

    def __init__(
        self, *, arch: str, pretrained: str | None = None, image_size: int | None = None
    ) -> None:
        super().__init__()
        with _quiet():
            self.model = open_clip.create_model(
                arch, pretrained=None, pretrained_text=False, force_image_size=image_size
            )
        self.loaded = None
        self.arch = arch
        # Frozen until a strategy wants it: fine-tuning as in WiSE-FT trains the image tower alone.
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name.startswith("visual."))
        self.preprocess = _preprocess(self.model.visual.preprocess_cfg)
        self.feature_dim = int(
            self.model.visual(torch.zeros(1, 3, *[self.preprocess.size] * 2)).shape[1]
        )

    def forward(self, images: Tensor) -> Tensor:
        """Image features, not normalised, of shape (B, D)."""
        features: Tensor = self.model.encode_image(images)
        return features

    def trained(self) -> nn.Module:
        """The image tower alone."""
        visual: nn.Module = self.model.visual
        return visual

    def layers(self) -> list[list[nn.Parameter]]:
        """Embeddings or stem, each block, then final norm and projection (or attention pool)."""
        visual = self.model.visual
        if hasattr(visual, "trunk"):  # one of timm's networks; its adapter's head ends the tail
            *groups, tail = layers.by_timm(visual.trunk)
            return [*groups, [*tail, *visual.head.parameters()]]
        if hasattr(visual, "transformer"):
            stem = [
                visual.conv1,
                visual.class_embedding,
                visual.positional_embedding,
                visual.ln_pre,
            ]
            return layers.by_blocks(visual, stem, visual.transformer.resblocks)
        stem = [getattr(visual, f"{part}{i}") for i in (1, 2, 3) for part in ("conv", "bn")]
        blocks = [b for i in (1, 2, 3, 4) for b in getattr(visual, f"layer{i}")]
        return layers.by_blocks(visual, stem, blocks)

    def native_state_dict(self, head: nn.Linear) -> dict[str, Tensor]:
        """Both towers and the logit scale under open_clip's names; the head has none there."""
        state: dict[str, Tensor] = self.model.state_dict()
        return state

    def tokenizer(self) -> Any:
        """open_clip's tokenizer for this architecture."""
        return open_clip.get_tokenizer(self.arch)

    @torch.no_grad()
    def zero_shot_head(self, classes: Sequence[str], templates: Sequence[str]) -> nn.Linear:
        """Mean text embedding of each class times the logit scale, bias 0 (WiSE-FT's head).

        Args:
            classes: C class names.
            templates: strings with one ``{}`` each.

        Returns:
            A layer (C, D) that reads normalised features.
        """
        weight = open_clip.build_zero_shot_classifier(
            self.model,
            self.tokenizer(),
            classes,
            templates,
            device=self.model.logit_scale.device,
        )
        return as_head(self.model.logit_scale.exp() * weight.T)


def _preprocess(told: dict[str, Any]) -> Preprocess:
    """open_clip's preprocessing record as ours."""
    height, width = told["size"] if isinstance(told["size"], (tuple, list)) else [told["size"]] * 2
    if height != width or told["resize_mode"] == "longest":
        raise Refused(
            "only square pictures, cropped or squashed, are supported; choose another arch"
        )
    return Preprocess(
        size=height,
        resize=height,
        mean=tuple(told["mean"]),
        std=tuple(told["std"]),
        interpolation="bilinear" if told["interpolation"] == "bilinear" else "bicubic",
        resize_mode=told["resize_mode"],
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep open_clip from warning of random weights, which is what is asked of it here."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
