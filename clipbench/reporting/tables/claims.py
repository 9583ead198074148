"""What an experiment's file claims, and whether its rows show it.

``claim:`` in ``experiments/experiment/NAME.yaml`` is a list of statements about its own runs::

    claim:
      - {metric: test/acc, better: {model: resnet_tiny}, worse: {model: clip_tiny}}
      - {metric: test/acc, as_good: {freeze_depth: 3}, as: {freeze_depth: 0}, within: 0.03}

A side selects runs by values of their columns, and may have its own ``metric``. The first statement
is shown if ``better`` is better, p < 0.05 by Holm's rule over the statements of the claim; the
second if the 95 % interval excludes a loss of more than ``within``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf

from clipbench.core import paths
from clipbench.core.errors import UserError
from clipbench.metrics.intervals import goodness
from clipbench.metrics.significance import Difference
from clipbench.reporting.tables import significance
from clipbench.reporting.tables.cells import Measured, measure
from clipbench.results.evidence import Evidence, Where

FORMS = ({"metric", "better", "worse"}, {"metric", "as_good", "as", "within"})


@dataclass(frozen=True)
class Statement:
    """A statement that some runs are better than others, or nearly as good.

    A side has columns and values of its runs, and their ``metric``; the better one may lose
    ``within``, or has to be better if that is None.
    """

    better: Where
    worse: Where
    within: float | None

    def __str__(self) -> str:
        better, worse = (_words(side, self) for side in (self.better, self.worse))
        if self.within is None:
            return f"{better} better than {worse}"
        return f"{better} within {self.within:g} of {worse}"


@dataclass(frozen=True)
class Finding:
    """A statement, whether it is shown, and ``better`` minus ``worse``; None if runs are missing.

    The p of the difference is adjusted over the statements of the claim.
    """

    statement: Statement
    difference: Difference | None
    shown: bool


@dataclass(frozen=True)
class Claim:
    """The claim of an experiment, with a finding per statement."""

    experiment: str
    findings: Sequence[Finding]

    @property
    def verdict(self) -> str:
        """``held`` if every statement is shown, else ``not shown``."""
        return "held" if all(one.shown for one in self.findings) else "not shown"


def statements(path: Path) -> list[Statement]:
    """Return the statements of an experiment's file; none if it has no ``claim``.

    Raises:
        UserError: if a statement has an unknown form.
    """
    found = []
    for entry in OmegaConf.to_container(OmegaConf.load(path)).get("claim") or []:  # type: ignore[union-attr]
        if set(entry) not in FORMS:
            known = " or ".join(", ".join(sorted(form)) for form in FORMS)
            raise UserError(f"{path.name}: claim={entry} is not a statement. Give {known}.")
        sides = [entry[key] for key in ("better", "worse", "as_good", "as") if key in entry]
        better, worse = ({"metric": entry["metric"], **side} for side in sides)
        found.append(Statement(better, worse, entry.get("within")))
    return found


def sides(evidence: Evidence, name: str, one: Statement) -> tuple[Measured, Measured] | None:
    """Return the results of both sides of a statement, or None if one was not run.

    Raises:
        UserError: if a side is ambiguous, or the two were measured on different images.
    """
    found = []
    for side in (one.better, one.worse):
        where = {key: value for key, value in side.items() if key != "metric"}
        found.append(measure(evidence, {"experiment": name, **where}, str(side["metric"])))
    better, worse = found
    if better is None or worse is None:
        return None
    if better.split != worse.split:
        raise UserError(
            f"{name}: {one} compares {better.split} with {worse.split}. Name one split."
        )
    return better, worse


def judged(evidence: Evidence, path: Path) -> Claim:
    """Return the claim of an experiment's YAML with its tests."""
    claimed = statements(path)
    tests: dict[int, Difference] = {}
    for n, statement in enumerate(claimed):
        if pair := sides(evidence, path.stem, statement):
            tests[n] = significance.compare(pair[1], pair[0])
    tests |= significance.adjusted({n: d for n, d in tests.items() if claimed[n].within is None})
    findings = [Finding(s, tests.get(n), _shown(s, tests.get(n))) for n, s in enumerate(claimed)]
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


def _words(side: Where, one: Statement) -> str:
    """Return the text of a side: its values, and the metric if it differs from the other side's."""
    values = " ".join(f"{key}={value}" for key, value in side.items() if key != "metric")
    first = side is one.better or one.better["metric"] != one.worse["metric"]
    return f"{side['metric']} of {values or 'the runs'}" if first else values or "the runs"
