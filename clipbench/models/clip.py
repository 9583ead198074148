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
        config: clip_weights.Config = open_clip.get_model_config(source.name)
        self.feature_dim = int(config["embed_dim"])
        self.activation = clip_weights.activation(config)
        self.preprocess = _preprocess(self.model.visual.preprocess_cfg)
        if pool not in (None, "mean"):
            raise UserError(f"model.pool={pool}: unknown. Use mean, or null for the checkpoint's.")
        about = {} if source.file is None else weight_files.metadata(source.file)
        if about.get("pool", pool) != pool:
            raise UserError(f"{source.file} was trained with model.pool=mean. Add that.")
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
        surplus = {"input_resolution", "context_length", "vocab_size"}  # of OpenAI's own files
        if self.mean_pooled:
            surplus |= {"head.weight", "head.bias"}
        state = {name: tensor for name, tensor in state.items() if name not in surplus}
        # Weights of another network may fail here; load_into() says which tensors differ.
        with suppress(Exception):
            state = convert_state_dict(self.model, state)
            for key in [k for k in state if k.endswith("positional_embedding")]:
                state[key] = state[key].float()  # torch interpolates no half precision on a CPU
            resize_pos_embed(state, self.model)
            _resize_attention_pool(state, self.model.visual)
            resize_text_pos_embed(state, self.model)
        for name in ("logit_scale", "logit_bias"):  # a scalar here, one number there
            scale = getattr(self.model, name, None)
            if scale is not None and name in state and state[name].numel() == scale.numel():
                state[name] = state[name].reshape(scale.shape)
        weight_files.load_into(
            self.model, state, source=str(file), target=self.arch, guess=clip_weights.looks_like
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return image features (B, D), not normalised."""
        if not self.mean_pooled and not self._projects:
            return _before_projection(self.model.visual, images)
        encode = self.model.visual if self.mean_pooled else self.model.encode_image
        features: Tensor = encode(images)
        return features

    def penultimate(self) -> None:
        """Switch to features before the projection; an attention pool is a ResNet's pooling."""
        visual = self.model.visual
        self._projects, self.normalized = False, False
        if hasattr(visual, "trunk") and not hasattr(visual.head, "pool"):
            self.feature_dim = int(getattr(visual.trunk, "head_hidden_size", 0))
            self.feature_dim = self.feature_dim or int(visual.trunk.num_features)
        elif getattr(visual, "proj", None) is not None:
            self.feature_dim = int(visual.proj.shape[0])

    def layers(self) -> list[list[nn.Parameter]]:
        """Return embeddings or stem, each block, then final norm and projection (or pool)."""
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
        """Return embeddings, each block, then norm and projection; a hub's tower as one group."""
        if self.mean_pooled:
            return []
        text = getattr(self.model, "text", self.model)
        named = text.named_parameters()
        outside = ("visual.", "text_decoder.", "logit_")
        return layers.of_text(text, [p for n, p in named if not n.startswith(outside)])

    def metadata(self) -> dict[str, str]:
        """Add the activation and the pooling, which tensors do not show."""
        pool = {"pool": "mean"} if self.mean_pooled else {}
        return {**super().metadata(), "activation": self.activation, **pool}

    def native(self, head: nn.Linear) -> nn.Module:
        """Return both towers and the logit scale; of a mean-pooled tower itself and its head."""
        if self.mean_pooled:
            return nn.Sequential(OrderedDict(visual=self.model.visual, head=head))
        return super().native(head)

    def zero_shot_head(self, prompts: Sequence[Sequence[str]]) -> nn.Linear | None:
        """Return the head of two towers; None if mean-pooled: no text shares that space."""
        return None if self.mean_pooled else super().zero_shot_head(prompts)

    def tokenizer(self) -> Any:
        """Return open_clip's tokenizer: a list of B texts to (B, length) integers.

        None for a mean-pooled tower, which has no text beside it.
        """
        if self.mean_pooled:
            return None
        config: clip_weights.Config = open_clip.get_model_config(self.open_clip_name)
        options = config.get("text_cfg", {}).get("tokenizer_kwargs", {})
        # A path in a config of this package is relative to its assets, not to the working folder.
        options = {k: str(paths.ASSETS / v) for k, v in options.items() if k == "bpe_path"}
        try:
            return open_clip.get_tokenizer(self.open_clip_name, **options)
        except Exception as failure:  # a tokenizer of the hub's, and any of its errors
            raise UserError(
                f"model.arch={self.arch}: its tokenizer cannot be fetched ({failure}). "
                "Connect to the hub, or use another arch."
            ) from None


def _before_projection(visual: Any, images: Tensor) -> Tensor:
    """Return the pooled features of an open_clip image tower, as its projection reads them."""
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


def _preprocess(config: clip_weights.Config) -> Preprocess:
    """Convert open_clip's preprocessing config."""
    size = config["size"]
    height, width = (size, size) if isinstance(size, int) else size
    if height != width or config["resize_mode"] == "longest":
        raise UserError(
            "model.arch: only square images, cropped or squashed, are supported. Use another."
        )
    return Preprocess(
        size=height,
        resize=height,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation="bilinear" if config["interpolation"] == "bilinear" else "bicubic",
        resize_mode=config["resize_mode"],
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep open_clip from warning of random weights, which are intended here."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
