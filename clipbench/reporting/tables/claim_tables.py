"""The table of all claims: each statement, its test, and whether it is shown."""

import math
from pathlib import Path

import pandas as pd

from clipbench.core import paths
from clipbench.metrics.significance import Difference
from clipbench.reporting.tables import claims, typeset
from clipbench.results.evidence import Evidence

COLUMNS = ("experiment", "verdict", "statement", "shown", "difference", "interval", "p", "test")


def write(evidence: Evidence) -> tuple[list[Path], list[list[str]]]:
    """Write ``claims.md``, ``.tex`` and ``.csv``.

    Return the files and the rows of text; both are empty if nothing was run.
    """
    rows, numbers = [], []
    for claim in claims.every(evidence):
        for one in claim.findings:
            shown = "yes" if one.shown else "no"
            about = [claim.experiment, claim.verdict, str(one.statement), shown]
            rows.append([*about, *_read(one.difference)])
            numbers.append(dict(zip(COLUMNS, about, strict=False)) | _numbers(one.difference))
    if not rows:
        return [], []
    target = paths.outputs() / "tables"
    target.mkdir(parents=True, exist_ok=True)
    return typeset.write(target / "claims", COLUMNS, rows, pd.DataFrame(numbers)), rows


def _read(found: Difference | None) -> list[str]:
    if found is None:
        return ["not run", "", "", ""]
    ends = "" if math.isnan(found.low) else f"{found.low:+.4f} to {found.high:+.4f}"
    p = "" if found.test == "none" else f"{found.p:.2g}"
    of = "" if found.covers_seeds else ", of these trained models alone"
    return [f"{found.estimate:+.4f}", ends, p, found.test + of]


def _numbers(found: Difference | None) -> dict[str, object]:
    if found is None:
        return {}
    first, second = found.seeds
    return {
        **{"difference": found.estimate, "low": found.low, "high": found.high, "p": found.p},
        **{"test": found.test, "n": found.n, "seeds": second, "seeds of the other": first},
        "covers seeds": found.covers_seeds,
    }
