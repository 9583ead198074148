"""LiT: a pretrained image tower, and a new text tower beside it (Zhai et al. 2022).

As in the paper's own code (big_vision, configs/proj/image_text/lit_coco.py) the image tower gets
no projection, the text tower is projected to the image features' width, and cosines are multiplied
by 10 at the start.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import TextTransformer
from torch import Tensor, nn

from clipbench.core import paths
from clipbench.core.errors import UserError
from clipbench.models import layers, weight_files
from clipbench.models.base import ImageTower
from clipbench.models.two_towers import TwoTowers, fold_attention
from clipbench.transforms.preprocess import Preprocess

START_SCALE = 10.0
# Byte pairs: ours, learnt for clip_tiny, makes a small file; CLIP's own knows the world's words.
VOCABULARIES: Mapping[str, Mapping[str, str]] = {
    "small": {"bpe_path": str(paths.ASSETS / "bpe_4096.txt.gz")},
    "clip": {},
}


class Pair(nn.Module):
    """Two towers under the names that open_clip gives theirs."""

    def __init__(self, visual: nn.Module, text: nn.Module) -> None:
        super().__init__()
        self.visual, self.text = visual, text
        self.logit_scale = nn.Parameter(torch.tensor(math.log(START_SCALE)))

    def encode_image(self, images: Tensor, normalize: bool = False) -> Tensor:
        """Return image features (B, D)."""
        features: Tensor = self.visual(images)
        return F.normalize(features, dim=-1) if normalize else features

    def encode_text(self, tokens: Tensor, normalize: bool = False) -> Tensor:
        """Return text features (B, D)."""
        features: Tensor = self.text(tokens)
        return F.normalize(features, dim=-1) if normalize else features


class LiT(TwoTowers):
    """An image tower with a new text tower.

    Args:
        image: any tower; of a CLIP its image tower alone.
        width: of the text transformer.
        layers: its blocks.
        heads: of its attention.
        context_length: tokens of a text; longer ones are cut.
        vocabulary: ``small``, 4,096 byte pairs, or ``clip``, its 49,408.

    Raises:
        UserError: for another vocabulary, or a width that heads do not divide.
    """

    def __init__(
        self,
        image: ImageTower,
        *,
        width: int = 256,
        layers: int = 4,
        heads: int = 4,
        context_length: int = 32,
        vocabulary: str = "small",
    ) -> None:
        super().__init__()
        if vocabulary not in VOCABULARIES:
            raise UserError(
                f"strategy.text.vocabulary={vocabulary}: unknown. Use {' or '.join(VOCABULARIES)}."
            )
        if width % heads:
            raise UserError(
                f"strategy.text.heads={heads}: does not divide a width of {width}. Change either."
            )
        self.vocabulary, self.context_length = vocabulary, context_length
        text = TextTransformer(
            context_length=context_length,
            vocab_size=self.tokenizer().vocab_size,
            width=width,
            heads=heads,
            layers=layers,
            output_dim=image.feature_dim,
        )
        fold_attention(text)
        self.model = Pair(image.trained(), text)
        self._image = (image,)  # in a tuple, so that what of a CLIP is not used is no part of this
        self.arch, self.loaded, self.warnings = image.arch, image.loaded, image.warnings
        self.preprocess, self.feature_dim = image.preprocess, image.feature_dim

    def load(self, file: Path) -> None:
        """Load both towers from a file that a run has saved.

        Raises:
            UserError: if it is of another model.
        """
        weight_files.load_into(
            self.model, weight_files.read(file), source=str(file), target=f"LiT of {self.arch}"
        )
        self.preprocess = Preprocess.from_json(weight_files.metadata(file)["preprocess"])
        self.loaded = str(file)

    def forward(self, images: Tensor) -> Tensor:
        """Return image features (B, D), not normalised."""
        features: Tensor = self.model.encode_image(images)
        return features

    def layers(self) -> list[list[nn.Parameter]]:
        """Return the groups of the image tower."""
        return self._image[0].layers()

    def text_layers(self) -> list[list[nn.Parameter]]:
        """Return embeddings, blocks, final norm and projection."""
        text = self.model.text
        return layers.of_text(text, list(text.parameters()))

    def metadata(self) -> dict[str, str]:
        """Return the image tower's metadata, and what reads the texts."""
        text = {"context_length": self.context_length, "vocabulary": self.vocabulary}
        return {**self._image[0].metadata(), "lit": json.dumps(text)}

    def tokenizer(self) -> Any:
        """Return open_clip's tokenizer: a list of B texts to (B, context_length) integers."""
        options: Any = VOCABULARIES[self.vocabulary]
        return SimpleTokenizer(**options, context_length=self.context_length)
