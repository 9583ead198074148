"""Estimates of a run's cost before it starts: operations, GPU-hours, memory, disk.

They are right within a factor of two; measured runs of the same model say more.
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
from clipbench.results.evidence import Where
from clipbench.strategies import about

# FT-CLIP's own log (LightDXY/FT-CLIP@3f9cefa:logs/CLIP_B16.log): ViT-B/16, 50 epochs of ImageNet's
# 1,281,167 images in 6:01:54 on 8 GPUs, mixed precision: 64 million x 3 x 35.13 GFLOP.
GPU_FLOPS = 64.06e6 * 3 * 35.13e9 / (8 * 21714)
BASIS = f"a GPU at {GPU_FLOPS / 1e12:.0f} TFLOP/s, mixed precision, as in FT-CLIP's log of ViT-B/16"


@dataclass(frozen=True)
class Job:
    """The parts of a run that its cost depends on.

    Attributes:
        model: the option typed.
        strategy: likewise.
        images: of the training split.
        epochs: over these images.
        batch_size: global.
        evaluated: images read in all evaluations together.
        freeze_depth: blocks that do not train, or ``all``.
        image_size: in pixels; None for the model's own.
    """

    model: str
    strategy: str
    images: int
    epochs: float
    batch_size: int
    evaluated: int
    freeze_depth: str = "0"
    image_size: int | None = None

    @property
    def steps(self) -> int:
        """The steps of the optimizer; a loss of pairs drops the last, smaller batch."""
        full = self.images // self.batch_size
        if about.named(self.strategy).pairs and full:
            return int(full * self.epochs)
        return int(math.ceil(self.images / self.batch_size) * self.epochs)


@functools.cache
def _facts(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "models.csv").set_index("model")


def facts(model: str) -> Mapping[str, Any] | None:
    """Return a model's parameters in millions, GFLOP of a forward pass and sizes, if known."""
    table = _facts(paths.EXPERIMENTS)
    return dict(table.loc[model]) if model in table.index else None


def gpu_hours(job: Job) -> float | None:
    """Return the hours on one GPU of :data:`BASIS`, or None for a model without known operations.

    A training step costs three forward passes, less the two of the backward pass of what is frozen.
    """
    if (known := facts(job.model)) is None:
        return None
    image, text = known["image_gflop"] * 1e9 * _larger(job, known), known["text_gflop"] * 1e9
    trains = about.named(job.strategy).trains
    # The features that a head alone is fitted on are computed once.
    passes = job.epochs if about.named(job.strategy).trains_encoder else min(1, len(trains))
    trained = job.images * passes * image * (1 + 2 * (1 - frozen(job, known["blocks"])))
    if "text" in trains:
        trained += job.images * job.epochs * text * 3
    return float(trained + job.evaluated * image) / GPU_FLOPS / 3600


def _larger(job: Job, known: Mapping[str, Any]) -> float:
    """Return the cost of an image relative to one of the model's own size."""
    return float(((job.image_size or known["size"]) / known["size"]) ** 2)


def frozen(job: Job, blocks: int) -> float:
    """Return the share of the image tower's blocks that do not train."""
    if job.freeze_depth == "all" or "image" not in about.named(job.strategy).trains:
        return 1.0
    return min(1.0, float(job.freeze_depth) / blocks)


def memory_bytes(job: Job, micro_batch: int | None = None) -> float | None:
    """Return the peak bytes of training in fp32: weights, gradients, AdamW's moments, activations.

    Activations of a transformer's block are ``tokens * width * (34 + 5 * heads * tokens / width)``
    bytes in 16 bits (Korthikanti et al. 2022, equation 2), twice that here; of a ResNet the output
    of each convolution, norm and activation.

    Returns:
        The bytes, or None for a model whose sizes are not known.
    """
    if (known := facts(job.model)) is None:
        return None
    rows = (micro_batch or job.batch_size) * _larger(job, known)
    share = 1 - frozen(job, known["blocks"])
    trained = known["image_parameters"] * share
    if "text" in about.named(job.strategy).trains:
        trained += known["parameters"] - known["image_parameters"]
    weights = (4 * known["parameters"] + 12 * trained) * 1e6
    if pd.isna(known["tokens"]):
        outputs = known["convolved"] * 1e6
        return None if pd.isna(outputs) else float(weights + rows * share * 3 * 4 * outputs)
    tokens, width = known["tokens"], known["width"]
    block = 2 * tokens * width * (34 + 5 * (width / 64) * tokens / width)
    return float(weights + rows * share * known["blocks"] * block)


def disk_bytes(parameters: float, trained: float) -> float:
    """Return the bytes of a run's folder: weights, best epoch, and last with AdamW's moments."""
    return 4 * (parameters * 3 + trained * 2)


def of_cell(run: Where) -> float | None:
    """Return the GPU-hours of the run that would fill a cell, or None if too little is known.

    Args:
        run: model, dataset and epochs; what else the cost depends on: strategy, freeze_depth,
            batch_size, image_size, scheme, the number of ``alphas``; the ``images`` of an epoch or
            the names of its splits in ``train``; ``captions: all`` if an epoch has every caption.
            Without a strategy, an image tower and its head train.
    """
    known = {key: str(value) for key, value in run.items() if value is not None}
    scheme = known.get("dataset.scheme", known.get("scheme"))
    dataset, strategy = known.get("dataset", ""), known.get("strategy", "")
    count = published.captions if known.get("captions") == "all" else published.images
    images = known.get("images", count(dataset, known.get("train", "train"), scheme))
    if images is None or "epochs" not in known:
        return None
    epochs = float(known["epochs"]) if about.named(strategy).trains else 0.0
    job = Job(
        known.get("model", ""),
        strategy,
        int(images),
        epochs,
        int(known.get("batch_size", 64)),
        published.evaluated(dataset, epochs, int(known.get("alphas", 0)), scheme),
        known.get("freeze_depth", "0"),
        int(known["image_size"]) if "image_size" in known else None,
    )
    return gpu_hours(job)
