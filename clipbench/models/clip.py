"""CLIP through open_clip: any of its architectures, its weights, its zero-shot classifier."""

import logging
import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import torch
from open_clip.convert import convert_state_dict
from open_clip.model import resize_pos_embed, resize_text_pos_embed
from torch import Tensor, nn

from clipbench.core import paths
from clipbench.core.errors import UserError
from clipbench.models import clip_weights, layers, weight_files
from clipbench.models.pooling import pool_patches
from clipbench.models.two_towers import TwoTowers, fold_attention
from clipbench.transforms.preprocess import Preprocess

if (paths.ASSETS / "model_configs").is_dir():
    open_clip.add_model_config(paths.ASSETS / "model_configs")


class CLIP(TwoTowers):
    """Both towers of a CLIP; features are those of the image tower, before normalisation.

    Args:
        arch: open_clip's name, native QuickGELU names included (``ViT-B-32-quickgelu``), or
            ``hf-hub:org/name`` for an architecture of that repository's own.
        pretrained: an open_clip tag, ``hf-hub:org/name``, a local file, ``assets:`` and the name of
            a file of this package, or None for random weights.
        image_size: side in pixels, or None for the checkpoint's own; for another, the positions of
            a ViT or of a ResNet's attention pool are interpolated (open_clip's
            ``resize_pos_embed``, which by itself knows the ViT alone).
        pool: ``mean`` for FT-CLIP's, see :func:`clipbench.models.pooling.pool_patches`; the text
            tower is then left out, since its space is; None for the checkpoint's own.

    Attributes:
        open_clip_name: of the architecture, as open_clip's ``get_model_config`` takes it.

    Raises:
        UserError: for an unknown name, weights that are not to be had or do not fit, an activation
            that disagrees with them, or another pooling.
    """

    def __init__(
        self,
        *,
        arch: str,
        pretrained: str | None = None,
        image_size: int | None = None,
        pool: str | None = None,
    ) -> None:
        super().__init__()
        source = clip_weights.find(arch, pretrained)
        self.arch, self.loaded, self.open_clip_name = arch, pretrained, source.name
        self.warnings = source.warnings
        self._projects = True
        with _quiet():
            self.model = open_clip.create_model(
                source.name,
                device=torch.get_default_device(),
                load_weights=False,
                pretrained_text=False,
                force_image_size=image_size,
                force_preprocess_cfg=source.preprocess,
            )
        # Frozen until a strategy wants it: fine-tuning as in WiSE-FT trains the image tower alone.
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name.startswith("visual."))
        fold_attention(self.model)
        config: dict[str, Any] = open_clip.get_model_config(source.name)
        self.feature_dim = int(config["embed_dim"])
        self.activation = clip_weights.activation(config)
        self.preprocess = _preprocess(self.model.visual.preprocess_cfg)
        if pool not in (None, "mean"):
            raise UserError(f"no model.pool={pool}; use mean, or null for the checkpoint's own")
        about = {} if source.file is None else weight_files.metadata(source.file)
        if about.get("pool", pool) != pool:
            raise UserError(f"{source.file} was trained with model.pool=mean; add that")
        if "pool" in about:  # of this kind already
            self._pool()
        if source.file is not None:
            self._load(source.file, about)
        if pool is not None and not self.mean_pooled:
            self._pool()

    def _pool(self) -> None:
        self.model = nn.ModuleDict({"visual": pool_patches(self.model.visual, self.arch)})
        self.mean_pooled, self.has_text, self.normalized = True, False, False
        self.feature_dim = int(self.model.visual.ln_post.normalized_shape[0])

    def _load(self, file: Path, about: Mapping[str, str]) -> None:
        if "preprocess" in about:
            self.preprocess = Preprocess.from_json(about["preprocess"]).at(self.preprocess.size)
        state = weight_files.read(file)
        heads = ("head.weight", "head.bias") if self.mean_pooled else ()
        for key in (
            *heads,
            "input_resolution",
            "context_length",
            "vocab_size",
        ):  # OpenAI's own files
            state.pop(key, None)
        # Weights of another network may fail here; load_into() says which tensors differ.
        with suppress(Exception):
            state = convert_state_dict(self.model, state)
            for key in [k for k in state if k.endswith("positional_embedding")]:
                state[key] = state[key].float()  # torch interpolates no half precision on a CPU
            resize_pos_embed(state, self.model)
            _resize_attention_pool(state, self.model.visual)
            resize_text_pos_embed(state, self.model)
        for name in ("logit_scale", "logit_bias"):  # a scalar here, one number there
            own = getattr(self.model, name, None)
            if own is not None and name in state and state[name].numel() == own.numel():
                state[name] = state[name].reshape(own.shape)
        weight_files.load_into(
            self.model, state, source=str(file), target=self.arch, guess=clip_weights.looks_like
        )

    def forward(self, images: Tensor) -> Tensor:
        """Image features, not normalised, of shape (B, D)."""
        features: Tensor
        if self.mean_pooled:
            features = self.model.visual(images)
        elif self._projects:
            features = self.model.encode_image(images)
        else:
            features = _before_projection(self.model.visual, images)
        return features

    def penultimate(self) -> None:
        """From now on, features before the projection; an attention pool is a ResNet's pooling."""
        visual = self.model.visual
        self._projects, self.normalized = False, False
        if hasattr(visual, "trunk") and not hasattr(visual.head, "pool"):
            self.feature_dim = int(getattr(visual.trunk, "head_hidden_size", 0))
            self.feature_dim = self.feature_dim or int(visual.trunk.num_features)
        elif getattr(visual, "proj", None) is not None:
            self.feature_dim = int(visual.proj.shape[0])

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
            embeddings = [visual.class_embedding, visual.positional_embedding]
            stem = [visual.conv1, *embeddings, visual.ln_pre]
            return layers.by_blocks(visual.parameters(), stem, visual.transformer.resblocks)
        stem = [getattr(visual, f"{part}{i}") for i in (1, 2, 3) for part in ("conv", "bn")]
        blocks = [b for i in (1, 2, 3, 4) for b in getattr(visual, f"layer{i}")]
        return layers.by_blocks(visual.parameters(), stem, blocks)

    def text_layers(self) -> list[list[nn.Parameter]]:
        """Embeddings, each block, then final norm and projection; of a hub's tower all at once."""
        if self.mean_pooled:
            return []
        text = getattr(self.model, "text", self.model)
        named = text.named_parameters()
        own = [p for n, p in named if not n.startswith(("visual.", "text_decoder.", "logit_"))]
        return layers.of_text(text, own)

    def metadata(self) -> dict[str, str]:
        """With the activation and the pooling, which tensors do not show."""
        pool = {"pool": "mean"} if self.mean_pooled else {}
        return {**super().metadata(), "activation": self.activation, **pool}

    def native(self, head: nn.Linear) -> nn.Module:
        """Both towers and the logit scale; of a mean-pooled tower itself and its head."""
        if self.mean_pooled:
            return nn.Sequential(OrderedDict(visual=self.model.visual, head=head))
        return super().native(head)

    def zero_shot_head(self, prompts: Sequence[Sequence[str]]) -> nn.Linear | None:
        """As of any two towers; None for a mean-pooled one, whose space no text shares."""
        return None if self.mean_pooled else super().zero_shot_head(prompts)

    def tokenizer(self) -> Any:
        """open_clip's tokenizer for this architecture: list of B texts to (B, length) integers.

        None for a mean-pooled tower, which has no text beside it.
        """
        if self.mean_pooled:
            return None
        config: Mapping[str, Any] = open_clip.get_model_config(self.open_clip_name) or {}
        options = config.get("text_cfg", {}).get("tokenizer_kwargs", {})
        # A path in a config of this package is relative to its assets, not to where one stands.
        own = paths.ASSETS / options["bpe_path"] if "bpe_path" in options else None
        try:
            return open_clip.get_tokenizer(
                self.open_clip_name, **({"bpe_path": str(own)} if own else {})
            )
        except Exception as failure:  # a tokenizer of the hub's, and any of its errors
            raise UserError(f"no tokenizer for {self.arch} ({failure}); it needs the hub") from None


