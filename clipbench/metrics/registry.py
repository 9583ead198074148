"""The metrics, one entry each: everything else asks here what a metric is and how it is shown.

A function is an address, imported when it is called, since tables and pages do without torch.
"""

import functools
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

HEADLINE = "acc"  # what candidates are compared by if the selected metric cannot compare them


@dataclass(frozen=True)
class Metric:
    """What is known of a metric, or of all whose name matches a pattern.

    Attributes:
        label: the title of its chart.
        function: address of a function of logits (n, C) and labels (n,) to a float, which every
            data set with classes computes; "" if it needs more than these.
        min_classes: the least number of classes it says something for.
        lower_is_better: whether it is an error, a loss or a rank.
        bounded: whether it lies between 0 and 1.
        counts_images: whether it is a count of images over the n of a split.
        resampled: address of a function of labels (n,) and each run's predictions to a score of
            resamples, see :mod:`clipbench.metrics.significance`; "" if two models cannot be
            compared by it image by image.
        mcnemar: whether two single runs are compared by the exact McNemar test.
        compares: whether candidates are compared by it if epochs were selected by it.
        guess: its value for a classifier that always predicts the largest class, given the share
            of that class and the number of classes.
        sentence: what follows its value on a page, with ``{n}`` and ``{split}``.
        chart: the group of charts in TensorBoard that it is drawn in; "" for none.
        tables: the splits of which a sweep's table has a column; it always has the selected one.
        printed: the name that a run prints after each epoch; "" for none.
    """

    label: str
    function: str = ""
    min_classes: int = 1
    lower_is_better: bool = False
    bounded: bool = True
    counts_images: bool = False
    resampled: str = ""
    mcnemar: bool = False
    compares: bool = False
    guess: Callable[[float, int], float] | None = None
    sentence: str = ""
    chart: Literal["", "val", "retrieval, val"] = ""
    tables: Literal["", "test", "all"] = ""
    printed: str = ""


METRICS = {
    "acc": Metric(
        "accuracy",
        function="clipbench.metrics.classification:acc",
        counts_images=True,
        resampled="clipbench.metrics.significance:accuracy",
        mcnemar=True,
        compares=True,
        guess=lambda share, classes: share,
        sentence="of {n:,} {split} images right",
        chart="val",
        tables="all",
        printed="acc",
    ),
    "mean_per_class": Metric(
        "mean per class",
        function="clipbench.metrics.classification:mean_per_class",
        resampled="clipbench.metrics.significance:mean_recall",
        compares=True,
        guess=lambda share, classes: 1 / classes,
        sentence="right as the mean over classes, on {n:,} {split} images",
        chart="val",
    ),
    "macro_f1": Metric(
        "macro-F1",
        function="clipbench.metrics.classification:macro_f1",
        resampled="clipbench.metrics.significance:mean_f1",
        compares=True,
        guess=lambda share, classes: 2 * share / (1 + share) / classes,
        sentence="macro-F1, on {n:,} {split} images",
        chart="val",
    ),
    "acc5": Metric(
        "top-5 accuracy",
        function="clipbench.metrics.classification:acc5",
        min_classes=6,
        counts_images=True,
    ),
    "ece": Metric(
        "calibration error",
        function="clipbench.metrics.classification:ece",
        lower_is_better=True,
    ),
    "ece_*": Metric("calibration error", lower_is_better=True),
    "loss": Metric(
        "loss",
        function="clipbench.metrics.classification:loss",
        lower_is_better=True,
        bounded=False,
        chart="val",
        printed="loss",
    ),
    "acc_worst_*": Metric("accuracy of the worst group", tables="all"),
    "acc_*": Metric("accuracy at a coarser level", counts_images=True),
    "mean_recall": Metric("mean recall", compares=True),
    "image_recall@*": Metric(
        "a text finds its image",
        chart="retrieval, val",
        tables="test",
        printed="image_recall@5",
    ),
    "text_recall@*": Metric(
        "an image finds its text",
        chart="retrieval, val",
        tables="test",
        printed="text_recall@5",
    ),
    "*_rank": Metric("median rank", lower_is_better=True, bounded=False),
}
COMPUTED = [name for name, metric in METRICS.items() if metric.function]
PAIRED = [name for name, metric in METRICS.items() if metric.resampled]


def name_of(metric: str) -> str:
    """Return the bare name of a metric.

    Args:
        metric: ``<name>`` or ``<split>/<name>``, with or without ``@alpha=...``.
    """
    return metric.split("@alpha")[0].split("/")[-1]


@functools.cache
def of(metric: str) -> Metric:
    """Return what is known of a metric; of an unknown one, that it is a share.

    Args:
        metric: as of :func:`name_of`.
    """
    name = name_of(metric)
    known = (entry for pattern, entry in METRICS.items() if fnmatchcase(name, pattern))
    return next(known, Metric(name))


def resolve(address: str) -> Any:
    """Return the function at an address, ``module:name``."""
    return pkgutil.resolve_name(address)
