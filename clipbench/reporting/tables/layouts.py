"""The documents' tables, as ``experiments/table/*.yaml`` describes them: rows, columns, cells."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from clipbench.core.errors import UserError
from clipbench.metrics.intervals import over_seeds
from clipbench.reporting.tables import costs, published
from clipbench.reporting.tables.cells import Cell, measure
from clipbench.results import frames
from clipbench.results.evidence import Evidence, Where

_KEYS = {"title", "row", "where", "published", "split_is", "run", "wide", "rows", "columns"}
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

    def column(self, which: int | str) -> list[Cell | str]:
        """Return the cells of a column, by its place or its name, from top to bottom."""
        place = self.columns.index(which) if isinstance(which, str) else which
        return [row[place] for row in self.grid]

    def cells(self) -> Iterator[tuple[str, str, Cell]]:
        """Yield every cell that is not text, with the names of its row and its column."""
        for row, cells in zip(self.rows, self.grid, strict=True):
            for column, cell in zip(self.columns, cells, strict=True):
                if isinstance(cell, Cell):
                    yield row, column, cell


def read(path: Path) -> dict[str, Any]:
    """Return the YAML of a table.

    Raises:
        UserError: for an unknown key.
    """
    spec: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    for parts, keys in (([spec], _KEYS), (spec["rows"], _ROW), (spec["columns"], _COLUMN)):
        if unknown := {key for part in parts for key in part} - keys:
            names = ", ".join(sorted(unknown))
            raise UserError(f"{path.name}: no key {names}. Choose from {', '.join(sorted(keys))}.")
    return dict(spec)


def fill(name: str, spec: Mapping[str, Any], evidence: Evidence) -> Layout:
    """Return the table of a ``spec`` from :func:`read` with its cells.

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
    stand_ins = [_stands_in(_merged(spec, row, {}, "where")) for row in spec["rows"]]
    rows = [
        f"{row['name']}{STAND_IN if stand_in else ''}"
        for row, stand_in in zip(spec["rows"], stand_ins, strict=True)
    ]
    return Layout(name, spec, rows, [c["name"] for c in spec["columns"]], grid, hours)


def _merged(spec: Any, row: Any, column: Any, key: str) -> dict[str, Any]:
    return {**spec.get(key, {}), **column.get(key, {}), **row.get(key, {})}


def _hours(spec: Any, row: Any, evidence: Evidence, counted: set[str]) -> float | None:
    """Return the GPU-hours of a row's missing runs, without those that a row above has.

    ``counted`` has the selections of runs in the rows above; this row's are added.
    """
    hours = []
    for column in spec["columns"]:
        where = _merged(spec, row, column, "where")
        selections = [where] if "metric" in column or "reaches" in column else []
        selections += [{**where, **row["rival"]}] if "reaches" in column else []
        for runs in selections:
            if "model" not in runs or str(runs) in counted or not evidence.select(runs).empty:
                continue
            counted.add(str(runs))
            cost = costs.of_cell({**_merged(spec, row, column, "run"), **runs})
            hours += [] if cost is None else [cost]
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
    number = None
    if "published" in row and "published" in column:
        number = published.find(_merged(spec, row, column, "published"))
    split_is = row.get("split_is", column.get("split_is", spec.get("split_is")))
    measured = measure(evidence, where, metric) if where and metric else None
    if measured and "divide" in column:  # bytes as GB
        scaled = measured.interval.estimate / column["divide"]
        measured = replace(measured, interval=replace(measured.interval, estimate=scaled))
    return Cell(measured, number, None if split_is == "unknown" else split_is, _stands_in(where))


def _images(where: Where, split: str) -> str:
    dataset, scheme = str(where["dataset"]), str(where.get("scheme") or "")
    classes = split == "classes"
    n = published.classes(dataset) if classes else published.images(dataset, split, scheme)
    return "" if n is None else f"{n:,}"


def _gain(before: Cell, after: Cell) -> Cell:
    """Return the gain of the second over the first in percent, if both are of one split."""
    measured = published = None
    if (old := before.measured) and (new := after.measured) and old.split == new.split:
        seeds = sorted(old.by_seed.keys() & new.by_seed.keys())
        by_seed = {s: new.by_seed[s] / old.by_seed[s] - 1 for s in seeds if old.by_seed[s]}
        if by_seed:
            interval = over_seeds([*by_seed.values()])
            measured = replace(new, interval=interval, by_seed=by_seed, tried=1)
    if before.published and after.published and before.split_is == after.split_is is not None:
        first, second = before.published.number, after.published.number
        if first and second:
            published = replace(after.published, text=f"{100 * (second / first - 1):.1f}")
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
    epochs, rivals = (int(line.dropna().index.max()) for line in lines)
    if math.isnan(lines[1].max()):
        return ""
    first = f"{int(reached.index[0])} of {epochs}" if len(reached) else f"not in {epochs}"
    return f"{first}; the other's best at {int(np.nanargmax(lines[1]))} of {rivals}"
