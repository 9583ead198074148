"""What every model offers: features, its layers from input to output, and its preprocessing."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipbench.core.errors import UserError
from clipbench.models.pooling import small_head
from clipbench.transforms.preprocess import Preprocess


class ImageTower(nn.Module, ABC):
    """A picture encoder: (B, 3, S, S) float to features (B, D).

    Attributes:
        preprocess: the transform that its checkpoint was trained with.
        feature_dim: D.
        normalized: whether a head reads L2-normalised features, as CLIP's does.
        loaded: where the weights came from (a tag, a file name), or None for random ones.
        arch: its name in the library that it comes from.
        has_text: whether it can make a head of text.
        mean_pooled: whether it ends as FT-CLIP's towers do: what follows its last block is new.
        warnings: what is doubtful about its weights, for the run's record.
    """

    arch: str
    preprocess: Preprocess
    feature_dim: int
    normalized: bool
    loaded: str | None
    has_text: bool = False
    mean_pooled: bool = False
    warnings: Sequence[str] = ()

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Features, not normalised, of shape (B, D)."""

    @abstractmethod
    def layers(self) -> list[list[nn.Parameter]]:
        """All parameters of the image tower in L + 2 groups, input to output.

        The stem or embeddings; one group for each of the L blocks; what follows the last block
        (final norm, projection), which may be empty. Freezing depth and layer-wise learning rates
        need nothing else.
        """

    def text_layers(self) -> list[list[nn.Parameter]]:
        """The same of the text tower: embeddings, blocks, the rest; none where there is no text."""
        return []

    def scales(self) -> list[nn.Parameter]:
        """What scales the cosines of two towers, or moves them; none where there is no text."""
        return []

    def penultimate(self) -> None:
        """From now on, give the features that a last projection would read, if there is one."""
        return

    @abstractmethod
    def native(self, head: nn.Linear) -> nn.Module:
        """The model as its own library builds it, with the head where it has a place for one."""

    def native_state_dict(self, head: nn.Linear) -> dict[str, Tensor]:
        """Weights under the names of the library that the model comes from, to be loaded there."""
        return self.native(head).state_dict()

    def metadata(self) -> dict[str, str]:
        """What a weight file should say of itself, for it to be read aright: all text."""
        return {"arch": self.arch, "preprocess": self.preprocess.to_json()}

    def tokenizer(self) -> Any:
        """What turns texts into tokens; None for a tower that has no text side."""
        return None

    def zero_shot_head(self, prompts: Sequence[Sequence[str]]) -> nn.Linear | None:
        """A head made of text, for towers that have a text side; None for those that have not."""
        return None

    def set_grad_checkpointing(self) -> None:
        """Keep no activations within blocks: compute them again in the backward pass.

        open_clip's and timm's own way, of either tower; a BatchNorm in training sees each batch
        twice.

        Raises:
            UserError: where the image tower has none.
        """
        # The attribute is what their set_grad_checkpointing() sets, where it does anything.
        if not any(hasattr(part, "grad_checkpointing") for part in self.trained().modules()):
            raise UserError(
                f"{self.arch} has no gradient checkpointing; use micro_batch=... instead"
            )
        part: Any
        for part in self.modules():
            if hasattr(part, "grad_checkpointing"):
                part.grad_checkpointing = True

    def trained(self) -> nn.Module:
        """The part that the head reads and that training may change (for CLIP: no text tower)."""
        return self


class Classifier(nn.Module):
    """An image tower and a linear head.

    Args:
        tower: gives the features.
        head: (C, D) weights and a bias; for a CLIP the logit scale is baked into them, as WiSE-FT
            does (src/models/modeling.py, ``get_zeroshot_classifier``).
        meaningful: whether the head classifies before any training, so that epoch 0 has a metric.
    """

    def __init__(self, tower: ImageTower, head: nn.Linear, *, meaningful: bool) -> None:
        super().__init__()
        self.tower, self.head, self.meaningful = tower, head, meaningful

    def classify(self, features: Tensor) -> Tensor:
        """Logits (B, C) of features (B, D)."""
        logits: Tensor = self.head(
            F.normalize(features, dim=-1) if self.tower.normalized else features
        )
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C) of pictures (B, 3, S, S)."""
        return self.classify(self.tower(images))

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """All that may train, by layer: the image tower's, the text tower's, the rest, the head."""
        named = dict(zip(layer_names(self.tower.layers()), self.tower.layers(), strict=True))
        text = self.tower.text_layers()
        named |= {f"text {n}": p for n, p in zip(layer_names(text), text, strict=True)}
        if scales := self.tower.scales():
            named["logit scale"] = scales
        return {**named, "head": list(self.head.parameters())}

    def counts(self) -> dict[str, Any]:
        """Counts of all parameters, of those that train, and of both in each of the groups."""
        everything = set(self.parameters())
        return {
            "total": sum(p.numel() for p in everything),
            "trainable": sum(p.numel() for p in everything if p.requires_grad),
            "groups": {
                name: {
                    "parameters": sum(p.numel() for p in group),
                    "trainable": sum(p.numel() for p in group if p.requires_grad),
                }
                for name, group in self.groups().items()
            },
        }


def encoder(tower: ImageTower, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return what makes features (B, D) in float32 on the CPU of prepared images (B, 3, S, S).

    Args:
        tower: stays as it is.
        device: to encode on.
    """

    @torch.inference_mode()
    def encode(images: Tensor) -> Tensor:
        tower.to(device).eval()
        # trainer.precision may have made the tower double or half, which images are not.
        features: Tensor = tower(images.to(next(tower.parameters())))
        return features.float().cpu()

    return encode


def layer_names(layers: Sequence[Sequence[nn.Parameter]]) -> list[str]:
    """Names for the groups of ``ImageTower.layers()``, in the record and in messages."""
    blocks = [f"block {i}" for i in range(1, len(layers) - 1)]
    return ["stem", *blocks, "tail"] if layers else []


def random_head(tower: ImageTower, classes: int) -> nn.Linear:
    """A new head with torch's own initialisation (the source blog's ``fc = Linear(2048, C)``).

    FT-CLIP's has one of its own: :func:`clipbench.models.pooling.small_head`.
    """
    make = small_head if tower.mean_pooled else nn.Linear
    return make(tower.feature_dim, classes)


def parameter_count(module: nn.Module) -> int:
    """Number of parameters, tied ones once."""
    return sum(p.numel() for p in set(module.parameters()))


def freeze_statistics(module: nn.Module, *, everywhere: bool = False) -> None:
    """Put what is frozen into eval mode, and every BatchNorm too if asked.

    A frozen block whose running statistics go on moving, or that drops some of its paths, is not
    frozen; called after each ``train()``, which puts them back.
    """
    for part in module.modules():
        own = [p.requires_grad for p in part.parameters()]
        normalises = isinstance(part, nn.modules.batchnorm._BatchNorm)
        if (own and not any(own)) or (everywhere and normalises):
            part.eval()


def as_head(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """A linear layer holding given weights (C, D), with zero bias unless one is given."""
    # torch warns of a layer without rows, which is the head of a dataset without classes.
    rows = max(1, len(weight))
    head = nn.Linear(weight.shape[1], rows, dtype=weight.dtype, device=weight.device)
    head.out_features = len(weight)
    head.weight = nn.Parameter(weight.detach().clone())
    own = weight.new_zeros(len(weight)) if bias is None else bias.detach().clone()
    head.bias = nn.Parameter(own)
    return head
