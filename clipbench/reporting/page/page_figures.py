"""Figures as a page holds them: SVG in the text's own colour, on whatever is behind."""

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
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    look: Any = dict.fromkeys(("text.color", "xtick.color", "ytick.color"), _INK)
    look |= dict.fromkeys(("axes.edgecolor", "axes.labelcolor"), _INK)
    with mpl.rc_context(look):
        figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
        axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Any, label: str) -> str:
    """The drawing alone, named for those who do not see it."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    text, about = io.StringIO(), dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context({"svg.hashsalt": label}):
        figure.savefig(text, format="svg", transparent=True, metadata=about)
    plt.close(figure)
    drawing = text.getvalue()[text.getvalue().index("<svg") :]
    drawing = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    # Two drawings on one page must not share ids.
    salt = f"f{zlib.crc32(label.encode()):08x}-"
    drawing = re.sub(r'(?<= id=")|(?<=href="#)|(?<=url\(#)', salt, drawing)
    drawing = re.sub(r' (?:width|height)="[\d.]+pt"', "", drawing, count=2)
    name = html.escape(label, quote=True)
    return drawing.replace("<svg", f'<svg role="img" aria-label="{name}"', 1).replace(
        _INK, "currentColor"
    )


def _legend(axes: Any) -> None:
    legend = axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(0, -0.16))
    for text in legend.get_texts() if legend else ():
        text.set_parse_math(False)
        text.set_color(_INK)


def curves(candidates: Sequence[Candidate], metric: str, label: str) -> str:
    """Val by epoch, as the mean over seeds, epoch 0 included; what took no steps is one line."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = _canvas(4.2, 3.2 + 0.2 * len(candidates))
    models = list(dict.fromkeys(one.model for one in candidates))
    for number, one in enumerate(candidates):
        own = [
            pd.Series(
                {row["epoch"]: row.get(f"val/{metric}") for row in record["curve"]}, dtype=float
            )
            for record in one.records
        ]
        mean = pd.concat(own, axis=1).mean(axis=1).dropna()
        line, mark = figures.MARKS[models.index(one.model) % len(figures.MARKS)]
        # matplotlib takes a label that begins so for none.
        look = {"color": f"C{number}", "ls": line, "label": one.name.lstrip("_")}
        value = one.mean(f"val/{metric}")
        if not one.records[0]["steps"]["total"] and value is not None:
            axes.axhline(value, lw=1.2, **look)
        else:
            axes.plot(mean, marker=mark, ms=3.5, lw=1.5, **look)
    axes.set(xlabel="epoch (0: before training)", ylabel=f"val/{metric}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(axes)
    return _svg(figure, label)


def reliability(said: Mapping[str, pd.DataFrame], label: str) -> str:
    """How often a model is right, by how sure it says it is.

    Args:
        said: by the model's name its predictions, with ``probability``, ``prediction`` and
            ``label``.
        label: of the figure.
    """
    figure, axes = _canvas(4.2, 3.6 + 0.2 * len(said))
    axes.plot([0, 1], [0, 1], color=_INK, lw=0.7, alpha=0.6)
    for number, (name, rows) in enumerate(said.items()):
        right = (rows["prediction"] == rows["label"]).to_numpy()
        place = np.minimum((rows["probability"].to_numpy() * BINS).astype(int), BINS - 1)
        n = np.bincount(place, minlength=BINS)
        kept = n > 0
        sure = np.bincount(place, rows["probability"], BINS)[kept] / n[kept]
        often = np.bincount(place, right, BINS)[kept] / n[kept]
        color, size = ("#2f76c0", "#c8660f")[number % 2], 8 + 120 * n[kept] / n.sum()
        axes.plot(sure, often, lw=1, ls=figures.MARKS[number][0], color=color)
        look = {"marker": "os"[number % 2], "color": color, "label": name.lstrip("_")}
        axes.scatter(sure, often, s=size, **look)
    axes.set(xlabel="probability that it says", ylabel="share that is right")
    axes.set(xlim=(0, 1.03), ylim=(0, 1.03))
    _legend(axes)
    return _svg(figure, label)
