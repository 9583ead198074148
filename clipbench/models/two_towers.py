"""What a model with two towers offers besides images: texts, a logit scale, a head made of text.

Also the cure of a trap that makes frozen attention four times as slow on CPUs in bf16.
"""

from collections.abc import Sequence
from typing import Any

import open_clip
import torch
from torch import Tensor, nn

from clipbench.models.base import ImageTower, as_head

_SCALES = ("logit_scale", "logit_bias")


class TwoTowers(ImageTower):
    """An image tower and a text tower that map into one space.

    Attributes:
        model: with ``encode_image``, ``encode_text`` and ``logit_scale``, as open_clip's have them.
    """

    normalized = True
    has_text = True

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Return text features (B, D), not normalised."""
        features: Tensor = self.model.encode_text(tokens)
        return features

    def cut(self, texts: Sequence[str]) -> list[int]:
        """Return the positions of the texts that are longer than the text tower reads."""
        tokenizer = self.tokenizer()
        length = int(tokenizer.context_length)
        # A token is a byte at least, and two are marks.
        sizes = [len(text.encode(errors="replace")) for text in texts]
        maybe = [i for i, size in enumerate(sizes) if size > length - 2]
        if not maybe:
            return []
        last = tokenizer([*(texts[i] for i in maybe), ""], context_length=length + 1)[:, -1]
        return [i for i, token in zip(maybe, last[:-1].tolist(), strict=True) if token != last[-1]]

    def alike(self, prompts: Sequence[Sequence[str]]) -> list[list[int]]:
        """Return the sets of classes whose prompts are the same as far as the text tower reads."""
        whole = [text for texts in prompts for text in texts]
        cut = [whole[i] for i in self.cut(whole)]
        read = dict(zip(cut, self.tokenizer()(cut).tolist(), strict=True)) if cut else {}
        classes: dict[tuple[Any, ...], list[int]] = {}
        for label, texts in enumerate(prompts):
            key = tuple(tuple(read[text]) if text in read else text for text in texts)
            classes.setdefault(key, []).append(label)
        return [labels for labels in classes.values() if len(labels) > 1]

    def trained(self) -> nn.Module:
        """Return the image tower alone."""
        visual: nn.Module = self.model.visual
        return visual

    @property
    def logit_scale(self) -> nn.Parameter:
        """The logarithm of what cosines are multiplied by."""
        scale: nn.Parameter = self.model.logit_scale
        return scale

    def scales(self) -> list[nn.Parameter]:
        """Return the logit scale, and the logit bias of a model that has one."""
        return [p for n, p in self.model.named_parameters() if n in _SCALES]

    def native(self, head: nn.Linear) -> nn.Module:
        """Return both towers and the logit scale; such a model has no place for a head."""
        model: nn.Module = self.model
        return model

    @torch.no_grad()
    def zero_shot_head(self, prompts: Sequence[Sequence[str]]) -> nn.Linear | None:
        """Return WiSE-FT's head: each class's mean text embedding times the logit scale, bias 0.

        Args:
            prompts: texts of each of C classes, at least one; empty for a dataset of captions.

        Returns:
            A layer (C, D) that reads normalised features.
        """
        if not prompts:
            return as_head(torch.zeros(0, self.feature_dim, device=self.logit_scale.device))
        training, scale = self.training, self.logit_scale.exp()
        self.eval()
        counts = {len(texts) for texts in prompts}
        # open_clip's builder takes the same number of texts of each class: else class by class.
        parts = [prompts] if len(counts) == 1 else [[texts] for texts in prompts]
        weights = [self._text_classifier(part, scale.device) for part in parts]
        self.train(training)
        return as_head(scale * torch.cat(weights, dim=1).T)

    def _text_classifier(self, prompts: Sequence[Sequence[str]], device: torch.device) -> Tensor:
        """Return open_clip's zero-shot classifier (D, C), for equal numbers of texts."""
        positions = list(map(str, range(len(prompts))))
        takes = [lambda c, k=k: prompts[int(c)][k] for k in range(len(prompts[0]))]
        weight: Tensor = open_clip.build_zero_shot_classifier(
            self.model, self.tokenizer(), positions, takes, device=device
        )
        return weight


def fold_attention(module: nn.Module) -> None:
    """Keep ``nn.MultiheadAttention`` fast on CPUs in low precision where it takes no gradient.

    It transposes its input, and its linear layer then reads rows that do not follow each other.
    Where the weight takes a gradient torch folds them into one matrix all the same (ATen's
    ``should_fold``); where it takes none, it multiplies row by row and copies the weight each
    time, which costs ViT-B/32 3.4 times the whole step. So there the input is laid out beforehand
    as it will be read: the same numbers, and one copy of the activations.

    Args:
        module: all such layers in it get a hook.
    """
    for part in module.modules():
        if isinstance(part, nn.MultiheadAttention):
            part.register_forward_pre_hook(_laid_out, with_kwargs=True)


def _laid_out(
    layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    query, key, value = args[:3]
    weight = layer.in_proj_weight
    low = torch.is_autocast_enabled("cpu") or query.dtype == torch.bfloat16
    learns = torch.is_grad_enabled() and weight.requires_grad
    to_itself = query is key and key is value and layer.batch_first and query.ndim == 3
    if query.device.type != "cpu" or not low or learns or not to_itself:
        return None
    rows = query.transpose(0, 1).contiguous().transpose(0, 1)
    return (rows, rows, rows, *args[3:]), kwargs
