"""A document's table as text: bold cells, differences, and why a difference is missing."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import pandas as pd

from clipbench.core.errors import UserError
from clipbench.metrics.intervals import Interval
from clipbench.reporting.tables import footnotes, significance, typeset
from clipbench.reporting.tables.cells import Cell, Measured, Split
from clipbench.reporting.tables.layouts import Layout
from clipbench.reporting.tables.significance import Best

GPU = "GPU-hours to run it"
Value = str | float | bool | None
Bold = Mapping[int, str]  # the tests of each bold row, by its place
Column = tuple[str, list[str]]  # title and texts


@dataclass(frozen=True)
class Document:
    """A table ready to be written: texts, sentences under it, and its numbers, a row per cell."""

    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str]
    frame: pd.DataFrame

    def markdown(self, figure: str | None) -> str:
        """Return the table in Markdown with its title, notes and figure."""
        notes = "".join(f"- {typeset.markdown(note)}\n" for note in self.notes)
        image = f"\n![{typeset.markdown(self.title)}]({figure})\n" if figure else ""
        table = typeset.as_markdown(self.header, self.rows)
        return f"**{typeset.markdown(self.title)}**\n\n{table}\n{notes}{image}"

    def latex(self) -> str:
        """Return a LaTeX table environment with its caption and notes."""
        notes = "".join(f"{typeset.latex(note)}\\par\n" for note in self.notes)
        head = f"\\begin{{table}}\n\\caption{{{typeset.latex(self.title)}}}\n\\centering\n"
        body = typeset.as_latex(self.header, self.rows)
        return f"{head}{body}\n\\footnotesize\\raggedright\n{notes}\\end{{table}}\n"


def document(layout: Layout) -> Document:
    """Return the texts and the numbers of a layout.

    Raises:
        UserError: if a column has numbers of different images.
    """
    for place, name in enumerate(layout.columns):
        _one_split(layout, place, name)
    best = {place: _best(layout, place) for place in range(len(layout.columns))}
    bold = {
        place: {row: ", ".join(one.tests) for row, one in found.items() if one.claimed}
        for place, found in best.items()
    }
    header, rows = [layout.spec.get("row", "")], [[name] for name in layout.rows]
    columns = [
        column
        for place, name in enumerate(layout.columns)
        for column in _printed(layout, place, name, bold[place])
    ]
    columns += [(title, texts) for title, texts in _about(layout) if any(texts)]
    for title, texts in columns:
        header.append(title)
        for row, text in zip(rows, texts, strict=True):
            row.append(text)
    notes = [*layout.spec.get("notes", []), *footnotes.of(layout, best)]
    return Document(layout.spec["title"], header, rows, notes, _frame(layout, bold))


def _one_split(layout: Layout, place: int, name: str) -> None:
    by_dataset: dict[str, dict[Split, list[str]]] = {}
    for row, cell in zip(layout.rows, layout.column(place), strict=True):
        if isinstance(cell, Cell) and cell.measured and (split := cell.measured.split):
            by_dataset.setdefault(split.dataset, {}).setdefault(split, []).append(row)
    for dataset, splits in by_dataset.items():
        if not all(first.may_be(second) for first, second in combinations(splits, 2)):
            listed = "; ".join(f"{split} in {', '.join(rows)}" for split, rows in splits.items())
            raise UserError(
                f"table {layout.name}, column {name}: rows were measured on different images of "
                f"{dataset} ({listed}). Run them on one split, or give results=frozen or =outputs."
            )


def _best(layout: Layout, place: int) -> dict[int, Best]:
    """Return the best row of each block of rows measured on one split, by its place."""
    blocks: dict[str, list[tuple[int, Measured]]] = {}
    for number, cell in enumerate(layout.column(place)):
        if isinstance(cell, Cell) and cell.measured and (split := cell.measured.split):
            blocks.setdefault(split.sha256, []).append((number, cell.measured))
    by_place: dict[int, Best] = {}
    for block in blocks.values():
        if len({cell.split.content for _, cell in block if cell.split}) > 1:
            continue  # some were made before the images' content was recorded
        best = significance.best([cell for _, cell in block])
        if best and "metric" in layout.spec["columns"][place]:
            by_place[block[best.place][0]] = best
    return by_place


def _printed(layout: Layout, place: int, name: str, bold: Bold) -> Iterator[Column]:
    cells = layout.column(place)
    if all(isinstance(cell, str) for cell in cells):
        yield name, [str(cell) for cell in cells]
        return
    own = [cell if isinstance(cell, Cell) else None for cell in cells]
    published = any(cell and cell.published for cell in own)
    measured = any(cell and cell.measured for cell in own)
    spec = layout.spec["columns"][place]
    wide = "metric" not in spec or layout.spec.get("wide")
    if measured or not (published and wide):
        texts = [_measured(cell.measured) if cell and cell.measured else "" for cell in own]
        shown = [typeset.Bold(t) if i in bold else t for i, t in enumerate(texts)]
        yield f"{name}, measured" if published else name, shown
    if published:
        texts = [cell.published.shown if cell and cell.published else "" for cell in own]
        yield f"{name}, {'of the published' if 'gain' in spec else 'published'}", texts
    differences = [cell.difference() if cell else None for cell in own]
    if any(differences):
        yield f"{name}, difference", [_difference(d) if d else "" for d in differences]


def _measured(measured: Measured) -> str:
    interval = measured.interval
    mean, low, high = interval.estimate, interval.low, interval.high
    if not measured.share:
        return f"{mean:,.4g}" if mean < 1e4 else f"{mean:,.0f}"
    if math.isnan(low):
        return f"{100 * mean:.1f}"
    if interval.over == "seeds" and math.isclose(mean - low, high - mean):
        return f"{100 * mean:.1f} \N{PLUS-MINUS SIGN} {100 * (high - mean):.1f}"
    return f"{100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _difference(gap: Interval) -> str:
    ends = "" if math.isnan(gap.low) else f" [{gap.low:+.1f}, {gap.high:+.1f}]"
    return f"{gap.estimate:+.1f}{ends}"


def _about(layout: Layout) -> Iterator[Column]:
    data, seeds = [], []
    for cells in layout.grid:
        results = [cell.measured for cell in cells if isinstance(cell, Cell) and cell.measured]
        data.append("; ".join(dict.fromkeys(str(r.split) for r in results if r.split)))
        seeds.append(", ".join(dict.fromkeys(str(len(r.by_seed)) for r in results)))
    yield "images", data
    yield "seeds", seeds
    yield GPU, ["" if hours is None else f"{hours:.2g}" for hours in layout.hours]


def _frame(layout: Layout, bold: Mapping[int, Bold]) -> pd.DataFrame:
    rows = []
    for number, (name, cells) in enumerate(zip(layout.rows, layout.grid, strict=True)):
        for place, (column, cell) in enumerate(zip(layout.columns, cells, strict=True)):
            row: dict[str, Value] = {"row": name, "column": column}
            if isinstance(cell, Cell):
                row |= _numbers(cell) | {"bold": bold[place].get(number)}
                row["GPU-hours of the row"] = _rounded(layout.hours[number])
            else:
                row["text"] = cell
            rows.append(row)
    frame = pd.DataFrame(rows).dropna(axis=1, how="all")
    whole = [name for name in ("n", "expected", "seeds") if name in frame]
    return frame.astype(dict.fromkeys(whole, "Int64"))


def _numbers(cell: Cell) -> dict[str, Value]:
    row: dict[str, Value] = {}
    if own := cell.measured:
        scale, one = 100 if own.share else 1, own.interval
        row |= {"measured": scale * one.estimate, "low": scale * one.low, "high": scale * one.high}
        row |= {"over": None if math.isnan(one.low) else one.over, "seeds": len(own.by_seed)}
        if own.split:
            row |= {"split": own.split.name, "n": own.split.n, "expected": own.split.expected}
            row |= {"sha256": own.split.sha256, "content": own.split.content}
    if cell.published:
        row |= {"published": cell.published.text, "firsthand": cell.published.firsthand}
        row |= {"source": cell.published.source, "citation": cell.published.citation}
    if found := cell.difference():
        row |= {"difference": found.estimate, "difference low": found.low}
        row |= {"difference high": found.high}
    row["no difference"] = cell.why_none()
    return {k: _rounded(v) if isinstance(v, float) else v for k, v in row.items()}


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