def _before_projection(visual: Any, images: Tensor) -> Tensor:
    """Pooled features of an open_clip image tower, as its projection reads them."""
    features: Tensor
    if hasattr(visual, "trunk"):
        features = visual.trunk.forward_head(visual.trunk.forward_features(images), pre_logits=True)
        for name, part in visual.head.named_children():
            features = part(features) if name not in ("proj", "mlp") else features
        return features
    if not hasattr(visual, "proj"):
        features = visual(images)
        return features
    projection, visual.proj = visual.proj, None
    try:
        features = visual(images)
    finally:
        visual.proj = projection
    return features


def _resize_attention_pool(state: dict[str, Tensor], visual: Any) -> None:
    """Let open_clip interpolate a ResNet's positions, which it knows by a ViT's name alone."""
    key = "visual.attnpool.positional_embedding"
    if key in state and hasattr(visual, "attnpool"):
        side = math.isqrt(len(visual.attnpool.positional_embedding) - 1)
        positions = {"visual.positional_embedding": state[key]}
        resize_pos_embed(positions, SimpleNamespace(visual=SimpleNamespace(grid_size=side)))
        state[key] = positions["visual.positional_embedding"]


def _preprocess(told: Mapping[str, Any]) -> Preprocess:
    """open_clip's preprocessing record as ours."""
    height, width = told["size"] if isinstance(told["size"], (tuple, list)) else [told["size"]] * 2
    if height != width or told["resize_mode"] == "longest":
        raise UserError(
            "only square pictures, cropped or squashed, are supported; use another arch"
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
