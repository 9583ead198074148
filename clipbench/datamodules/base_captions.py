"""What datasets of images with captions share: retrieval, both ways, in place of classes."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipbench.core.errors import UserError
from clipbench.datamodules.base import DataModule
from clipbench.loading.split import Split
from clipbench.metrics import retrieval

RECALLS = tuple(f"{way}_recall@{k}" for way in ("image", "text") for k in retrieval.KS)


class CaptionDataModule(DataModule):
    """Images with captions and no classes.

    Attributes:
        classes: none.
        keys: none.
        templates: none: what is said of an image are its captions.
        metrics: what is selected on: ``mean_recall``, the mean of image and text recall at 1, 5 and
            10. It is a sixth of the literature's "rsum" (VSE++, Faghri et al. 2018): one way alone
            may rise while the other falls.
        measured: every metric of a split.
    """

    classes: Sequence[str] = ()
    keys: Sequence[str] | None = None
    templates: Sequence[str] = ()
    metrics: Sequence[str] = ("mean_recall",)
    measured: Sequence[str] = (*metrics, *RECALLS, "image_median_rank", "text_median_rank")

    def _arranged(self, splits: dict[str, Split], seed: int) -> dict[str, Split]:
        given = {"subset": self.subset, "shots": self.shots, "balance": self.balance}
        if wrong := [key for key, value in given.items() if value is not None]:
            raise UserError(f"captions have no classes: dataset.{wrong[0]} means nothing. Leave it")
        return splits

    def caption(self, prompts: Sequence[Sequence[str]]) -> None:
        """Do nothing: every image has its captions already."""

    def class_weights(self) -> NDArray[np.float64] | None:
        """Return None: there are no classes."""
        return None

    def owner(self, name: str) -> Tensor:
        """Return the position of the image of each caption of a split, (m,)."""
        captions = self.splits[name].captions
        assert captions is not None
        counts = torch.tensor([len(own) for own in captions])
        return torch.arange(len(captions)).repeat_interleave(counts)

    def measure(self, name: str, image: Tensor, text: Tensor) -> dict[str, float]:
        """Return the metrics of a whole split.

        Args:
            name: the split's.
            image: normalised features (n, D).
            text: normalised features (m, D) of all captions, image by image.
        """
        values = retrieval.recall(image, text, self.owner(name))
        return {"mean_recall": sum(values[key] for key in RECALLS) / len(RECALLS), **values}
