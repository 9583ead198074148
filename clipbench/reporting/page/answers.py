"""What a sweep says to somebody who has to choose: which model, how sure, at what cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from clipbench.metrics import significance
from clipbench.metrics.significance import Difference
from clipbench.reporting.page.candidates import Candidate, candidates, measure
from clipbench.results import comparison, frames, identity, predictions

RESAMPLES = 2_000  # of a comparison that a page shows
# They have seen drawings only: what they do says nothing about the models they stand for.
DRAWN = {"clip_tiny": "a small CLIP", "resnet_tiny": "a small ResNet"}


@dataclass(frozen=True)
class Answer:
    """What the runs on one dataset say.

    Attributes:
        dataset: what it is called.
        split: what was compared on: ``test``, or ``val`` where there is no test split.
        metric: what by.
        candidates: best on val first.
        compared: of each pair of them second minus first, p adjusted for their number; empty
            where no predictions of classes were saved.
        n: pictures of the split.
        shifts: likewise what was compared on each further split.
    """

    dataset: str
    split: str
    metric: str
    candidates: Sequence[Candidate]
    compared: Mapping[tuple[str, str], Difference] = field(default_factory=dict)
    n: int = 0
    shifts: Mapping[str, Mapping[tuple[str, str], Difference]] = field(default_factory=dict)

    @property
    def leader(self) -> Candidate:
        """The best on val: what one would take without having seen the test split."""
        return self.candidates[0]

    def against(self, other: Candidate, shift: str | None = None) -> Difference | None:
        """The leader minus another, on a further split if one is named; None if not compared."""
        compared = self.compared if shift is None else self.shifts[shift]
        names = (self.leader.name, other.name)
        if names in compared:
            return _turned(compared[names])
        return compared.get((names[1], names[0]))

    def sturdier(self, shift: str) -> Candidate | None:
        """Who is better than the leader on a further split, the best of them.

        Significantly so, be it these trained models alone.
        """
        found = [
            c
            for c in self.candidates[1:]
            if (d := self.against(c, shift)) and (d.claimed or d.of_these_runs) and d.estimate < 0
        ]
        return max(found, key=lambda c: c.mean(f"{shift}/{self.metric}") or 0, default=None)

    @property
    def worse(self) -> list[Candidate]:
        """Those that the leader is significantly better than."""
        return [c for c in self.candidates[1:] if (d := self.against(c)) and _clear(d, 1)]

    @property
    def clear(self) -> bool:
        """Whether the leader is significantly better than every other."""
        return 0 < len(self.worse) == len(self.candidates) - 1

    @property
    def better(self) -> list[Candidate]:
        """Those that are significantly better on test than the one that val chose."""
        return [c for c in self.candidates[1:] if (d := self.against(c)) and _clear(d, -1)]

    @property
    def equals(self) -> list[Candidate]:
        """Those that no difference to the leader is shown of."""
        apart = [*self.worse, *self.better, *self.of_these_runs]
        return [c for c in self.candidates[1:] if c not in apart and self.against(c)]

    @property
    def of_these_runs(self) -> list[Candidate]:
        """Those that differ from the leader as trained once, which another seed may reverse."""
        return [c for c in self.candidates[1:] if (d := self.against(c)) and d.of_these_runs]

    @property
    def cheaper(self) -> Candidate | None:
        """The fastest that is not shown to be worse, if it takes half the leader's time or less."""
        options = [c for c in self.equals if c.seconds <= self.leader.seconds / 2]
        return min(options, key=lambda c: c.seconds, default=None)

    @property
    def rivals(self) -> list[Candidate]:
        """Whom pictures and classes are compared with: the best of another model first."""
        return sorted(self.candidates[1:], key=lambda c: c.model == self.leader.model)

    def guessing(self) -> float:
        """What always saying the largest class of the split would have, by the metric."""
        if self.metric not in significance.METRICS:
            return 0.0
        labels = predictions.predictions(self.leader.folders[0], self.split)["label"]
        share = float(labels.value_counts(normalize=True).iloc[0])
        if self.metric == "acc":
            return share
        classes = labels.nunique()
        return 1 / classes if self.metric == "mean_per_class" else 2 * share / (1 + share) / classes


def _turned(one: Difference) -> Difference:
    return replace(one, estimate=-one.estimate, low=-one.high, high=-one.low)


def _clear(one: Difference, sign: int) -> bool:
    return one.claimed and one.estimate * sign > 0


def answers(runs: frames.Runs) -> list[Answer]:
    """An answer for each dataset, and for each version of its split: those do not compare.

    Args:
        runs: completed ones.
    """
    groups: dict[tuple[str, str], list[Any]] = {}
    for folder, record in runs:
        split = "test" if "test" in record["data"] else "val"
        told = record["data"][split]
        groups.setdefault((record["dataset"], identity.seen(told)), []).append((folder, record))
    return [_answer(own) for own in groups.values()]


def _called(record: Mapping[str, Any]) -> str:
    """A dataset's name; of somebody's own folder, the folder's."""
    root = str(record["config"]["dataset"].get("root") or "")
    own = record["dataset"] in ("imagefolder", "captions") and root
    return Path(root).name if own else str(record["dataset"])


def _answer(runs: frames.Runs) -> Answer:
    first = runs[0][1]
    split = "test" if "test" in first["data"] else "val"
    metric = measure([record for _, record in runs])
    found = candidates(runs, metric)
    compared: dict[str, Mapping[tuple[str, str], Difference]] = {split: {}}
    names = [key.split("/")[0] for key in first["final"] if key.endswith(f"/{metric}")]
    for name in dict.fromkeys([split, *names]):
        if name in ("val", "retention") and name != split:
            continue
        compared[name] = {}
        splits = [r["data"].get(name) for c in found for r in c.records]
        prints = {split and identity.seen(split) for split in splits}
        if metric in significance.METRICS and len(found) > 1 and len(prints) == 1:
            models = {one.name: one.folders for one in found}
            compared[name] = comparison.compare_all(models, name, metric, RESAMPLES)
    n = int(first["data"][split]["n"])
    return Answer(_called(first), split, metric, found, compared.pop(split), n, compared)
