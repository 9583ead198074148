"""The notes under a table that follow from its cells."""

import math
from collections.abc import Iterator, Mapping

from scipy import stats

from clipbench.metrics.intervals import Interval
from clipbench.reporting.tables import costs
from clipbench.reporting.tables.cells import Cell
from clipbench.reporting.tables.layouts import Layout
from clipbench.reporting.tables.published import MARK
from clipbench.reporting.tables.significance import Best

SEEDS = "\N{PLUS-MINUS SIGN}: Student's 95 % interval over seeds."
WILSON = "[ ]: Wilson's 95 % interval over images, of one seed or of seeds that agree."
CUT = "[ ]: Student's, where it ends at 0 or at 100."


def of(layout: Layout, best: Mapping[int, Mapping[int, Best]]) -> Iterator[str]:
    """Yield what the signs mean, why a difference is missing, and the sources.

    Args:
        layout: the table.
        best: the best row of each split by its place, for each column.
    """
    cells = [cell for *_, cell in layout.cells()]
    results = [cell.measured for cell in cells if cell.measured]
    shares = [r.interval for r in results if r.share and not math.isnan(r.interval.low)]
    over = {interval.over for interval in shares}
    if any(r.share for r in results) or any(cell.published for cell in cells):
        yield "In percent."
    if "seeds" in over:
        yield SEEDS
    if "images" in over:
        yield WILSON
    if any(map(_cut, shares)):
        yield CUT
    claimed = [one for found in best.values() for one in found.values() if one.claimed]
    if tests := sorted({test for one in claimed for test in one.tests}):
        yield f"Bold: better than every other row, p < 0.05 by Holm's rule ({', '.join(tests)})."
    yield from _of_these_runs(layout, best)
    if (tried := max((r.tried for r in results), default=1)) > 1:
        yield f"If several settings were run, the best on val is shown: up to {tried} settings."
    if any("(stand-in)" in row for row in layout.rows):
        stand_in = "A stand-in is a tiny model or a drawn dataset"
        yield f"{stand_in}, and is not compared with published numbers."
    yield from _unknown(layout)
    yield from _apart(layout)
    yield from _correlations(layout)
    if any(layout.hours):
        yield f"GPU-hours: for one run each, by operations, on {costs.BASIS}."
        if len({*layout.hours}) > 1 and "alpha" in layout.spec["rows"][0]:
            yield "One run fills the rows of all alphas; the first row has its hours."
    for source, citation in dict.fromkeys(
        (c.published.source, c.published.citation) for c in cells if c.published
    ):
        yield f"Published by {source}: {citation}."
    if any(cell.published and not cell.published.firsthand for cell in cells):
        yield f"{MARK}: as quoted by another work."


def _cut(one: Interval) -> bool:
    """Whether an interval over seeds was cut off at 0 or 1."""
    return one.over == "seeds" and not math.isclose(one.estimate - one.low, one.high - one.estimate)


def _of_these_runs(layout: Layout, best: Mapping[int, Mapping[int, Best]]) -> Iterator[str]:
    """Yield the rows that are not bold because too few seeds were run."""
    for place, found in best.items():
        for row, one in found.items():
            if one.of_these_runs:
                where = f"{layout.rows[row]}, {layout.columns[place]}"
                yield (
                    f"Not bold, {where}: these trained models differ on these images, and another "
                    f"seed may reverse it ({', '.join(one.tests)})."
                )


def _unknown(layout: Layout) -> Iterator[str]:
    """Name the rows whose images are known by their names and labels only."""
    cells = [(row, cell.measured) for row, _, cell in layout.cells() if cell.measured]
    splits = [(row, measured.split) for row, measured in cells if measured.split]
    recorded = {split.sha256 for _, split in splits if split.content}
    rows = dict.fromkeys(row for row, s in splits if not s.content and s.sha256 in recorded)
    if rows:
        yield (
            f"Run before the content of images was recorded: {', '.join(rows)}. Their images have "
            "the names and labels of the others', and no test compares them."
        )


def _apart(layout: Layout) -> Iterator[str]:
    """Yield each reason for a missing difference, with its cells."""
    reasons: dict[str, list[str]] = {}
    for row, column, cell in layout.cells():
        if (why := cell.why_none()) and not cell.stand_in:
            reasons.setdefault(why, []).append(f"{row}, {column}")
    for why, places in reasons.items():
        yield f"No difference ({'; '.join(places)}): {why}."


def _correlations(layout: Layout) -> Iterator[str]:
    """Yield Spearman's rho of two columns, for the published and for the measured numbers."""
    for first, second in layout.spec.get("correlate", []):
        pair = list(zip(layout.column(first), layout.column(second), strict=True))
        for kind in ("published", "measured"):
            points = [(_value(x, kind), _value(y, kind)) for x, y in pair]
            both = [point for point in points if None not in point]
            if len(both) > 2:
                rho, p = map(float, stats.spearmanr(*zip(*both, strict=True)))
                numbers = f"{rho:+.2f} (p = {p:.2g}, n = {len(both)})"
                yield f"Spearman's rho of {first} and {second}, {kind}: {numbers}."


def _value(cell: Cell | str, kind: str) -> float | None:
    if isinstance(cell, str):
        return None
    if kind == "published":
        return cell.published.number if cell.published else None
    return cell.measured.interval.estimate if cell.measured else None
