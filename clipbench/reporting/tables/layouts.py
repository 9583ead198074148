"""The documents' tables, as ``experiments/table/*.yaml`` describes them: rows, columns, cells."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from clipbench.core.errors import UserError
from clipbench.metrics.intervals import over_seeds
from clipbench.reporting.tables import costs, published
from clipbench.reporting.tables.cells import Cell, Measured, measure
from clipbench.reporting.tables.published import Published
from clipbench.results import frames
from clipbench.results.evidence import Evidence, Where

_KEYS = {
    "title",
    "row",
    "where",
    "published",
    "split_is",
    "run",
    "wide",
    "rows",
    "columns",
    "notes",
}
_KEYS |= {"notes", "figure", "correlate"}
_ROW = {"name", "where", "published", "split_is", "given", "run", "alpha", "rival"}
_COLUMN = {"name", "where", "published", "split_is", "metric", "given", "images", "gain"}
_COLUMN |= {"reaches", "divide"}
STAND_IN = " (stand-in)"


@dataclass(frozen=True)
class Layout:
    """A table with its cells.

    Attributes:
        name: of its files.
        spec: the YAML.
        rows: their names.
        columns: their names.
        grid: the cells of each row: measured and published, or text.
        hours: GPU-hours that would fill each row's empty cells; None if that is not known.
    """

    name: str
    spec: Mapping[str, Any]
    rows: list[str]
    columns: list[str]
    grid: list[list[Cell | str]]
    hours: list[float | None]

    def column(self, place: int) -> list[Cell | str]:
        """Return the cells of a column, from top to bottom."""
        return [row[place] for row in self.grid]


def read(path: Path) -> dict[str, Any]:
    """Return the YAML of a table.

    Raises:
        UserError: for an unknown key.
    """
    spec: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    parts = [(spec, _KEYS), *((row, _ROW) for row in spec["rows"])]
    for part, known in [*parts, *((column, _COLUMN) for column in spec["columns"])]:
        if unknown := set(part) - known:
            raise UserError(
                f"{path.name}: no key {', '.join(unknown)}. There are {', '.join(known)}."
            )
    return dict(spec)


def fill(name: str, spec: Mapping[str, Any], evidence: Evidence) -> Layout:
    """Return a table with its cells.

    Args:
        name: of the table.
        spec: from :func:`read`.
        evidence: the available runs.

    Raises:
        UserError: if a selection is ambiguous.
    """
    grid, hours = [], []
    counted: set[str] = set()
    for row in spec["rows"]:
        cells: list[Cell | str] = []
        for column in spec["columns"]:
            cells.append(_cell(spec, row, column, cells, evidence))
        grid.append(cells)
        hours.append(_hours(spec, row, evidence, counted))
    rows = [
        f"{row['name']}{STAND_IN if _stands_in(_merged(spec, row, {}, 'where')) else ''}"
        for row in spec["rows"]
    ]
    return Layout(name, spec, rows, [c["name"] for c in spec["columns"]], grid, hours)


def _merged(spec: Any, row: Any, column: Any, key: str) -> dict[str, Any]:
    return {**spec.get(key, {}), **column.get(key, {}), **row.get(key, {})}


def _hours(spec: Any, row: Any, evidence: Evidence, counted: set[str]) -> float | None:
    """Return the GPU-hours of a row's missing runs, without those that a row above has.

    Args:
        spec: of the table.
        row: of it.
        evidence: the available runs.
        counted: selections of runs in the rows above; this row's are added.
    """
    known = []
    for column in spec["columns"]:
        where = _merged(spec, row, column, "where")
        wanted = [where] if "metric" in column or "reaches" in column else []
        wanted += [{**where, **row["rival"]}] if "reaches" in column else []
        for runs in wanted:
            if "model" not in runs or str(runs) in counted or not evidence.select(runs).empty:
                continue
            counted.add(str(runs))
            known.append(costs.of_cell({**_merged(spec, row, column, "run"), **runs}))
    hours = [value for value in known if value is not None]
    return sum(hours) if hours else None


def _stands_in(where: Where) -> bool:
    return str(where.get("model")).endswith("_tiny") or where.get("dataset") == "shapes"


def _cell(
    spec: Any, row: Any, column: Any, before: list[Cell | str], evidence: Evidence
) -> Cell | str:
    where = _merged(spec, row, column, "where")
    if "given" in column:
        return str(row.get("given", {}).get(column["given"], ""))
    if "images" in column:
        return _images(where, column["images"])
    if "gain" in column:
        names = [c["name"] for c in spec["columns"]]
        first, second = (before[names.index(name)] for name in column["gain"])
        return _gain(first, second) if isinstance(first, Cell) and isinstance(second, Cell) else ""
    if "reaches" in column:
        return _reaches(evidence, where, {**where, **row["rival"]})
    metric = column.get("metric")
    if metric and "alpha" in row:
        metric = f"{metric}@alpha={row['alpha']}"
    wanted = _merged(spec, row, column, "published")
    both = "published" in row and "published" in column
    split_is = row.get("split_is", column.get("split_is", spec.get("split_is")))
    measured = measure(evidence, where, metric) if where and metric else None
    if measured and "divide" in column:  # bytes as GB
        scaled = measured.interval.estimate / column["divide"]
        measured = replace(measured, interval=replace(measured.interval, estimate=scaled))
    return Cell(
        measured,
        published.find(wanted) if both else None,
        None if split_is == "unknown" else split_is,
        _stands_in(where),
    )


def _images(where: Where, split: str) -> str:
    dataset, scheme = str(where["dataset"]), str(where.get("scheme") or "")
    whole = split == "classes"
    n = published.classes(dataset) if whole else published.images(dataset, split, scheme)
    return "" if n is None else f"{n:,}"


def _gain(before: Cell, after: Cell) -> Cell:
    """Return the gain of the second over the first in percent, if both are of one split."""
    measured = None
    if (one := before.measured) and (other := after.measured) and one.split == other.split:
        seeds = sorted(one.by_seed.keys() & other.by_seed.keys())
        by_seed = {s: other.by_seed[s] / one.by_seed[s] - 1 for s in seeds if one.by_seed[s]}
        if by_seed:
            interval = over_seeds([*by_seed.values()])
            measured = replace(other, interval=interval, by_seed=by_seed, tried=1)
    published = None
    if before.published and after.published and before.split_is == after.split_is is not None:
        first, second = before.published.number, after.published.number
        if first and second:
            text = f"{100 * (second / first - 1):.1f}"
            published = replace(after.published, text=text)
    return Cell(measured, published, None, stand_in=True)


def _reaches(evidence: Evidence, where: Where, rival: Where) -> str:
    """Return the first epoch at which a mean curve reaches the best of its rival's."""
    lines = []
    for selection in (where, rival):
        rows = evidence.select(selection)
        if not any(str(c).startswith("curve/") for c in rows):
            return ""
        if len(frames.seedless(rows)):
            raise UserError(f"{dict(selection)} selects runs of several settings. Name one.")
        lines.append(frames.curves(rows).mean())
    reached = lines[0][lines[0] >= lines[1].max()]
    own, other = (int(line.dropna().index.max()) for line in lines)
    if math.isnan(lines[1].max()):
        return ""
    first = f"{int(reached.index[0])} of {own}" if len(reached) else f"not in {own}"
    return f"{first}; the other's best at {int(np.nanargmax(lines[1]))} of {other}"


def numbers(cell: Cell | str) -> Measured | Published | None:
    """Return the number of a cell to draw: the measured one, else the published one."""
    return None if isinstance(cell, str) else cell.measured or cell.published
