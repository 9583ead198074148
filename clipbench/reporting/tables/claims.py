"""What an experiment's file claims, and whether its rows show it.

``claim:`` in ``experiments/experiment/NAME.yaml`` is a list of statements about its own runs::

    claim:
      - {metric: test/acc, better: {model: resnet_tiny}, worse: {model: clip_tiny}}
      - {metric: test/acc, as_good: {freeze_depth: 3}, as: {freeze_depth: 0}, within: 0.03}

A side says which runs, by values of their columns, and may have a ``metric`` of its own. The first
statement is shown where ``better`` is, p < 0.05 by Holm's rule over the statements of the claim;
the second where the 95 % interval leaves no room for a loss of more than ``within``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from clipbench.core import paths
from clipbench.core.errors import UserError
from clipbench.metrics.intervals import goodness
from clipbench.metrics.significance import Difference
from clipbench.reporting.tables import significance
from clipbench.reporting.tables.cells import Measured, measure
from clipbench.results.evidence import Evidence

FORMS = ({"metric", "better", "worse"}, {"metric", "as_good", "as", "within"})


@dataclass(frozen=True)
class Statement:
    """That runs are better than others, or nearly as good.

    Attributes:
        better: columns and values of the runs it is made for, and their ``metric``.
        worse: likewise of the others.
        within: how much they may lose; None where they have to be better.
    """

    better: Mapping[str, Any]
    worse: Mapping[str, Any]
    within: float | None

    def __str__(self) -> str:
        better, worse = (_words(side, self) for side in (self.better, self.worse))
        if self.within is None:
            return f"{better} better than {worse}"
        return f"{better} within {self.within:g} of {worse}"


@dataclass(frozen=True)
class Finding:
    """A statement and what the rows say of it.

    Attributes:
        statement: what is claimed.
        difference: of its runs less the others, p adjusted over the statements of the claim; None
            where some were not run.
        shown: whether it is.
    """

    statement: Statement
    difference: Difference | None
    shown: bool


@dataclass(frozen=True)
class Claim:
    """What an experiment claims, judged.

    Attributes:
        experiment: its name.
        findings: a statement each.
    """

    experiment: str
    findings: Sequence[Finding]

    @property
    def verdict(self) -> str:
        """``held`` where every statement is shown, else ``not shown``."""
        return "held" if all(one.shown for one in self.findings) else "not shown"


def statements(path: Path) -> list[Statement]:
    """Return what an experiment's file claims; nothing where it has no ``claim``.

    Raises:
        UserError: for a statement of no known form.
    """
    found = []
    for entry in OmegaConf.to_container(OmegaConf.load(path)).get("claim") or []:  # type: ignore[union-attr]
        if set(entry) not in FORMS:
            known = " or ".join(", ".join(sorted(form)) for form in FORMS)
            raise UserError(f"{path.name}: claim={entry} is no statement. Give {known}.")
        sides = [entry[key] for key in ("better", "worse", "as_good", "as") if key in entry]
        better, worse = ({"metric": entry["metric"], **side} for side in sides)
        found.append(Statement(better, worse, entry.get("within")))
    return found


def sides(evidence: Evidence, name: str, one: Statement) -> tuple[Measured, Measured] | None:
    """Return what both sides of a statement came to; None where one was not run.

    Raises:
        UserError: if a side names too little, or they were measured on different images.
    """
    found = []
    for side in (one.better, one.worse):
        where = {key: value for key, value in side.items() if key != "metric"}
        found.append(measure(evidence, {"experiment": name, **where}, side["metric"]))
    better, worse = found
    if better is None or worse is None:
        return None
    if better.split != worse.split:
        raise UserError(
            f"{name}: {one} compares {better.split} with {worse.split}. Name one split."
        )
    return better, worse


def judged(evidence: Evidence, path: Path) -> Claim:
    """Return what an experiment's file claims with what its rows say.

    Args:
        evidence: the runs there are, this experiment's among them.
        path: of its YAML.
    """
    told = statements(path)
    found: dict[int, Difference] = {}
    for number, one in enumerate(told):
        if pair := sides(evidence, path.stem, one):
            found[number] = significance.compare(pair[1], pair[0])
    alone = {n: d for n, d in found.items() if told[n].within is None}
    found |= significance.adjusted(alone)
    findings = [Finding(one, found.get(n), _shown(one, found.get(n))) for n, one in enumerate(told)]
    return Claim(path.stem, findings)


def every(evidence: Evidence) -> list[Claim]:
    """Return each claim whose experiment has runs among the evidence."""
    files = sorted((paths.EXPERIMENTS / "experiment").glob("*.yaml"))
    known = [path for path in files if path.stem in evidence.sweeps]
    return [claim for path in known if (claim := judged(evidence, path)).findings]


def _shown(one: Statement, found: Difference | None) -> bool:
    if found is None:
        return False
    up = goodness(str(one.better["metric"]), 1.0) > 0
    gain, least = (found.estimate, found.low) if up else (-found.estimate, -found.high)
    if one.within is None:
        return found.claimed and gain > 0
    return found.covers_seeds and least > -one.within


def _words(side: Mapping[str, Any], one: Statement) -> str:
    """A side as it is read: its values, and the metric where it is not the other side's."""
    values = " ".join(f"{key}={value}" for key, value in side.items() if key != "metric")
    first = side is one.better or one.better["metric"] != one.worse["metric"]
    return f"{side['metric']} of {values or 'the runs'}" if first else values or "the runs"
