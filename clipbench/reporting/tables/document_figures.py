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
from clipbench.reporting.tables.layouts import STAND_IN, Layout
from clipbench.results import frames
from clipbench.results.evidence import Evidence

# Okabe and Ito's palette, safe for colour blindness; lines also differ by style and marker.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
Spec = Mapping[str, Any]


def draw(layout: Layout, evidence: Evidence, path: Path) -> bool:
    """Draw the ``figure`` of a table's YAML, if it has one and there is something to draw.

    Args:
        layout: the table.
        evidence: the runs, for their curves.
        path: of the figure.

    Returns:
        Whether the figure was drawn.
    """
    if not (spec := layout.spec.get("figure")):
        return False
    plt, panels = figures.pyplot(), len(spec["columns"]) if spec["kind"] == "bars" else 1
    size = (1.5 + 4.0 * panels, 4.0) if panels > 1 else (8.2, 4.0)
    look = {"figsize": size, "layout": "constrained", "sharey": panels > 1}
    figure, axes = plt.subplots(1, panels, squeeze=False, **look)
    drawn = _KINDS[spec["kind"]](list(axes[0]), layout, evidence, spec)
    figure.suptitle(textwrap.fill(_title(layout, spec), 85, break_on_hyphens=False), fontsize=10)
    for panel in axes[0]:
        figures.open_axes(panel, grid=False)
    if drawn:
        figures.save(figure, path)
    plt.close(figure)
    return drawn


def _title(layout: Layout, spec: Spec) -> str:
    measured = any(cell.measured for *_, cell in layout.cells())
    if all(STAND_IN in layout.rows[i] for i in _chosen(layout, spec)):
        return f"{layout.spec['title']}: stand-ins, drawn images"
    return f"{layout.spec['title']}{'' if measured else ': as published'}"


def _value(cell: Cell | str) -> tuple[float, float, float] | None:
    """Return the number, a share in percent, with the interval's lengths below and above."""
    if isinstance(cell, str):
        return None
    if cell.measured:
        interval, scale = cell.measured.interval, 100 if cell.measured.share else 1
        if math.isnan(interval.low):
            return scale * interval.estimate, 0, 0
        low, high = interval.estimate - interval.low, interval.high - interval.estimate
        return scale * interval.estimate, scale * low, scale * high
    number = cell.published.number if cell.published else None
    return None if number is None else (number, 0, 0)


def _chosen(layout: Layout, spec: Spec) -> list[int]:
    """Return the rows of the figure; those of bars and curves need a number."""
    rows = [i for i, name in enumerate(layout.rows) if spec.get("rows", "") in name]
    if spec["kind"] not in ("bars", "curves"):
        return rows
    places = [layout.columns.index(name) for name in spec.get("columns", layout.columns)]
    return [i for i in rows if any(_value(layout.grid[i][place]) for place in places)]


def _style(number: int, size: float) -> dict[str, Any]:
    line, mark = figures.MARKS[number % len(figures.MARKS)]
    return {"color": COLORS[number % len(COLORS)], "ls": line, "marker": mark, "ms": size}


def _line(panels: Sequence[Any], layout: Layout, evidence: Evidence, spec: Spec) -> bool:
    (panel,), rows = panels, _chosen(layout, spec)
    drawn = False
    for number, name in enumerate(spec["columns"]):
        column = layout.column(name)
        values = [(x, _value(column[i])) for x, i in zip(spec["x"], rows, strict=True)]
        if points := [(x, *value) for x, value in values if value]:
            x, means, low, high = zip(*points, strict=True)
            look = {"capsize": 2, "elinewidth": 0.8, "label": name, **_style(number, 5)}
            panel.errorbar(x, means, (low, high), **look)
            drawn = True
    if "ticks" in spec:
        panel.set_xticks(spec["x"], spec["ticks"])
    panel.set(xlabel=spec["xlabel"], ylabel="percent")
    _within(panel, layout.column(spec["columns"][0]), "y")
    return _legend(panel, drawn)


def _legend(panel: Any, drawn: bool) -> bool:
    panel.grid(alpha=0.25)
    if drawn:
        panel.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return drawn


def _within(panel: Any, column: Sequence[Cell | str], axis: str) -> None:
    """Limit an axis to 0 to 100 % for shares, whose Student's interval may exceed that."""
    if all(c.measured.share for c in column if isinstance(c, Cell) and c.measured):
        low, high = getattr(panel, f"get_{axis}lim")()
        getattr(panel, f"set_{axis}lim")(max(low, 0), min(high, 101))


