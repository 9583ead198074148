"""The figure of a document's table, drawn from its cells."""

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from clipbench.core import paths
from clipbench.reporting.tables import figures
from clipbench.reporting.tables.cells import Cell
from clipbench.reporting.tables.layouts import STAND_IN, Layout, numbers
from clipbench.results import frames
from clipbench.results.evidence import Evidence

# Okabe and Ito's palette, safe for colour blindness; lines also differ by style and marker.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
Spec = Mapping[str, Any]


def draw(layout: Layout, evidence: Evidence, path: Path) -> bool:
    """Draw the ``figure`` of the table's YAML.

    Args:
        layout: the table.
        evidence: the runs, for their curves.
        path: of the figure.

    Returns:
        Whether there is a figure and something to draw.
    """
    if not (spec := layout.spec.get("figure")):
        return False
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    panels = len(spec["columns"]) if spec["kind"] == "bars" else 1
    size = (1.5 + 4.0 * panels, 4.0) if panels > 1 else (8.2, 4.0)
    figure, axes = plt.subplots(
        1, panels, figsize=size, layout="constrained", squeeze=False, sharey=panels > 1
    )
    drawn = _KINDS[spec["kind"]](list(axes[0]), layout, evidence, spec)
    figure.suptitle(textwrap.fill(_title(layout, spec), 85, break_on_hyphens=False), fontsize=10)
    for panel in axes[0]:
        panel.spines[["top", "right"]].set_visible(False)
    if drawn:
        figures.save(figure, path)
    plt.close(figure)
    return drawn


def _title(layout: Layout, spec: Spec) -> str:
    rows = [layout.rows[i] for i in _chosen(layout, spec)]
    own = [cell for row in layout.grid for cell in row if isinstance(cell, Cell)]
    if all(STAND_IN in row for row in rows):
        return f"{layout.spec['title']}: stand-ins, drawn images"
    return f"{layout.spec['title']}{'' if any(c.measured for c in own) else ': as published'}"


def _value(cell: Cell | str) -> tuple[float, float, float] | None:
    """Return the number, a share in percent, with the interval's lengths below and above."""
    found = numbers(cell)
    if found is None:
        return None
    if isinstance(cell, Cell) and cell.measured:
        one, scale = cell.measured.interval, 100 if cell.measured.share else 1
        low, high = one.estimate - one.low, one.high - one.estimate
        known = not math.isnan(low)
        return scale * one.estimate, scale * low if known else 0, scale * high if known else 0
    number = cell.published.number if isinstance(cell, Cell) and cell.published else None
    return None if number is None else (number, 0, 0)


def _chosen(layout: Layout, spec: Spec) -> list[int]:
    """Return the rows of the figure; those of bars and curves need a number."""
    rows = [i for i, name in enumerate(layout.rows) if spec.get("rows", "") in name]
    if spec["kind"] not in ("bars", "curves"):
        return rows
    places = [layout.columns.index(name) for name in spec.get("columns", layout.columns)]
    return [i for i in rows if any(_value(layout.grid[i][place]) for place in places)]


def _line(panels: Sequence[Any], layout: Layout, evidence: Evidence, spec: Spec) -> bool:
    (panel,), rows = panels, _chosen(layout, spec)
    drawn = False
    for number, name in enumerate(spec["columns"]):
        column = layout.column(layout.columns.index(name))
        found = [(x, _value(column[i])) for x, i in zip(spec["x"], rows, strict=True)]
        points = [(x, *value) for x, value in found if value]
        if not points:
            continue
        where, means, low, high = zip(*points, strict=True)
        line, mark = figures.MARKS[number % len(figures.MARKS)]
        look = {"color": COLORS[number % len(COLORS)], "ls": line, "marker": mark, "ms": 5}
        panel.errorbar(where, means, (low, high), capsize=2, elinewidth=0.8, label=name, **look)
        drawn = True
    if "ticks" in spec:
        panel.set_xticks(spec["x"], spec["ticks"])
    panel.set(xlabel=spec["xlabel"], ylabel="percent")
    _within(panel, layout.column(layout.columns.index(spec["columns"][0])), "y")
    return _told(panel, drawn)


def _told(panel: Any, drawn: bool) -> bool:
    panel.grid(alpha=0.25)
    if drawn:
        panel.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return drawn


def _within(panel: Any, column: Sequence[Cell | str], axis: str) -> None:
    """Limit an axis to 0 to 100 % for shares, whose Student's interval may exceed that."""
    own = [c.measured for c in column if isinstance(c, Cell) and c.measured]
    if all(one.share for one in own):
        low, high = getattr(panel, f"get_{axis}lim")()
        getattr(panel, f"set_{axis}lim")(max(low, 0), min(high, 101))


