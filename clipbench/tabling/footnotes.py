"""The sentences under a table that follow from what stands in it."""

import math
from collections.abc import Iterator, Mapping

from scipy import stats

from clipbench.tabling import costs
from clipbench.tabling.cells import Cell
from clipbench.tabling.layouts import Layout
from clipbench.tabling.references import MARK

Bold = Mapping[int, str]  # places of rows, and the test that says so
SEEDS = "\N{PLUS-MINUS SIGN}: Student's 95 % interval over seeds."
WILSON = "[ ]: Wilson's 95 % interval over pictures, of one seed."


def of(layout: Layout, bold: Mapping[int, Bold]) -> Iterator[str]:
    """What the signs mean, why there is no difference, and whose the published numbers are.

    Args:
        layout: the table.
        bold: of each column the rows that stand in bold, and the test that says so.
    """
    cells = [cell for row in layout.grid for cell in row if isinstance(cell, Cell)]
    own = [cell.measured for cell in cells if cell.measured]
    shares = [one.interval for one in own if one.share and not math.isnan(one.interval.low)]
    if any(one.share for one in own) or any(cell.published for cell in cells):
        yield "In percent."
    yield from (SEEDS for over in ["seeds"] if over in {one.over for one in shares})
    yield from (WILSON for over in ["pictures"] if over in {one.over for one in shares})
    tests = sorted({test for found in bold.values() for test in found.values()})
    if tests:
        yield f"Bold: better than every other row, p < 0.05 by Holm's rule ({', '.join(tests)})."
    if (tried := max((one.tried for one in own), default=1)) > 1:
        yield f"Where several settings were run, the best on val: up to {tried} of them."
    if any("(stand-in)" in row for row in layout.rows):
        yield "A stand-in is a tiny model or a drawn world: no difference from a published number."
    yield from _apart(layout)
    yield from _correlations(layout)
    if any(layout.hours):
        yield f"GPU-hours: of one run each, by operations, of {costs.BASIS}."
    told = dict.fromkeys((c.published.source, c.published.citation) for c in cells if c.published)
    for source, citation in told:
        yield f"Published by {source}: {citation}."
    if any(cell.published and not cell.published.firsthand for cell in cells):
        yield f"{MARK}: read where another work quotes it."


def _apart(layout: Layout) -> Iterator[str]:
    """Why there is no difference, once a reason."""
    reasons: dict[str, list[str]] = {}
    for row, cells in zip(layout.rows, layout.grid, strict=True):
        for column, cell in zip(layout.columns, cells, strict=True):
            if isinstance(cell, Cell) and (why := cell.why_none()) and not cell.stand_in:
                reasons.setdefault(why, []).append(f"{row}, {column}")
    for why, places in reasons.items():
        yield f"No difference ({'; '.join(places)}): {why}."


def _correlations(layout: Layout) -> Iterator[str]:
    """Spearman's rho of two columns' published numbers, and of the measured ones."""
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
