"""Whether two saved runs differ, by what they predicted for the same images."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clipbench.core.errors import UserError
from clipbench.metrics import registry
from clipbench.metrics.intervals import Interval, holm
from clipbench.metrics.significance import (
    RESAMPLES,
    Difference,
    Labels,
    Runs,
    _bootstrap,
    _scorer,
    difference,
)
from clipbench.results import identity, predictions


def compare(
    first: Runs,
    second: Runs,
    split: str = "test",
    metric: str = "acc",
    other: str | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> Difference:
    """:func:`difference` of two models on one split, by their saved predictions.

    Args:
        first: folders of completed runs, the same but for their seeds.
        second: likewise.
        split: such as ``test``.
        metric: one of :data:`clipbench.metrics.registry.PAIRED`; ``acc@alpha=0.5`` or ``acc@alpha``
            of merged weights.
        other: of the second, if that is at another alpha.
        level: of the interval.
        resamples: of the images.

    Raises:
        UserError: if two runs saw different splits, or have no predictions.
    """
    name, *alpha = metric.split("@alpha", 1)
    _, *other_alpha = (other or metric).split("@alpha", 1)
    _known(name)
    sides = [(run, *alpha) for run in first], [(run, *other_alpha) for run in second]
    labels, sides_said = _aligned(*sides, split)
    varies = [
        any(identity.varies(predictions.record(run, split)) for run in side)
        for side in (first, second)
    ]
    found = difference(labels, *sides_said, name, level, resamples, (varies[0], varies[1]))
    return replace(found, metric=f"{split}/{metric}")


def compare_all(
    models: Mapping[str, Runs],
    split: str = "test",
    metric: str = "acc",
    resamples: int = RESAMPLES,
) -> dict[tuple[str, str], Difference]:
    """Every pair of models by :func:`compare`, p adjusted by :func:`holm` over all of them.

    Over all pairs, not only those with the best one: which is best was seen in the same numbers.

    Args:
        models: the runs of each, one a seed.
        split: such as ``test``.
        metric: one of :data:`clipbench.metrics.registry.PAIRED`.
        resamples: of each comparison.
    """
    found = {
        (a, b): compare(models[a], models[b], split, metric, resamples=resamples)
        for a, b in combinations(models, 2)
    }
    adjusted = holm([one.p for one in found.values()])
    return {pair: replace(one, p=p) for (pair, one), p in zip(found.items(), adjusted, strict=True)}


def over_images(
    run: Path, split: str, metric: str, level: float = 0.95, resamples: int = RESAMPLES
) -> Interval:
    """Return the bootstrap interval of a run's metric over the images of a split.

    Args:
        run: a completed run's folder.
        split: such as ``test_ood``.
        metric: one of :data:`clipbench.metrics.registry.PAIRED`.
        level: of confidence.
        resamples: how many.

    Raises:
        UserError: if the run has no predictions of that split.
    """
    _known(metric)
    rows = predictions.predictions(run, split)
    labels, n = rows["label"].to_numpy(), len(rows)
    score = _scorer(labels, [rows["prediction"].to_numpy()], metric)
    found = _bootstrap(lambda index: score(index)[0], labels, level, resamples)
    low, high = found.confidence_interval
    return Interval(float(score(np.arange(n))[0, 0]), float(low), float(high), "images", n)


def _known(metric: str) -> None:
    if metric not in registry.PAIRED:
        raise UserError(f"no test for {metric}; there are {', '.join(registry.PAIRED)}")


def _aligned(
    first: Sequence[tuple[Any, ...]], second: Sequence[tuple[Any, ...]], split: str
) -> tuple[Labels, tuple[list[Labels], list[Labels]]]:
    """Labels, and what each run of either side predicted for them, in one order of images.

    Args:
        first: folders of runs, each with its alpha if it is at one.
        second: likewise.
        split: such as ``test``.
    """
    if not first or not second:
        raise UserError("a comparison needs a run on either side; give the folders of both")
    seen: dict[str, Path] = {}
    for run, *_ in (*first, *second):
        seen.setdefault(identity.seen(predictions.record(run, split).data[split]), run)
    if len(seen) > 1:
        (digest, run), (other_digest, other_run), *_ = seen.items()
        raise UserError(
            f"{run} and {other_run} saw different images or labels of split={split}"
            f"{_unlike(digest, other_digest)}"
        )

    def read(run: Path, *alpha: str) -> pd.DataFrame:
        return predictions.predictions(run, split, *alpha)

    order = read(*first[0])
    one, other = (
        [read(*run)["prediction"].reindex(order.index).to_numpy() for run in side]
        for side in (first, second)
    )
    return order["label"].to_numpy(), (one, other)


def _unlike(first: str, second: str) -> str:
    """Return how two splits differ, and what to do; of each what :func:`results.seen` gives."""
    (labels, content), (other_labels, other_content) = (
        [*text.split("/"), ""][:2] for text in (first, second)
    )
    if labels != other_labels:
        return f" ({labels[:8]} and {other_labels[:8]}); compare runs on one split"
    if content and other_content:
        how = f"the images of equal names are others, {content[:8]} and {other_content[:8]}"
        return f" ({how}); compare runs on one split"
    return ", as far as is known: one is of before content was recorded; run it again"
