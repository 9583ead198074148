"""Draw the rooms of clipbench and who imports whom: ``python -m tests.house`` writes the SVG."""

import re
import tomllib
from pathlib import Path

import grimp
import networkx as nx

from clipbench.core import paths

FILE = paths.ROOT / "docs" / "house.svg"
WIDTH, BOX, HEIGHT, STEP = 960, (250, 52), 34, 96
NOTE = "An import is not drawn where it also follows from a chain of arrows."


def floors():
    """Return the layers that pyproject.toml declares, from the top; the commands are one box."""
    contracts = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = [layer.split(" | ") for layer in contracts["contracts"][0]["layers"]]
    return [["commands"], *layers[1:]], layers[0]


def imports(commands):
    """Return the graph of rooms, an edge from each to those that it imports."""
    graph, rooms = grimp.build_graph("clipbench", cache_dir=None), nx.DiGraph()
    for module in sorted(graph.modules - {"clipbench"}):
        for imported in sorted(graph.find_modules_directly_imported_by(module) - {"clipbench"}):
            ends = [name.split(".")[1] for name in (module, imported)]
            start, end = ("commands" if name in commands else name for name in ends)
            if start != end:
                rooms.add_edge(start, end)
    return rooms


def purpose(room):
    """Return the start of the sentence in which a room says what it is for."""
    if room == "commands":
        return "clipbench/*.py: parse, call, print"
    text = (paths.PACKAGE / room / "__init__.py").read_text().split('"""')[1]
    return re.split(r"[:;,]|\.$", text)[0].strip()


def place(floor, number):
    """Return the middle of a box: rooms of one floor are side by side."""
    y = HEIGHT + floor[0] * STEP
    return WIDTH / 2 + 300 * (number - (floor[1] - 1) / 2), y


def arrow(start, end, floors_down, number):
    """Return the path of an arrow: straight to the next floor, else around the boxes between."""
    (x, y), (u, v) = start, end
    if floors_down == 1:
        return f"M{x:g} {y + 26:g}C{x:g} {y + 60:g} {u:g} {v - 60:g} {u:g} {v - 27:g}"
    middle = WIDTH / 2
    right = x + u > 2 * middle or (x + u == 2 * middle and number % 2)
    sign = 1 if right else -1
    lane = middle + sign * (340 + 38 * floors_down)
    x, u = x + sign * BOX[0] / 2, u + sign * (BOX[0] / 2 + 1)
    return f"M{x:g} {y + 8:g}C{lane:g} {y + 8:g} {lane:g} {v - 8:g} {u:g} {v - 8:g}"


def draw():
    """Return the picture as SVG."""
    rows, commands = floors()
    at = {
        room: place((level, len(row)), number)
        for level, row in enumerate(rows)
        for number, room in enumerate(row)
    }
    level = {room: n for n, row in enumerate(rows) for room in row}
    height = HEIGHT + len(rows) * STEP
    svg = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" font-family="sans-serif" text-anchor="middle">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
        'markerHeight="8" orient="auto"><path d="M0 0L8 4L0 8z" fill="#456"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
    ]
    edges = sorted(nx.transitive_reduction(imports(commands)).edges)
    svg += [
        f'<path d="{arrow(at[start], at[end], level[end] - level[start], number)}" fill="none" '
        'stroke="#456" marker-end="url(#tip)"/>'
        for number, (start, end) in enumerate(edges)
    ]
    for room, (x, y) in at.items():
        left, top = x - BOX[0] / 2, y - BOX[1] / 2
        svg += [
            f'<rect x="{left:g}" y="{top:g}" width="{BOX[0]}" height="{BOX[1]}" rx="6" '
            'fill="#eef3f8" stroke="#456"/>',
            f'<text x="{x:g}" y="{y - 4:g}" font-size="16" font-weight="bold">{room}</text>',
            f'<text x="{x:g}" y="{y + 15:g}" font-size="12">{purpose(room)}</text>',
        ]
    svg.append(f'<text x="{WIDTH / 2:g}" y="{height - 14}" font-size="12">{NOTE}</text>')
    return "\n".join([*svg, "</svg>", ""])


def main(file: Path = FILE):
    """Write the picture."""
    file.write_text(draw())


if __name__ == "__main__":
    main()
