"""Retrieval before and after training: one page of example queries, chosen by a fixed rule."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clipbench.core import files
from clipbench.loading.split import Split
from clipbench.metrics import retrieval
from clipbench.reporting.contact_sheet import square
from clipbench.reporting.page import templates

FEW, SOME = 3, 4  # queries that gained or lost most, and queries drawn at random
SHOWN = 5  # best answers that are shown
SIDE = 144  # pixels of an image on the page
RULE = (
    f"Shown are the {FEW} queries whose rank improved by the largest factor, the {FEW} whose rank "
    f"worsened by the largest, and {SOME} of the rest drawn by the run's seed, with at most one "
    "caption per image. Nothing is chosen by eye."
)
Features = tuple[Tensor, Tensor]  # normalised, of the images (n, D) and of all captions (m, D)


@dataclass(frozen=True)
class Embedded:
    """A split's features by one state of a model, and the ranks of all queries.

    Attributes:
        state: ``before`` or ``after``.
        image: (n, D) normalised features of the images, in the split's order.
        text: (m, D) normalised features of the captions, image by image.
        owner: (m,) the image of each caption.
        ranks: of all queries.
    """

    state: str
    image: Tensor
    text: Tensor
    owner: Tensor
    ranks: retrieval.Ranks

    @classmethod
    def of(cls, state: str, split: Split, features: Features) -> "Embedded":
        """Rank the normalised features of a split."""
        image, text = (part.cpu() for part in features)
        counts = torch.tensor([len(captions) for captions in split.captions or ()])
        owner = torch.arange(len(counts)).repeat_interleave(counts)
        return cls(state, image, text, owner, retrieval.ranks(image, text, owner))

    def row(self, ranks: Tensor, query: int, of: int, answers: list[Any]) -> dict[str, Any]:
        """Return what the page shows of a query and its answers."""
        rank = f"{int(ranks[query]):,}"
        return {"state": self.state, "rank": rank, "of": f"{of:,}", "answers": answers}


def write(
    path: Path,
    split: Split,
    before: Features,
    after: Features,
    *,
    seed: int = 0,
    title: str = "Retrieval, before and after",
) -> None:
    """Write a page that needs no other file.

    Args:
        path: of the page.
        split: the images and captions that are shown.
        before: features before training, in the split's order.
        after: the same after training.
        seed: of what is drawn at random.
        title: of the page.

    Raises:
        UserError: if an image of the split can no longer be read.
        ValueError: if the split has no captions, or not as many as there are features.
    """
    if split.captions is None:
        raise ValueError("a split without captions has no retrieval to show")
    old, new = Embedded.of("before", split, before), Embedded.of("after", split, after)
    # The metrics of all queries, so that nobody takes the examples for the result.
    first, last = old.ranks.metrics(), new.ranks.metrics()
    forms = {name: ".4f" if "recall" in name else "g" for name in first}
    page = templates.render(
        "examples.html",
        title=title,
        metrics=[(k, format(first[k], form), format(last[k], form)) for k, form in forms.items()],
        changes=f"{_changes('captions', old.ranks.image, new.ranks.image)} "
        f"{_changes('images', old.ranks.text, new.ranks.text)}",
        rule=RULE,
        texts=_texts(split, old, new, seed),
        images=_images(split, old, new, seed),
    )
    files.write_text(path, page)


def _changes(queries: str, before: Tensor, after: Tensor) -> str:
    better, worse = (int(changed.sum()) for changed in (after < before, after > before))
    return f"Of {len(after):,} {queries} {better:,} rank better than before, {worse:,} worse."


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
    groups: set[int] = set()
    for why, count, order in orders:
        last = len(groups) + count
        for query in map(int, order):
            if len(groups) < last and int(group[query]) not in groups:
                groups.add(int(group[query]))
                yield why, query


def _texts(split: Split, old: Embedded, new: Embedded, seed: int) -> Iterator[dict[str, Any]]:
    """Yield a section for each caption that is shown."""
    captions = _captions(split)
    for why, query in chosen(old.ranks.image, new.ranks.image, new.owner, seed):
        true, rows = int(new.owner[query]), []
        for model in (old, new):
            scores = model.image @ model.text[query]
            best = _best(scores)
            answers = [_figure(split, i, f"{scores[i]:.3f}", i == true) for i in best]
            if true not in best:
                answers.append(_figure(split, true, f"its own: {scores[true]:.3f}", True))
            rows.append(model.row(model.ranks.image, query, len(scores), answers))
        yield {"why": why, "query": captions[query], "rows": rows}


def _images(split: Split, old: Embedded, new: Embedded, seed: int) -> Iterator[dict[str, Any]]:
    """Yield a section for each image that is shown."""
    captions = _captions(split)
    for why, query in chosen(old.ranks.text, new.ranks.text, torch.arange(len(split)), seed):
        rows = []
        for model in (old, new):
            scores = model.text @ model.image[query]
            answers = [
                {
                    "caption": captions[i],
                    "score": f"{scores[i]:.3f}",
                    "true": model.owner[i] == query,
                }
                for i in _best(scores)
            ]
            rows.append(model.row(model.ranks.text, query, len(scores), answers))
        image = _figure(split, query, split.ids[query], False)
        own = (split.captions or ())[query]
        yield {"why": why, "query": image, "captions": own, "rows": rows}


def _captions(split: Split) -> list[str]:
    return [caption for of_image in split.captions or () for caption in of_image]


def _best(scores: Tensor) -> list[int]:
    best: list[int] = scores.argsort(descending=True, stable=True)[:SHOWN].tolist()
    return best


def _figure(split: Split, index: int, below: str, true: bool) -> dict[str, Any]:
    src = thumbnail(split.image(index), SIDE)
    return {"src": src, "name": split.ids[index], "below": below, "true": true}


def thumbnail(image: Image.Image, side: int) -> str:
    """Return the centre square of an image as a JPEG in a ``data:`` URL."""
    buffer = BytesIO()
    square(image, side).save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
