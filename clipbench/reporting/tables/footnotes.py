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
    cells = [cell for row in layout.grid for cell in row if isinstance(cell, Cell)]
    own = [cell.measured for cell in cells if cell.measured]
    shares = [one.interval for one in own if one.share and not math.isnan(one.interval.low)]
    if any(one.share for one in own) or any(cell.published for cell in cells):
        yield "In percent."
    yield from (SEEDS for over in ["seeds"] if over in {one.over for one in shares})
    yield from (WILSON for over in ["images"] if over in {one.over for one in shares})
    yield from (CUT for one in shares[:1] if any(_cut(one) for one in shares))
    claimed = [one for found in best.values() for one in found.values() if one.claimed]
    if tests := sorted({test for one in claimed for test in one.tests}):
        yield f"Bold: better than every other row, p < 0.05 by Holm's rule ({', '.join(tests)})."
    yield from _of_these_runs(layout, best)
    if (tried := max((one.tried for one in own), default=1)) > 1:
        yield f"If several settings were run, the best on val is shown: up to {tried} settings."
    if any("(stand-in)" in row for row in layout.rows):
        yield (
            "A stand-in is a tiny model or a drawn dataset, and is not compared with published "
            "numbers."
        )
    yield from _unknown(layout)
    yield from _apart(layout)
    yield from _correlations(layout)
    if any(layout.hours):
        yield f"GPU-hours: for one run each, by operations, on {costs.BASIS}."
        if len({*layout.hours}) > 1 and "alpha" in layout.spec["rows"][0]:
            yield "One run fills the rows of all alphas; the first row has its hours."
    told = dict.fromkeys((c.published.source, c.published.citation) for c in cells if c.published)
    for source, citation in told:
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
    splits = [
        (row, cell.measured.split)
        for row, cells in zip(layout.rows, layout.grid, strict=True)
        for cell in cells
        if isinstance(cell, Cell) and cell.measured and cell.measured.split
    ]
    known = {split.sha256 for _, split in splits if split.content}
    rows = dict.fromkeys(row for row, s in splits if not s.content and s.sha256 in known)
    if rows:
        yield (
            f"Run before the content of images was recorded: {', '.join(rows)}. Their images have "
            "the names and labels of the others', and no test compares them."
        )


def _apart(layout: Layout) -> Iterator[str]:
    """Yield each reason for a missing difference, with its cells."""
    reasons: dict[str, list[str]] = {}
    for row, cells in zip(layout.rows, layout.grid, strict=True):
        for column, cell in zip(layout.columns, cells, strict=True):
            if isinstance(cell, Cell) and (why := cell.why_none()) and not cell.stand_in:
                reasons.setdefault(why, []).append(f"{row}, {column}")
    for why, places in reasons.items():
        yield f"No difference ({'; '.join(places)}): {why}."


def _correlations(layout: Layout) -> Iterator[str]:
    """Yield Spearman's rho of two columns, for the published and for the measured numbers."""
    for first, second in layout.spec.get("correlate", []):
        pair = [layout.column(layout.columns.index(name)) for name in (first, second)]
        for kind in ("published", "measured"):
            points = [
                (_value(one, kind), _value(other, kind)) for one, other in zip(*pair, strict=True)
            ]
            both = [(x, y) for x, y in points if x is not None and y is not None]
            if len(both) > 2:
                found = stats.spearmanr(*zip(*both, strict=True))
                rho, p = float(found.statistic), float(found.pvalue)
                yield (
                    f"Spearman's rho of {first} and {second}, {kind}: {rho:+.2f} "
                    f"(p = {p:.2g}, n = {len(both)})."
                )


def _value(cell: Cell | str, kind: str) -> float | None:
    if isinstance(cell, str):
        return None
    if kind == "published":
        return cell.published.number if cell.published else None
    return cell.measured.interval.estimate if cell.measured else None
