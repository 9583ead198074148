"""What a search finds before and after training: one page of queries, chosen by a fixed rule."""

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
SHOWN = 5  # of the best answers
SIDE = 144  # of a picture on the page, in pixels
RULE = (
    f"Shown are the {FEW} queries whose rank improved by the largest factor, the {FEW} whose rank "
    f"worsened by the largest, and {SOME} of the rest drawn by the run's seed; one caption of a "
    "picture at most. Nothing is chosen by eye."
)


@dataclass(frozen=True)
class Found:
    """What one state of a model makes of a split.

    Attributes:
        image: (n, D) normalised features of its pictures, in the split's order.
        text: (m, D) of its captions, those of one picture after those of another.
        owner: (m,) the picture of each caption.
        ranks: of all queries.
    """

    image: Tensor
    text: Tensor
    owner: Tensor
    ranks: retrieval.Ranks

    @classmethod
    def of(cls, split: Split, image: Tensor, text: Tensor) -> "Found":
        """Found with features of a split, normalised."""
        counts = torch.tensor([len(own) for own in split.captions or ()])
        owner = torch.arange(len(counts)).repeat_interleave(counts)
        return cls(image, text, owner, retrieval.ranks(image, text, owner))

    def pictures(self, caption: int) -> list[tuple[int, float]]:
        """The best pictures for a caption, with their cosines."""
        return _best(self.image @ self.text[caption])

    def captions(self, picture: int) -> list[tuple[int, float]]:
        """The best captions for a picture, with their cosines."""
        return _best(self.text @ self.image[picture])


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
        split: its pictures and captions are shown.
        before: features before training: of pictures (n, D) and of all captions (m, D), in the
            split's order, normalised.
        after: the same after it.
        seed: of what is drawn at random.
        title: what the page is of.

    Raises:
        UserError: if a picture of the split can no longer be read.
        ValueError: if the split has no captions, or not as many as there are features.
    """
    if split.captions is None:
        raise ValueError("a split without captions has no retrieval to show")
    first, last = (Found.of(split, image.cpu(), text.cpu()) for image, text in (before, after))
    page = Page(split, first, last)
    body = "".join(
        [
            f"<h1>{escape(title)}</h1>",
            page.summary(),
            f"<p>{escape(RULE)} A frame marks what belongs to the query.</p>",
            "<h2>A text looks for its picture</h2>",
            *page.texts(seed),
            "<h2>A picture looks for its captions</h2>",
            *page.pictures(seed),
        ]
    )
    frame = Template((paths.ASSETS / "examples.html").read_text(encoding="utf-8"))
    files.write_text(path, frame.substitute(title=escape(title), body=body))


def chosen(before: Tensor, after: Tensor, group: Tensor, seed: int) -> Iterator[tuple[str, int]]:
    """Queries by :data:`RULE`, each with why it is there.

    Args:
        before: (q,) ranks before training.
        after: (q,) ranks after it.
        group: (q,) of queries of one group at most one is taken.
        seed: of the random ones.
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
        before: what was found before training.
        after: what is found after it.
    """

    split: Split
    before: Found
    after: Found

    @property
    def _states(self) -> tuple[tuple[str, Found], tuple[str, Found]]:
        return ("before", self.before), ("after", self.after)

    def summary(self) -> str:
        """The metrics of all queries, so that nobody takes the examples for the result."""
        first, last = self.before.ranks.metrics(), self.after.ranks.metrics()
        rows = "".join(
            f"<tr><th>{name}</th><td>{_cell(name, first)}</td><td>{_cell(name, last)}</td></tr>"
            for name in first
        )
        old, new = self.before.ranks, self.after.ranks
        told = [
            f"Of {len(now):,} {what} {int((now < was).sum()):,} rank better than before, "
            f"{int((now > was).sum()):,} worse."
            for what, was, now in (
                ("captions", old.image, new.image),
                ("pictures", old.text, new.text),
            )
        ]
        head = "<tr><th>all queries</th><th>before</th><th>after</th></tr>"
        return f"<table>{head}{rows}</table><p>{' '.join(told)}</p>"

    def texts(self, seed: int) -> Iterator[str]:
        """A section for each caption that is shown."""
        captions = [caption for own in self.split.captions or () for caption in own]
        ranks, owner = (self.before.ranks.image, self.after.ranks.image), self.after.owner
        for why, query in chosen(*ranks, owner, seed):
            true = int(owner[query])
            rows = []
            for state, found in self._states:
                answers = found.pictures(query)
                shown = [self._figure(i, f"{score:.3f}", i == true) for i, score in answers]
                if true not in [i for i, _ in answers]:
                    score = float(found.image[true] @ found.text[query])
                    shown.append(self._figure(true, f"its own: {score:.3f}", True))
                rows.append(_row(state, int(found.ranks.image[query]), len(found.image), shown))
            yield _section(why, f"<q>{escape(captions[query])}</q>", rows)

    def pictures(self, seed: int) -> Iterator[str]:
        """A section for each picture that is shown."""
        captions = [caption for own in self.split.captions or () for caption in own]
        ranks = self.before.ranks.text, self.after.ranks.text
        for why, query in chosen(*ranks, torch.arange(len(self.split)), seed):
            rows = []
            for state, found in self._states:
                answers = [
                    (i, score, int(found.owner[i]) == query) for i, score in found.captions(query)
                ]
                items = "".join(
                    f"<li{' class=true' if true else ''}>{escape(captions[i])} "
                    f"<small>{score:.3f}</small></li>"
                    for i, score, true in answers
                )
                rank, of = int(found.ranks.text[query]), len(found.text)
                rows.append(_row(state, rank, of, [f"<ol>{items}</ol>"], "list"))
            own = "".join(f"<li>{escape(text)}</li>" for text in (self.split.captions or ())[query])
            own = f"<details><summary>its own captions</summary><ul>{own}</ul></details>"
            picture = self._figure(query, self.split.ids[query], False)
            yield _section(why, picture + own, rows)

    def _figure(self, index: int, below: str, true: bool) -> str:
        picture = thumbnail(self.split.image(index))
        name = escape(self.split.ids[index])
        return (
            f"<figure{' class=true' if true else ''}><img src='{picture}' alt='{name}' "
            f"title='{name}'><figcaption>{escape(below)}</figcaption></figure>"
        )


def _cell(name: str, values: Mapping[str, float]) -> str:
    return f"{values[name]:.4f}" if "recall" in name else f"{values[name]:g}"


def _row(state: str, rank: int, of: int, shown: Sequence[str], kind: str = "row") -> str:
    told = f"<p class=state>{state}: rank {rank:,} of {of:,}</p>"
    return f"{told}<div class={kind}>{''.join(shown)}</div>"


def _section(why: str, query: str, rows: Sequence[str]) -> str:
    return f"<section><p class=why>{why}</p>{query}{''.join(rows)}</section>"


def thumbnail(picture: Image.Image, side: int = SIDE) -> str:
    """A picture as a page holds it: the middle square, a JPEG in a ``data:`` address."""
    buffer = BytesIO()
    square(picture, side).save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