def _bars(panels: Sequence[Any], layout: Layout, evidence: Evidence, spec: Spec) -> bool:
    drawn, rows = False, _chosen(layout, spec)
    for number, (panel, name) in enumerate(zip(panels, spec["columns"], strict=True)):
        column = layout.column(name)
        values = {y: value for y, row in enumerate(rows) if (value := _value(column[row]))}
        means, low, high = ([value[i] for value in values.values()] for i in range(3))
        look = {"color": COLORS[number], "height": 0.6, "error_kw": {"lw": 0.8}}
        spread = {"xerr": [low, high], "capsize": 2} if any(low) or any(high) else {}
        panel.barh([*values], means, **spread, **look)
        for y, (mean, _, above) in values.items():
            inside = mean > 0.15 * max(means)
            style = {"va": "center", "fontsize": 8, "color": "white" if inside else "black"}
            panel.annotate(f" {mean:,.3g}", (0 if inside else mean + above, y), **style)
        panel.set_title(name, fontsize=9)
        _within(panel, column, "x")
        drawn = drawn or bool(values)
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
            color = "white" if image.norm(shade) < 0.6 else "black"
            text = "" if math.isnan(shade) else f"{shade:.1f}"
            panel.text(x, y, text, ha="center", va="center", color=color)
    names = [name.replace(", ", "\n") for name in layout.columns]
    panel.set_xticks(range(len(names)), names, fontsize=8)
    panel.set_yticks(range(len(layout.rows)), [n.replace(STAND_IN, "") for n in layout.rows])
    panel.set_ylabel(layout.spec["row"])
    panel.figure.colorbar(image, ax=panel, label="percent")
    return True


def _scatter(panels: Sequence[Any], layout: Layout, evidence: Evidence, spec: Spec) -> bool:
    (panel,), groups = panels, dict[str, list[tuple[str, float, float]]]()
    columns = [map(_value, layout.column(name)) for name in spec["columns"]]
    for name, x, y in zip(layout.rows, *columns, strict=True):
        if x and y:
            group, _, rest = name.partition(",")
            groups.setdefault(group, []).append((rest.removeprefix(" "), x[0], y[0]))
    for number, (group, points) in enumerate(groups.items()):
        look = {"color": COLORS[number], "marker": figures.MARKS[number % 4][1], "label": group}
        panel.scatter([x for _, x, _ in points], [y for *_, y in points], **look)
        side = {"xytext": (5, 3)} if number else {"xytext": (-5, -8), "ha": "right"}
        for name, x, y in points:
            panel.annotate(name, (x, y), **side, textcoords="offset points", fontsize=7)
    panel.margins(0.14)
    panel.set(xlabel=f"{spec['columns'][0]}, %", ylabel=f"{spec['columns'][1]}, %")
    return _legend(panel, bool(groups))


def _curves(panels: Sequence[Any], layout: Layout, evidence: Evidence, spec: Spec) -> bool:
    from matplotlib.ticker import MaxNLocator

    (panel,), drawn = panels, False
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    for number, (row, name) in enumerate(zip(layout.spec["rows"], layout.rows, strict=True)):
        where = {**layout.spec.get("where", {}), **row.get("where", {})}
        rows = evidence.select(where) if where else pd.DataFrame()
        if any(str(c).startswith("curve/") for c in rows):
            mean = 100 * frames.curves(rows).mean().dropna()
            label = f"{name.replace(STAND_IN, '')}, {len(rows)} seeds"
            panel.plot(mean, label=textwrap.fill(label, 30), **_style(number, 3))
            drawn = True
    if log := spec.get("log"):
        curve = pd.read_csv(paths.EXPERIMENTS / "published" / "curves" / f"{log}.csv")
        for column, style in (("ema_acc1", "-"), ("raw_acc1", "--")):
            label = textwrap.fill(f"{log}, {column.split('_')[0]} weights, published", 30)
            panel.plot(curve["epoch"] + 1, curve[column], color="0.45", ls=style, label=label)
        drawn = True
    panel.set(xlabel="epoch (0: before training)", ylabel="percent")
    return _legend(panel, drawn)


_KINDS: dict[str, Callable[[Sequence[Any], Layout, Evidence, Spec], bool]] = {
    "line": _line,
    "bars": _bars,
    "heat": _heat,
    "scatter": _scatter,
    "curves": _curves,
}
