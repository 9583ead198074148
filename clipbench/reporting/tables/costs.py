"""What a run would cost, reckoned before it starts: operations, GPU-hours, memory, disk.

An estimate within a factor of two, to choose by; measured runs of the same model say more.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from clipbench.core import paths
from clipbench.reporting.tables import published
from clipbench.strategies import about

# FT-CLIP's own log (LightDXY/FT-CLIP@3f9cefa:logs/CLIP_B16.log): ViT-B/16, 50 epochs of ImageNet's
# 1,281,167 pictures in 6:01:54 on 8 GPUs, mixed precision: 64 million x 3 x 35.13 GFLOP.
GPU_FLOPS = 64.06e6 * 3 * 35.13e9 / (8 * 21714)
BASIS = f"a GPU at {GPU_FLOPS / 1e12:.0f} TFLOP/s, mixed precision, as in FT-CLIP's log of ViT-B/16"


@dataclass(frozen=True)
class Job:
    """What a run does, as far as its cost goes.

    Attributes:
        model: the option typed.
        strategy: likewise.
        pictures: of the training split.
        epochs: over them.
        batch_size: global.
        evaluated: pictures read in all evaluations together.
        freeze_depth: blocks that do not train, or ``all``.
        image_size: in pixels, where it is not the model's own.
    """

    model: str
    strategy: str
    pictures: int
    epochs: float
    batch_size: int
    evaluated: int
    freeze_depth: str = "0"
    image_size: int | None = None

    @property
    def steps(self) -> int:
        """Of the optimizer: a loss of pairs takes full batches alone."""
        full = self.pictures // self.batch_size
        if about.named(self.strategy).pairs and full:
            return int(full * self.epochs)
        return int(math.ceil(self.pictures / self.batch_size) * self.epochs)


@functools.cache
def _facts(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "models.csv").set_index("model")


def facts(model: str) -> Mapping[str, Any] | None:
    """Parameters in millions, GFLOP of a forward pass, and sizes of a model, if they are known."""
    table = _facts(paths.EXPERIMENTS)
    return dict(table.loc[model]) if model in table.index else None


def gpu_hours(job: Job) -> float | None:
    """Hours of one GPU of :data:`BASIS`; None for a model whose operations nobody counted here.

    A training step is three forward passes, less the backward two of what is frozen.
    """
    if (own := facts(job.model)) is None:
        return None
    image, text = own["image_gflop"] * 1e9 * _larger(job, own), own["text_gflop"] * 1e9
    trains = about.named(job.strategy).trains
    # The features that a head alone is fitted on are computed once.
    passes = job.epochs if about.named(job.strategy).trains_encoder else min(1, len(trains))
    trained = job.pictures * passes * image * (1 + 2 * (1 - frozen(job, own["blocks"])))
    if "text" in trains:
        trained += job.pictures * job.epochs * text * 3
    return float(trained + job.evaluated * image) / GPU_FLOPS / 3600


def _larger(job: Job, own: Mapping[str, Any]) -> float:
    """How much more a picture takes than at the model's own size."""
    return float(((job.image_size or own["size"]) / own["size"]) ** 2)


def frozen(job: Job, blocks: int) -> float:
    """The share of the image tower's blocks that does not train."""
    if job.freeze_depth == "all" or "image" not in about.named(job.strategy).trains:
        return 1.0
    return min(1.0, float(job.freeze_depth) / blocks)


def memory_bytes(job: Job, micro_batch: int | None = None) -> float | None:
    """At its peak in training, in 32-bit floats: weights, gradients, AdamW's moments, activations.

    Activations of a transformer's block are ``tokens * width * (34 + 5 * heads * tokens / width)``
    bytes in 16 bits (Korthikanti et al. 2022, equation 2), twice that here; of a ResNet the output
    of each convolution, norm and activation.

    Returns:
        None for a model whose sizes are not known.
    """
    if (own := facts(job.model)) is None:
        return None
    rows = (micro_batch or job.batch_size) * _larger(job, own)
    share = 1 - frozen(job, own["blocks"])
    trained = own["image_parameters"] * share
    if "text" in about.named(job.strategy).trains:
        trained += own["parameters"] - own["image_parameters"]
    weights = (4 * own["parameters"] + 12 * trained) * 1e6
    if pd.isna(own["tokens"]):
        outputs = own["convolved"] * 1e6
        return None if pd.isna(outputs) else float(weights + rows * share * 3 * 4 * outputs)
    tokens, width = own["tokens"], own["width"]
    block = 2 * tokens * width * (34 + 5 * (width / 64) * tokens / width)
    return float(weights + rows * share * own["blocks"] * block)


def disk_bytes(parameters: float, trained: float) -> float:
    """Of one run's folder: weights, the best epoch, and the last with AdamW's two moments."""
    return 4 * (parameters * 3 + trained * 2)


def of_cell(asked: Mapping[str, Any]) -> float | None:
    """GPU-hours of one run that would fill a cell; None where too little is known.

    Args:
        asked: model, dataset, epochs; what else the cost depends on: strategy, freeze_depth,
            batch_size, image_size, scheme, how many ``alphas``; pictures of an epoch, or the names
            of its splits in ``train``; ``captions: all`` where an epoch has every caption. Without
            a strategy an image tower and its head train.
    """
    split = str(asked.get("train", "train"))
    scheme = asked.get("dataset.scheme", asked.get("scheme"))
    dataset = str(asked.get("dataset"))
    count = published.captions if asked.get("captions") == "all" else published.pictures
    pictures = asked.get("pictures", count(dataset, split, scheme))
    if pictures is None or "epochs" not in asked:
        return None
    strategy = str(asked.get("strategy", ""))
    epochs = float(asked["epochs"]) if about.named(strategy).trains else 0.0
    evaluated = published.evaluated(dataset, epochs, int(asked.get("alphas", 0)), scheme)
    job = Job(
        str(asked.get("model")),
        strategy,
        int(pictures),
        epochs,
        int(asked.get("batch_size", 64)),
        evaluated,
        str(asked.get("freeze_depth", "0")),
        asked.get("image_size"),
    )
    return gpu_hours(job)