def _bars(panels: Sequence[Any], layout: Layout, evidence: Evidence, spec: Spec) -> bool:
    drawn = False
    rows = _chosen(layout, spec)
    for number, (panel, name) in enumerate(zip(panels, spec["columns"], strict=True)):
        column = layout.column(layout.columns.index(name))
        found = {row: value for row in rows if (value := _value(column[row]))}
        kept = [row for row in rows if row in found]
        means = [found[row][0] for row in kept]
        ends = [[found[row][side] for row in kept] for side in (1, 2)]
        look = {"color": COLORS[number], "height": 0.6, "error_kw": {"lw": 0.8}}
        spread = {"xerr": ends, "capsize": 2} if any(map(any, ends)) else {}
        panel.barh([rows.index(row) for row in kept], means, **spread, **look)
        for row in kept:
            mean, _, high = found[row]
            inside = mean > 0.15 * max(means)
            at = (0 if inside else mean + high, rows.index(row))
            style = {"va": "center", "fontsize": 8, "color": "white" if inside else "black"}
            panel.annotate(f" {mean:,.3g}", at, **style)
        panel.set_title(name, fontsize=9)
        _within(panel, column, "x")
        drawn = drawn or bool(found)
    names = [textwrap.fill(layout.rows[i].replace(STAND_IN, ""), 26) for i in rows]
    panels[0].set_yticks(range(len(rows)), names, fontsize=8)
    panels[0].invert_yaxis()
    return drawn


def _heat(panels: Sequence[Any], layout: Layout, evidence: Evidence, spec: Spec) -> bool:
    values = [[value[0] if (value := _value(c)) else math.nan for c in row] for row in layout.grid]
    if all(math.isnan(value) for row in values for value in row):
        return False
    (panel,) = panels
    image = panel.imshow(values, cmap="cividis", aspect="auto")
    for y, row in enumerate(values):
        for x, shade in enumerate(row):
            dark = image.norm(shade) < 0.6
            text = "" if math.isnan(shade) else f"{shade:.1f}"
            panel.text(x, y, text, ha="center", va="center", color="white" if dark else "black")
    names = [name.replace(", ", "\n") for name in layout.columns]
    panel.set_xticks(range(len(names)), names, fontsize=8)
    panel.set_yticks(range(len(layout.rows)), [n.replace(STAND_IN, "") for n in layout.rows])
    panel.set_ylabel(layout.spec["row"])
    panel.figure.colorbar(image, ax=panel, label="percent")
    return True


def _scatter(panels: Sequence[Any], layout: Layout, evidence: Evidence, spec: Spec) -> bool:
    (panel,) = panels
    first, second = (layout.column(layout.columns.index(name)) for name in spec["columns"])
    points = [
        (name, x[0], y[0])
        for name, one, other in zip(layout.rows, first, second, strict=True)
        if (x := _value(one)) and (y := _value(other))
    ]
    groups = list(dict.fromkeys(name.split(",")[0] for name, _, _ in points))
    for number, group in enumerate(groups):
        own = [(n, x, y) for n, x, y in points if n.split(",")[0] == group]
        look = {"color": COLORS[number], "marker": figures.MARKS[number % 4][1], "label": group}
        panel.scatter([x for _, x, _ in own], [y for _, _, y in own], **look)
        for name, across, up in own:
            side = {"xytext": (5, 3)} if number else {"xytext": (-5, -8), "ha": "right"}
            style = {"textcoords": "offset points", "fontsize": 7}
            panel.annotate(name.partition(", ")[2], (across, up), **side, **style)
    panel.margins(0.14)
    panel.set(xlabel=f"{spec['columns'][0]}, %", ylabel=f"{spec['columns'][1]}, %")
    return _told(panel, bool(points))


def _curves(panels: Sequence[Any], layout: Layout, evidence: Evidence, spec: Spec) -> bool:
    from matplotlib.ticker import MaxNLocator

    (panel,), drawn = panels, False
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    for number, (row, name) in enumerate(zip(layout.spec["rows"], layout.rows, strict=True)):
        where = {**layout.spec.get("where", {}), **row.get("where", {})}
        rows = evidence.select(where) if where else pd.DataFrame()
        if not any(str(c).startswith("curve/") for c in rows):
            continue
        mean = 100 * frames.curves(rows).mean().dropna()
        line, mark = figures.MARKS[number % len(figures.MARKS)]
        look = {"color": COLORS[number % len(COLORS)], "ls": line, "marker": mark, "ms": 3}
        label = f"{name.replace(STAND_IN, '')}, {len(rows)} seeds"
        panel.plot(mean, label=textwrap.fill(label, 30), **look)
        drawn = True
    if log := spec.get("log"):
        known = pd.read_csv(paths.EXPERIMENTS / "published" / "curves" / f"{log}.csv")
        for column, style in (("ema_acc1", "-"), ("raw_acc1", "--")):
            label = textwrap.fill(f"{log}, {column.split('_')[0]} weights, published", 30)
            panel.plot(known["epoch"] + 1, known[column], color="0.45", ls=style, label=label)
        drawn = True
    panel.set(xlabel="epoch (0: before training)", ylabel="percent")
    return _told(panel, drawn)


_KINDS: dict[str, Callable[[Sequence[Any], Layout, Evidence, Spec], bool]] = {
    "line": _line,
    "bars": _bars,
    "heat": _heat,
    "scatter": _scatter,
    "curves": _curves,
}
