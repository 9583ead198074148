"""Retrieval before and after training: one page of example queries, chosen by a fixed rule."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path
from string import Template

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clipbench.core import files, paths
from clipbench.loading.split import Split
from clipbench.metrics import retrieval
from clipbench.reporting.contact_sheet import square

FEW, SOME = 3, 4  # queries that gained or lost most, and queries drawn at random
SHOWN = 5  # best answers that are shown
SIDE = 144  # pixels of an image on the page
RULE = (
    f"Shown are the {FEW} queries whose rank improved by the largest factor, the {FEW} whose rank "
    f"worsened by the largest, and {SOME} of the rest drawn by the run's seed, with at most one "
    "caption per image. Nothing is chosen by eye."
)


@dataclass(frozen=True)
class Embedded:
    """A split's features by one state of a model, and the ranks that follow.

    Attributes:
        image: (n, D) normalised features of the images, in the split's order.
        text: (m, D) normalised features of the captions, image by image.
        owner: (m,) the image of each caption.
        ranks: of all queries.
    """

    image: Tensor
    text: Tensor
    owner: Tensor
    ranks: retrieval.Ranks

    @classmethod
    def of(cls, split: Split, image: Tensor, text: Tensor) -> "Embedded":
        """Build from the normalised features of a split."""
        counts = torch.tensor([len(captions) for captions in split.captions or ()])
        owner = torch.arange(len(counts)).repeat_interleave(counts)
        return cls(image, text, owner, retrieval.ranks(image, text, owner))

    def best_images(self, caption: int) -> list[tuple[int, float]]:
        """Return the best images for a caption, with their cosines."""
        return _best(self.image @ self.text[caption])

    def best_captions(self, image: int) -> list[tuple[int, float]]:
        """Return the best captions for an image, with their cosines."""
        return _best(self.text @ self.image[image])


def _best(scores: Tensor) -> list[tuple[int, float]]:
    order = scores.argsort(descending=True, stable=True)[:SHOWN].tolist()
    return [(i, float(scores[i])) for i in order]


def write(
    path: Path,
    split: Split,
    before: tuple[Tensor, Tensor],
    after: tuple[Tensor, Tensor],
    *,
    seed: int = 0,
    title: str = "Retrieval, before and after",
) -> None:
    """Write a page that needs no other file.

    Args:
        path: of the page.
        split: the images and captions that are shown.
        before: normalised features before training, of the images (n, D) and of all captions
            (m, D), in the split's order.
        after: the same after training.
        seed: of what is drawn at random.
        title: of the page.

    Raises:
        UserError: if an image of the split can no longer be read.
        ValueError: if the split has no captions, or not as many as there are features.
    """
    if split.captions is None:
        raise ValueError("a split without captions has no retrieval to show")
    first, last = (Embedded.of(split, image.cpu(), text.cpu()) for image, text in (before, after))
    page = Page(split, first, last)
    body = "".join(
        [
            f"<h1>{escape(title)}</h1>",
            page.summary(),
            f"<p>{escape(RULE)} A frame marks what belongs to the query.</p>",
            "<h2>From a text to its image</h2>",
            *page.texts(seed),
            "<h2>From an image to its captions</h2>",
            *page.images(seed),
        ]
    )
    frame = Template((paths.ASSETS / "examples.html").read_text(encoding="utf-8"))
    files.write_text(path, frame.substitute(title=escape(title), body=body))


def chosen(before: Tensor, after: Tensor, group: Tensor, seed: int) -> Iterator[tuple[str, int]]:
    """Yield the queries that :data:`RULE` chooses, each with the reason.

    Args:
        before: (q,) ranks before training.
        after: (q,) ranks after training.
        group: (q,) at most one query of a group is taken.
        seed: of the queries drawn at random.
    """
    factor = (before.double() / after.double()).numpy()
    drawn = np.random.default_rng([seed, len(factor)]).permutation(len(factor))
    orders = (
        ("gained most", FEW, [i for i in np.argsort(-factor, kind="stable") if factor[i] > 1]),
        ("lost most", FEW, [i for i in np.argsort(factor, kind="stable") if factor[i] < 1]),
        ("drawn at random", SOME, drawn.tolist()),
    )
    taken: set[int] = set()
    for why, count, order in orders:
        left = count
        for query in map(int, order):
            if left and int(group[query]) not in taken:
                taken.add(int(group[query]))
                left -= 1
                yield why, query


@dataclass(frozen=True)
class Page:
    """The parts of the page.

    Attributes:
        split: what is shown.
        before: its features before training.
        after: its features after training.
    """

    split: Split
    before: Embedded
    after: Embedded

    @property
    def _states(self) -> tuple[tuple[str, Embedded], tuple[str, Embedded]]:
        return ("before", self.before), ("after", self.after)

    def summary(self) -> str:
        """Return the metrics of all queries, so that nobody takes the examples for the result."""
        first, last = self.before.ranks.metrics(), self.after.ranks.metrics()
        rows = "".join(
            f"<tr><th>{name}</th><td>{_cell(name, first)}</td><td>{_cell(name, last)}</td></tr>"
            for name in first
        )
        old, new = self.before.ranks, self.after.ranks
        changes = [
            f"Of {len(now):,} {what} {int((now < was).sum()):,} rank better than before, "
            f"{int((now > was).sum()):,} worse."
            for what, was, now in (
                ("captions", old.image, new.image),
                ("images", old.text, new.text),
            )
        ]
        head = "<tr><th>all queries</th><th>before</th><th>after</th></tr>"
        return f"<table>{head}{rows}</table><p>{' '.join(changes)}</p>"

    def texts(self, seed: int) -> Iterator[str]:
        """Yield a section for each caption that is shown."""
        captions = [caption for of_image in self.split.captions or () for caption in of_image]
        ranks, owner = (self.before.ranks.image, self.after.ranks.image), self.after.owner
        for why, query in chosen(*ranks, owner, seed):
            true = int(owner[query])
            rows = []
            for state, model in self._states:
                answers = model.best_images(query)
                shown = [self._figure(i, f"{score:.3f}", i == true) for i, score in answers]
                if true not in [i for i, _ in answers]:
                    score = float(model.image[true] @ model.text[query])
                    shown.append(self._figure(true, f"its own: {score:.3f}", True))
                rows.append(_row(state, int(model.ranks.image[query]), len(model.image), shown))
            yield _section(why, f"<q>{escape(captions[query])}</q>", rows)

    def images(self, seed: int) -> Iterator[str]:
        """Yield a section for each image that is shown."""
        captions = [caption for of_image in self.split.captions or () for caption in of_image]
        ranks = self.before.ranks.text, self.after.ranks.text
        for why, query in chosen(*ranks, torch.arange(len(self.split)), seed):
            rows = []
            for state, model in self._states:
                answers = [
                    (i, score, int(model.owner[i]) == query)
                    for i, score in model.best_captions(query)
                ]
                items = "".join(
                    f"<li{' class=true' if true else ''}>{escape(captions[i])} "
                    f"<small>{score:.3f}</small></li>"
                    for i, score, true in answers
                )
                rank, of = int(model.ranks.text[query]), len(model.text)
                rows.append(_row(state, rank, of, [f"<ol>{items}</ol>"], "list"))
            true = "".join(f"<li>{escape(t)}</li>" for t in (self.split.captions or ())[query])
            true = f"<details><summary>its own captions</summary><ul>{true}</ul></details>"
            yield _section(why, self._figure(query, self.split.ids[query], False) + true, rows)

    def _figure(self, index: int, below: str, true: bool) -> str:
        source = thumbnail(self.split.image(index))
        name = escape(self.split.ids[index])
        return (
            f"<figure{' class=true' if true else ''}><img src='{source}' alt='{name}' "
            f"title='{name}'><figcaption>{escape(below)}</figcaption></figure>"
        )


def _cell(name: str, values: Mapping[str, float]) -> str:
    return f"{values[name]:.4f}" if "recall" in name else f"{values[name]:g}"


def _row(state: str, rank: int, of: int, shown: Sequence[str], kind: str = "row") -> str:
    head = f"<p class=state>{state}: rank {rank:,} of {of:,}</p>"
    return f"{head}<div class={kind}>{''.join(shown)}</div>"


def _section(why: str, query: str, rows: Sequence[str]) -> str:
    return f"<section><p class=why>{why}</p>{query}{''.join(rows)}</section>"


def thumbnail(image: Image.Image, side: int = SIDE) -> str:
    """Return the centre square of an image as a JPEG in a ``data:`` URL."""
    buffer = BytesIO()
    square(image, side).save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
