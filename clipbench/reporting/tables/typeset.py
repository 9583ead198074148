"""Tables as Markdown, LaTeX and CSV, safe for any text in their cells."""

import functools
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from clipbench.core import spreadsheet
from clipbench.core.files import write_text


class Bold(str):
    """A cell in bold."""


# pdflatex knows these under other names; OT1 fonts print < > | as other signs.
_TEX = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''"},
    **{"\N{PLUS-MINUS SIGN}": r"$\pm$", "\N{MULTIPLICATION SIGN}": r"$\times$"},
    **{"\N{RIGHTWARDS ARROW}": r"$\to$", "\N{DAGGER}": r"$\dagger$", "\n": " "},
}


@functools.lru_cache(4096)
def markdown(text: str) -> str:
    """Escape a cell's text for GitHub's Markdown."""
    text = re.sub(r"[\\`*|$~]", r"\\\g<0>", " ".join(text.split()))
    text = re.sub(r"&(?=#?\w+;)", "&amp;", text).replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)  # clip_tiny needs none
    return text.replace("](", r"]\(").replace("![", r"!\[")


@functools.lru_cache(4096)
def latex(text: str) -> str:
    """Escape a cell's text for pdflatex; a character without a glyph becomes its code point."""
    found = []
    for sign in text:
        known = _TEX.get(sign)
        plain = sign.isascii() or (sign.isalpha() and ord(sign) < 0x180)  # Latin
        found.append(known or (sign if plain else rf"\texttt{{U+{ord(sign):04X}}}"))
    return "".join(found)


def csv(frame: pd.DataFrame) -> str:
    """Return a frame as CSV, with names and texts made safe for spreadsheets."""
    words = frame.select_dtypes(exclude="number")
    kept = frame.assign(**{str(c): words[c].map(spreadsheet.safe) for c in words})
    return kept.rename(columns=spreadsheet.safe).to_csv(index=False)


def as_markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, with :class:`Bold` cells in bold."""
    body = [[f"**{markdown(c)}**" if isinstance(c, Bold) else markdown(c) for c in r] for r in rows]
    lines = [[markdown(name) for name in header], *body]
    widths = [max(4, *map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, [f":{'-' * (width - 1)}" for width in widths])
    padded = [[c.ljust(w) for c, w in zip(line, widths, strict=True)] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in padded)


def as_latex(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a LaTeX tabular with booktabs' rules, and :class:`Bold` cells in bold."""
    lines = [[latex(name) for name in header]]
    for row in rows:
        lines.append([rf"\textbf{{{latex(c)}}}" if isinstance(c, Bold) else latex(c) for c in row])
    # A row that begins with a bracket would be read as the length of the line before.
    top, *body = [" & ".join(f"{{}}{c}" if c[:1] == "[" else c for c in line) for line in lines]
    begin, end = rf"\begin{{tabular}}{{{'l' * len(header)}}}", r"\end{tabular}"
    rules = [begin, r"\toprule", top + r" \\", r"\midrule"]
    return "\n".join([*rules, *(line + r" \\" for line in body), r"\bottomrule", end, ""])


def write(
    stem: Path, header: Sequence[str], rows: Sequence[Sequence[str]], frame: pd.DataFrame
) -> list[Path]:
    """Write texts as ``stem``.md and .tex, and a frame of numbers as .csv; return the files.

    The stem is a path without suffix whose name may contain dots.
    """
    return write_texts(stem, as_markdown(header, rows), as_latex(header, rows), frame)


def write_texts(stem: Path, of_markdown: str, of_latex: str, frame: pd.DataFrame) -> list[Path]:
    """Write finished texts as ``stem``.md and .tex, and a frame as .csv; return the files."""
    texts = {".md": of_markdown, ".csv": csv(frame), ".tex": of_latex}
    for ending, text in texts.items():
        write_text(stem.with_name(stem.name + ending), text)
    return [stem.with_name(stem.name + ending) for ending in texts]
