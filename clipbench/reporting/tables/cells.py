"""A cell of a table: its runs, their number with its uncertainty, and the published number."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from clipbench.core.errors import UserError
from clipbench.metrics import registry
from clipbench.metrics.intervals import Interval, goodness, interval, over_seeds
from clipbench.reporting.tables import published as references
from clipbench.reporting.tables.published import Published
from clipbench.results import frames
from clipbench.results.evidence import Counts, Evidence, Where

# How runs that differ only by seed are reduced: other work on the machine only adds to a cost.
_COSTS = {"cost/seconds": "min", "cost/images_per_second": "max"}


@dataclass(frozen=True)
class Split:
    """The split on which a number was measured.

    Attributes:
        name: ``test``, ``val``, ...
        dataset: the option typed.
        n: images on disk.
        expected: images in the split's list.
        sha256: fingerprint of ids and labels.
        scheme: which of the dataset's split schemes.
        content: fingerprint of the images; None for runs made before it was recorded.
    """

    name: str
    dataset: str
    n: int
    expected: int
    sha256: str
    scheme: str | None
    content: str | None = None

    def __str__(self) -> str:
        whole = f" of {self.expected}" if self.n != self.expected else ""
        return f"{self.name} {frames.shown(self.sha256, self.content)} n={self.n}{whole}"

    def may_be(self, other: "Split") -> bool:
        """Return whether two splits have the same images and labels, as far as is known."""
        same_images = self.content in (None, other.content) or other.content is None
        first, second = ((s.name, s.n, s.expected, s.sha256) for s in (self, other))
        return same_images and first == second

    def unlike(self, published: str | None) -> str | None:
        """Return why a published number is not of these images; None if it is, as far as is known.

        Args:
            published: our name of the split that the published number is of.
        """
        if published is None:
            return "the published split is not known"
        if published != self.name:
            return f"published is {published}, measured is {self.name}"
        if self.n != self.expected:
            return f"measured on {self.n:,} of {self.expected:,} images"
        official = references.images(self.dataset, self.name, self.scheme)
        if official != self.n:
            known = "is not known" if official is None else f"has {official:,} images"
            return f"measured on {self.n:,} images, the published split {known}"
        return None


@dataclass(frozen=True)
class Measured:
    """The result of runs that differ only by seed.

    Attributes:
        interval: their mean, or one run's number, with its interval if one is known.
        by_seed: the number of each run.
        split: the split it was measured on; None for a cost.
        folders: the folders of the runs; empty for frozen ones.
        tried: how many settings the best on val was chosen from.
        share: whether the number is a fraction.
        column: of the runs' frame: ``test/acc``, ``curve/5``, ``test/acc@alpha=0.5``.
        metric: the metric of the column; for ``curve/5`` the one that selected the epoch.
        varies: whether another seed would give other weights.
        keys: of the runs, in the order of ``by_seed``.
        counts: of pairs of frozen runs, see
            :attr:`clipbench.results.evidence.Evidence.counts`.
    """

    interval: Interval
    by_seed: Mapping[int, float]
    split: Split | None
    folders: tuple[Path, ...]
    tried: int
    share: bool
    column: str = ""
    metric: str = ""
    varies: bool = True
    keys: tuple[str, ...] = ()
    counts: Mapping[tuple[str, str, str], Counts] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """A measured and a published number, in percent if they are shares.

    Attributes:
        measured: None if nobody ran it.
        published: None if there is no such number.
        split_is: our split that the published number is of; None if that is not known.
        stand_in: whether no difference from a published number may be computed.
    """

    measured: Measured | None
    published: Published | None
    split_is: str | None
    stand_in: bool

    def why_none(self) -> str | None:
        """Return why there is no difference of the two; None if there is, or one is missing."""
        if self.measured is None or self.published is None or self.published.number is None:
            return None
        if self.stand_in:
            return "measured with a stand-in"
        split = self.measured.split
        return split.unlike(self.split_is) if split else "a cost"

    def difference(self) -> Interval | None:
        """Return measured minus published, taking the published number as it is printed."""
        if self.measured is None or self.published is None or self.why_none():
            return None
        if (printed := self.published.number) is None:
            return None
        ours = self.measured.interval
        estimate, low, high = (100 * x - printed for x in (ours.estimate, ours.low, ours.high))
        return Interval(estimate, low, high, ours.over, ours.n)


def measure(evidence: Evidence, where: Where, metric: str) -> Measured | None:
    """Return the number of a selection of runs; of several settings, that of the best on val.

    Args:
        evidence: the available runs.
        where: which of them.
        metric: a column: ``test/acc``, ``curve/5``, ``cost/seconds``.

    Raises:
        UserError: if runs of one setting share a seed, or were measured on different images.
    """
    rows = evidence.select(where)
    if metric not in rows or rows[metric].isna().all():
        return None
    rows = rows[rows[metric].notna()].reset_index(drop=True)
    groups = _settings(rows)
    best = groups[0] if len(groups) == 1 else max(groups, key=_on_val)
    if best["seed"].duplicated().any():
        keys = ", ".join(best["key"])
        raise UserError(f"runs {keys} share a seed and differ in no column. Name a key.")
    values = best[metric].astype(float)
    by_seed = dict(zip(best["seed"].astype(int), values, strict=True))
    folders = tuple(Path(f) for f in best.get("folder", pd.Series(dtype=str)).dropna())
    if metric.startswith("cost/"):
        least = float(values.agg(_COSTS.get(metric, "max")))
        quickest = Interval(least, math.nan, math.nan, "seeds", len(best))
        return Measured(quickest, by_seed, None, folders, len(groups), share=False)
    if metric.startswith("selection/"):
        chosen = over_seeds([*values])
        return Measured(chosen, by_seed, None, folders, len(groups), share=False)
    split, of = _split(best, metric), metric
    if metric.startswith("curve/"):
        of = str(best["selection/metric"].iloc[0])
    return Measured(
        interval([*values], of, split.n),
        by_seed,
        split,
        folders,
        len(groups),
        share=registry.of(of).bounded,
        column=metric,
        metric=of,
        varies=bool(best["run/varies"].any()),
        keys=tuple(best["key"]),
        counts=evidence.counts,
    )


def _settings(rows: pd.DataFrame) -> list[pd.DataFrame]:
    axes = frames.settings(rows, frames.seedless(rows))
    if not axes:
        return [rows]
    text = [rows[axis].map(str) for axis in axes]
    return [part for _, part in rows.groupby(text, sort=False)]


def _on_val(rows: pd.DataFrame) -> float:
    metric = rows["selection/metric"].iloc[0]
    return goodness(metric, float(rows[metric].mean()))


def _split(rows: pd.DataFrame, metric: str) -> Split:
    named = str(rows["selection/metric"].iloc[0]) if metric.startswith("curve/") else metric
    name = named.split("/")[0]
    stem = f"data/{name}" if f"data/{name}/sha256" in rows else "data"
    if stem == "data" and name != "test":
        raise UserError(f"{metric}: the images of {name} are not known. Run make freeze again.")
    contents = frames.contents(rows, stem)
    if rows[f"{stem}/sha256"].nunique() > 1 or len(set(contents)) > 1:
        keys = ", ".join(rows["key"])
        raise UserError(f"runs {keys} differ by more than their seed: by the images of {name}")
    first = rows.iloc[0]
    scheme = first.get("data/scheme")
    return Split(
        name,
        str(first["dataset"]),
        int(first[f"{stem}/n"]),
        int(first[f"{stem}/expected"]),
        str(first[f"{stem}/sha256"]),
        None if scheme is None or pd.isna(scheme) else str(scheme),
        contents[0],
    )
