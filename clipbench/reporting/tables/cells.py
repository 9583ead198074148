"""A cell of a table: which runs it is of, how sure their number is, and the published one."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from clipbench.core.errors import UserError
from clipbench.metrics.intervals import Interval, fraction, goodness, interval, over_seeds
from clipbench.reporting.tables import published as references
from clipbench.reporting.tables.published import Published
from clipbench.results import frames
from clipbench.results.evidence import Counts, Evidence, Where

# Of runs that differ by their seed alone: other work on the machine only adds.
_COSTS = {"cost/seconds": "min", "cost/images_per_second": "max"}


@dataclass(frozen=True)
class Split:
    """The pictures that a number is of.

    Attributes:
        name: ``test``, ``val``, ...
        dataset: the option typed.
        n: pictures there were.
        expected: pictures that the split's list has.
        sha256: its fingerprint.
        scheme: which of the dataset's split schemes.
        content: what its images held; None of a run of before that was recorded.
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
        """Return whether it is another's images and labels, as far as one can tell."""
        known = self.content is None or other.content is None or self.content == other.content
        told = [(s.name, s.n, s.expected, s.sha256) for s in (self, other)]
        return known and told[0] == told[1]

    def unlike(self, published: str | None) -> str | None:
        """Why a published number is not of these pictures; None if it is, as far as one can tell.

        Args:
            published: the name of the split that the published number is of, among ours.
        """
        if published is None:
            return "the published split is not known"
        if published != self.name:
            return f"published is {published}, measured is {self.name}"
        if self.n != self.expected:
            return f"measured on {self.n:,} of {self.expected:,} pictures"
        official = references.pictures(self.dataset, self.name, self.scheme)
        if official != self.n:
            known = "is not known" if official is None else f"has {official:,} pictures"
            return f"measured on {self.n:,} pictures, the published split {known}"
        return None


@dataclass(frozen=True)
class Measured:
    """What runs that differ by their seed alone came to.

    Attributes:
        interval: their mean, or one run's number, with what is known of its uncertainty.
        by_seed: the number of each run.
        split: what it was measured on; None for a cost.
        folders: of the runs; empty for frozen ones.
        tried: settings among which the best on val was taken.
        share: whether the number is a fraction.
        column: of the runs' frame: ``test/acc``, ``curve/5``, ``test/acc@alpha=0.5``.
        metric: what that is: of ``curve/5`` the metric that the runs were selected by.
        varies: whether another seed would have come to other weights.
        keys: of the runs, in the order of ``by_seed``.
        counts: what is kept of pairs of frozen runs, see
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
    """What was measured and what was published, in percent where it is a share.

    Attributes:
        measured: None where nobody ran it.
        published: None where there is no such number.
        split_is: the split of ours that the published number is of; None if that is not known.
        stand_in: no difference from a published number is taken.
    """

    measured: Measured | None
    published: Published | None
    split_is: str | None
    stand_in: bool

    def why_none(self) -> str | None:
        """Why there is no difference between the two; None where there is, or one is missing."""
        if self.measured is None or self.published is None or self.published.number is None:
            return None
        if self.stand_in:
            return "measured with a stand-in"
        split = self.measured.split
        return split.unlike(self.split_is) if split else "a cost"

    def difference(self) -> Interval | None:
        """Measured less published, a published number being taken as it is printed."""
        if self.measured is None or self.published is None or self.why_none():
            return None
        if (other := self.published.number) is None:
            return None
        one = self.measured.interval
        estimate, low, high = (100 * end - other for end in (one.estimate, one.low, one.high))
        return Interval(estimate, low, high, one.over, one.n)


def measure(evidence: Evidence, where: Where, metric: str) -> Measured | None:
    """The number of a selection of runs; where several settings match, of the best one on val.

    Args:
        evidence: the runs there are.
        where: which of them.
        metric: a column: ``test/acc``, ``curve/5``, ``cost/seconds``.

    Raises:
        UserError: if runs of one setting have one seed, or were measured on different pictures.
    """
    rows = evidence.select(where)
    if metric not in rows or rows[metric].isna().all():
        return None
    rows = rows[rows[metric].notna()].reset_index(drop=True)
    groups = _settings(rows)
    best = groups[0] if len(groups) == 1 else max(groups, key=_on_val)
    if best["seed"].duplicated().any():
        keys = ", ".join(best["key"])
        raise UserError(f"runs {keys} have one seed and differ in what no column says; name a key")
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
        share=fraction(of),
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
    text = [rows[axis].astype(str) for axis in axes]
    return [part for _, part in rows.groupby(text, sort=False)]


def _on_val(rows: pd.DataFrame) -> float:
    metric = rows["selection/metric"].iloc[0]
    return goodness(metric, float(rows[metric].mean()))


def _split(rows: pd.DataFrame, metric: str) -> Split:
    named = str(rows["selection/metric"].iloc[0]) if metric.startswith("curve/") else metric
    name = named.split("/")[0]
    stem = f"data/{name}" if f"data/{name}/sha256" in rows else "data"
    if stem == "data" and name != "test":
        raise UserError(f"{metric}: the pictures of {name} are not known; run make freeze again")
    contents = frames.contents(rows, stem)
    if rows[f"{stem}/sha256"].nunique() > 1 or len(set(contents)) > 1:
        keys = ", ".join(rows["key"])
        raise UserError(f"runs {keys} differ by more than their seed: by the pictures of {name}")
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
