"""The answer of a sweep's runs: which model to take, how sure that is, and at what cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from clipbench.metrics import registry
from clipbench.metrics.intervals import goodness
from clipbench.metrics.significance import Difference
from clipbench.reporting.page.candidates import Candidate, candidates, measure
from clipbench.results import comparison, frames, identity, predictions

RESAMPLES = 2_000  # of each comparison on a page
# Pretrained on drawings only: their results say nothing about the models they stand for.
DRAWN = {"clip_tiny": "a small CLIP", "resnet_tiny": "a small ResNet"}


@dataclass(frozen=True)
class Answer:
    """The comparison of the candidates on one dataset.

    Attributes:
        dataset: its name.
        split: the compared split: ``test``, or ``val`` of a dataset without a test split.
        metric: the compared metric.
        candidates: best on val first.
        compared: second minus first of each pair of candidates, p adjusted for their number; empty
            if no class predictions were saved.
        n: images of the split.
        shifts: the same comparison on each further split.
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
        """The best candidate on val, which is chosen without the test split."""
        return self.candidates[0]

    def against(self, other: Candidate, shift: str | None = None) -> Difference | None:
        """Return the leader minus another candidate, on ``shift`` if given, or None."""
        compared = self.compared if shift is None else self.shifts[shift]
        if (d := compared.get((self.leader.name, other.name))) is None:
            return compared.get((other.name, self.leader.name))
        return replace(d, estimate=-d.estimate, low=-d.high, high=-d.low)

    def sturdier(self, shift: str) -> Candidate | None:
        """Return the best candidate that beats the leader significantly on a further split.

        The significance may be that of these trained models alone.
        """
        better = [
            c
            for c in self.candidates[1:]
            if (d := self.against(c, shift)) and (d.claimed or d.of_these_runs)
            if goodness(d.metric, d.estimate) < 0
        ]
        key = f"{shift}/{self.metric}"
        return max(better, key=lambda c: goodness(key, c.mean(key) or 0), default=None)

    @property
    def worse(self) -> list[Candidate]:
        """The candidates that the leader is significantly better than."""
        return [c for c in self.candidates[1:] if (d := self.against(c)) and _clear(d, 1)]

    @property
    def clear(self) -> bool:
        """Whether the leader is significantly better than every other candidate."""
        return 0 < len(self.worse) == len(self.candidates) - 1

    @property
    def better(self) -> list[Candidate]:
        """The candidates that are significantly better on test than the leader."""
        return [c for c in self.candidates[1:] if (d := self.against(c)) and _clear(d, -1)]

    @property
    def equals(self) -> list[Candidate]:
        """The candidates without a significant difference from the leader."""
        apart = [*self.worse, *self.better, *self.of_these_runs]
        return [c for c in self.candidates[1:] if c not in apart and self.against(c)]

    @property
    def of_these_runs(self) -> list[Candidate]:
        """The candidates that differ from the leader with these seeds, which others may reverse."""
        return [c for c in self.candidates[1:] if (d := self.against(c)) and d.of_these_runs]

    @property
    def cheaper(self) -> Candidate | None:
        """The fastest candidate not shown to be worse, if it is twice as fast as the leader."""
        options = [c for c in self.equals if c.seconds <= self.leader.seconds / 2]
        return min(options, key=lambda c: c.seconds, default=None)

    @property
    def rivals(self) -> list[Candidate]:
        """The candidates to compare by class and image: the best of another model first."""
        return sorted(self.candidates[1:], key=lambda c: c.model == self.leader.model)

    def guessing(self) -> float:
        """Return the metric of a classifier that always predicts the split's largest class."""
        guess = registry.of(self.metric).guess
        if guess is None:
            return 0.0
        labels = predictions.predictions(self.leader.folders[0], self.split)["label"]
        share = float(labels.value_counts(normalize=True).iloc[0])
        return guess(share, labels.nunique())


def _clear(difference: Difference, sign: int) -> bool:
    return difference.claimed and goodness(difference.metric, difference.estimate) * sign > 0


def answers(runs: frames.Runs) -> list[Answer]:
    """Return an answer of completed runs for each dataset and each version of its split."""
    groups: dict[tuple[str, str], list[Any]] = {}
    for folder, record in runs:
        split = record.data["test" if "test" in record.data else "val"]
        groups.setdefault((record.dataset, identity.seen(split)), []).append((folder, record))
    return [_answer(group) for group in groups.values()]


def _answer(runs: frames.Runs) -> Answer:
    first = runs[0][1]
    split = "test" if "test" in first.data else "val"
    metric = measure([record for _, record in runs])
    ordered = candidates(runs, metric)
    models = {candidate.name: candidate.folders for candidate in ordered}
    compared: dict[str, Mapping[tuple[str, str], Difference]] = {}
    measured = [key.split("/")[0] for key in first.final if key.endswith(f"/{metric}")]
    for name in dict.fromkeys([split, *measured]):
        if name in ("val", "retention") and name != split:
            continue
        splits = [r.data.get(name) for c in ordered for r in c.records]
        versions = {split and identity.seen(split) for split in splits}
        paired = metric in registry.PAIRED and len(ordered) > 1 and len(versions) == 1
        compared[name] = comparison.compare_all(models, name, metric, RESAMPLES) if paired else {}
    root = first.config["dataset"].get("root")
    users = root and first.dataset in ("imagefolder", "captions")  # named by their folder
    dataset, n = Path(str(root)).name if users else first.dataset, first.data[split].n
    return Answer(dataset, split, metric, ordered, compared.pop(split), n, compared)
