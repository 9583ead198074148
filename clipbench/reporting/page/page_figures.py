"""The figures of a page: SVG in the colour of its text, with a transparent background."""

import html
import io
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from clipbench.reporting.page.candidates import Candidate
from clipbench.reporting.tables import figures

_INK = "#010203"  # becomes the colour of the page's text
BINS = 10


def _canvas(width: float, height: float) -> tuple[Any, Any]:
    plt = figures.pyplot()
    names = ("text.color", "xtick.color", "ytick.color", "axes.edgecolor", "axes.labelcolor")
    with plt.rc_context(dict.fromkeys(names, _INK)):
        figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
        figures.open_axes(axes)
    return figure, axes


def _svg(figure: Any, label: str) -> str:
    """Return the figure as an SVG element, with a label for screen readers."""
    plt, text = figures.pyplot(), io.StringIO()
    about = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with plt.rc_context({"svg.hashsalt": label}):
        figure.savefig(text, format="svg", transparent=True, metadata=about)
    plt.close(figure)
    drawing = text.getvalue()[text.getvalue().index("<svg") :]
    drawing = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    # Two figures on one page must not share ids.
    salt = f"f{zlib.crc32(label.encode()):08x}-"
    drawing = re.sub(r'(?<= id=")|(?<=href="#)|(?<=url\(#)', salt, drawing)
    drawing = re.sub(r' (?:width|height)="[\d.]+pt"', "", drawing, count=2)
    element = f'<svg role="img" aria-label="{html.escape(label)}"'
    return drawing.replace("<svg", element, 1).replace(_INK, "currentColor")


def _legend(axes: Any) -> None:
    legend = axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(0, -0.16))
    for text in legend.get_texts() if legend else ():
        text.set_parse_math(False)
        text.set_color(_INK)


def curves(candidates: Sequence[Candidate], metric: str, label: str) -> str:
    """Draw val by epoch as the mean over seeds, epoch 0 included; a run without steps is a line."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = _canvas(4.2, 3.2 + 0.2 * len(candidates))
    models = list(dict.fromkeys(candidate.model for candidate in candidates))
    for number, candidate in enumerate(candidates):
        seeds = [
            pd.Series({row["epoch"]: row.get(f"val/{metric}") for row in record.curve}, dtype=float)
            for record in candidate.records
        ]
        mean = pd.concat(seeds, axis=1).mean(axis=1).dropna()
        line, mark = figures.MARKS[models.index(candidate.model) % len(figures.MARKS)]
        # matplotlib ignores a label that begins with an underscore.
        look = {"color": f"C{number}", "ls": line, "label": candidate.name.lstrip("_")}
        value = candidate.mean(f"val/{metric}")
        if not candidate.records[0].steps.total and value is not None:
            axes.axhline(value, lw=1.2, **look)
        else:
            axes.plot(mean, marker=mark, ms=3.5, lw=1.5, **look)
    axes.set(xlabel="epoch (0: before training)", ylabel=f"val/{metric}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(axes)
    return _svg(figure, label)


def reliability(predictions: Mapping[str, pd.DataFrame], label: str) -> str:
    """Draw how often each model is right, by its probability (a reliability diagram).

    Args:
        predictions: of each model by its name, with ``probability``, ``prediction``, ``label``.
        label: of the figure.
    """
    figure, axes = _canvas(4.2, 3.6 + 0.2 * len(predictions))
    axes.plot([0, 1], [0, 1], color=_INK, lw=0.7, alpha=0.6)
    for number, (name, rows) in enumerate(predictions.items()):
        right = (rows["prediction"] == rows["label"]).to_numpy()
        place = np.minimum((rows["probability"].to_numpy() * BINS).astype(int), BINS - 1)
        filled, n = np.unique(place, return_counts=True)
        confidence = np.bincount(place, rows["probability"])[filled] / n
        accuracy = np.bincount(place, right)[filled] / n
        color, size = ("#2f76c0", "#c8660f")[number % 2], 8 + 120 * n / n.sum()
        axes.plot(confidence, accuracy, lw=1, ls=figures.MARKS[number][0], color=color)
        look = {"marker": "os"[number % 2], "color": color, "label": name.lstrip("_")}
        axes.scatter(confidence, accuracy, s=size, **look)
    axes.set(xlabel="predicted probability", ylabel="share that is right")
    axes.set(xlim=(0, 1.03), ylim=(0, 1.03))
    _legend(axes)
    return _svg(figure, label)
