"""What every model offers: features, its layers from input to output, and its preprocessing."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipbench.core.errors import UserError
from clipbench.models.pooling import small_head
from clipbench.results.record import Parameters
from clipbench.transforms.preprocess import Preprocess


class ImageTower(nn.Module, ABC):
    """Encode images (B, 3, S, S) as features (B, D).

    Attributes:
        model: the network of the library that it comes from.
        preprocess: the transform that its checkpoint was trained with.
        feature_dim: D.
        normalized: whether a head reads L2-normalised features, as CLIP's does.
        loaded: where the weights came from (a tag, a file name), or None for random ones.
        arch: its name in the library that it comes from.
        has_text: whether it can make a head of text.
        mean_pooled: whether it ends as FT-CLIP's towers do: what follows its last block is new.
        warnings: what is doubtful about its weights, for the run's record.
    """

    model: Any  # libraries differ in everything but their conventions
    arch: str
    preprocess: Preprocess
    feature_dim: int
    normalized: bool
    loaded: str | None
    has_text: bool = False
    mean_pooled: bool = False
    warnings: Sequence[str] = ()

    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, D), not normalised."""
        features: Tensor = self.model(images)
        return features

    @abstractmethod
    def layers(self) -> list[list[nn.Parameter]]:
        """Return all parameters of the image tower in L + 2 groups, from input to output.

        The stem or embeddings; one group for each of the L blocks; what follows the last block
        (final norm, projection), which may be empty. Freezing depth and layer-wise learning rates
        need nothing else.
        """

    def text_layers(self) -> list[list[nn.Parameter]]:
        """Return the text tower's parameters likewise; none where there is no text tower."""
        return []

    def scales(self) -> list[nn.Parameter]:
        """Return the logit scale and bias of two towers; none where there is no text tower."""
        return []

    def penultimate(self) -> None:
        """Switch to the features that a last projection would read, if there is one."""
        return

    @abstractmethod
    def native(self, head: nn.Linear) -> nn.Module:
        """Return the model as its library builds it, with the head where that has a place."""

    def native_state_dict(self, head: nn.Linear) -> dict[str, Tensor]:
        """Return the weights under the names of the library that the model comes from."""
        return self.native(head).state_dict()

    def metadata(self) -> dict[str, str]:
        """Return the metadata of a weight file, which loading it needs: all text."""
        return {"arch": self.arch, "preprocess": self.preprocess.to_json()}

    def tokenizer(self) -> Any:
        """Return the tokenizer, or None for a tower without a text tower."""
        return None

    def zero_shot_head(self, prompts: Sequence[Sequence[str]]) -> nn.Linear | None:
        """Return a head made of text, or None for a tower without a text tower."""
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
                f"{self.arch} has no gradient checkpointing. Use micro_batch=... instead."
            )
        part: Any
        for part in self.modules():
            if hasattr(part, "grad_checkpointing"):
                part.grad_checkpointing = True

    def trained(self) -> nn.Module:
        """Return the part that the head reads and training may change (CLIP: no text tower)."""
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
        """Return the logits (B, C) of features (B, D)."""
        logits: Tensor = self.head(
            F.normalize(features, dim=-1) if self.tower.normalized else features
        )
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, C) of images (B, 3, S, S)."""
        return self.classify(self.tower(images))

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Return all that may train by layer: of the image tower, the text tower, the head."""
        image, text = self.tower.layers(), self.tower.text_layers()
        groups = dict(zip(layer_names(image), image, strict=True))
        groups |= {f"text {n}": p for n, p in zip(layer_names(text), text, strict=True)}
        if scales := self.tower.scales():
            groups["logit scale"] = scales
        return {**groups, "head": list(self.head.parameters())}

    def counts(self) -> Parameters:
        """Return counts of all parameters, of those that train, and of both in each group."""
        total, trainable = _counts(set(self.parameters()))
        groups = {
            name: dict(zip(("parameters", "trainable"), _counts(group), strict=True))
            for name, group in self.groups().items()
        }
        return Parameters(total, trainable, groups)


def _counts(parameters: Iterable[nn.Parameter]) -> tuple[int, int]:
    """Return how many numbers parameters hold, and how many of those train."""
    sizes = [(p.numel(), p.requires_grad) for p in parameters]
    return sum(n for n, _ in sizes), sum(n for n, trains in sizes if trains)


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
    """Return names for the groups of ``ImageTower.layers()``, for records and messages."""
    blocks = [f"block {i}" for i in range(1, len(layers) - 1)]
    return ["stem", *blocks, "tail"] if layers else []


def random_head(tower: ImageTower, classes: int) -> nn.Linear:
    """Return a new head with torch's initialisation (the source blog's ``Linear(2048, C)``).

    FT-CLIP's has one of its own: :func:`clipbench.models.pooling.small_head`.
    """
    make = small_head if tower.mean_pooled else nn.Linear
    return make(tower.feature_dim, classes)


def freeze_statistics(module: nn.Module, *, everywhere: bool = False) -> None:
    """Put what is frozen into eval mode, and with ``everywhere`` every BatchNorm too.

    A frozen block whose running statistics go on moving, or that drops some of its paths, is not
    frozen; called after each ``train()``, which puts them back.
    """
    for part in module.modules():
        trains = [p.requires_grad for p in part.parameters()]
        normalises = isinstance(part, nn.modules.batchnorm._BatchNorm)
        if (trains and not any(trains)) or (everywhere and normalises):
            part.eval()


def as_head(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """Return a linear layer of given weights (C, D), with zero bias unless one is given."""
    # torch warns of a layer without rows, which is the head of a dataset without classes.
    rows = max(1, len(weight))
    head = nn.Linear(weight.shape[1], rows, dtype=weight.dtype, device=weight.device)
    head.out_features = len(weight)
    head.weight = nn.Parameter(weight.detach().clone())
    zeros = weight.new_zeros(len(weight))
    head.bias = nn.Parameter(zeros if bias is None else bias.detach().clone())
    return head
