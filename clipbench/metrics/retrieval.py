"""Retrieval of pictures by text and of texts by picture: ranks, recall@k, median ranks.

The definition is CLIP_benchmark's (metrics/zeroshot_retrieval.py): image recall@k is the share of
captions whose picture is among the k best pictures, text recall@k the share of pictures that have
any of their captions among the k best captions. It sorts scores; here ranks are counted, tile by
tile, so that no more than a tile of scores is held at any time.

Of equal scores that of the lower picture is ahead, in both directions: no order is left to a
sort, a search that cannot tell pictures apart finds one at k of n by chance alone, and a caption
that two pictures share word by word counts for the first of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

KS = (1, 5, 10)
BLOCK = 192  # pictures in a tile; with 960 captions beside them it is 0.7 MB: it stays in a cache


@dataclass(frozen=True)
class Ranks:
    """Where each query finds what belongs to it; 1 is the best.

    Attributes:
        image: (m,) for each text the rank of its picture among the n.
        text: (n,) for each picture the rank of its best caption, counted among those of others.
    """

    image: Tensor
    text: Tensor

    def metrics(self, ks: Sequence[int] = KS) -> dict[str, float]:
        """Return ``{image,text}_recall@k`` and ``{image,text}_median_rank``.

        Recalls are exact counts over the number of queries; the median of an even number of ranks
        is the mean of the two in the middle.

        Args:
            ks: how many of the best count as found.
        """
        values: dict[str, float] = {}
        for name, own in (("image", self.image), ("text", self.text)):
            values |= {f"{name}_recall@{k}": int((own <= k).sum()) / len(own) for k in ks}
            ordered = own.sort().values
            middle = ordered[[(len(own) - 1) // 2, len(own) // 2]]
            values[f"{name}_median_rank"] = float(middle.double().mean())
        return values


def recall(
    image: Tensor,
    text: Tensor,
    owner: Tensor,
    ks: Sequence[int] = KS,
    block: int = BLOCK,
) -> dict[str, float]:
    """Return the metrics of :meth:`Ranks.metrics`, from features.

    Args:
        image: (n, D), normalised.
        text: (m, D), normalised.
        owner: (m,), the picture of each text.
        ks: how many of the best count as found.
        block: see :func:`ranks`.

    Raises:
        ValueError: as in :func:`ranks`.
    """
    return ranks(image, text, owner, block).metrics(ks)


@torch.no_grad()
def ranks(image: Tensor, text: Tensor, owner: Tensor, block: int = BLOCK) -> Ranks:
    """Return the rank of every query, both ways, from one product of each tile.

    The tiles in which pictures meet their own captions come first: they tell the score to beat of
    every query. Above the features, memory is for two tiles of scores, whatever n and m are.

    Args:
        image: (n, D), normalised; a feature is compared in the precision that it has, but in
            float32 at least.
        text: (m, D), normalised, on the same device.
        owner: (m,) integers in [0, n), the picture of each text; in any order.
        block: pictures in a tile, and five times as many captions; those of one picture are
            never divided.

    Raises:
        ValueError: if a feature is not finite, or a picture has no text, or a text no picture.
    """
    _check(len(image), len(text), owner)
    if not bool(torch.isfinite(image.sum() + text.sum())):
        raise ValueError("features that are not finite cannot be ranked")
    with torch.autocast(image.device.type, enabled=False):
        tiles = _Products(image, text, owner.to(image.device), block)
        return _counted(tiles, len(image), len(text))


@torch.no_grad()
def ranks_of(scores: Tensor, owner: Tensor, block: int = BLOCK) -> Ranks:
    """Return the rank of every query, from a matrix of scores.

    Args:
        scores: (m, n) floating, of each text with each picture; infinite ones are ranked, too.
        owner: (m,), the picture of each text.
        block: as in :func:`ranks`.

    Raises:
        ValueError: if a score is NaN, or a picture has no text, or a text no picture.
    """
    _check(scores.shape[1], scores.shape[0], owner)
    if bool(scores.isnan().any()):
        raise ValueError("scores that are not a number cannot be ranked")
    return _counted(_Matrix(scores, owner, block), scores.shape[1], scores.shape[0])


def _check(pictures: int, texts: int, owner: Tensor) -> None:
    if len(owner) != texts:
        raise ValueError(f"{texts} texts, but {len(owner)} owners")
    if texts and not 0 <= int(owner.min()) <= int(owner.max()) < pictures:
        raise ValueError(f"owners are not all among the {pictures} pictures")
    bare = (torch.bincount(owner.long(), minlength=pictures) == 0).nonzero().flatten().tolist()
    if bare or not pictures:
        raise ValueError(f"{len(bare)} pictures have no text, first {bare[:1]}")


class _Tiles(ABC):
    """Pictures and their captions, cut where a picture begins, so that own meets own."""

    def __init__(self, owner: Tensor, pictures: int, block: int) -> None:
        self.order = owner.long().argsort(stable=True)
        self.owner = owner.long()[self.order]
        ends = torch.bincount(self.owner, minlength=pictures).cumsum(0).tolist()
        # Of one size, so that no product is so small that equal features get unequal scores.
        count = max(-(-pictures // block), -(-len(owner) // (5 * block)))
        at_most, texts = -(-pictures // count), -(-len(owner) // count)
        self.cuts = [(0, 0)]
        for picture, end in enumerate(ends):
            first, begun = self.cuts[-1]
            over = picture - first >= at_most or end - begun > max(texts, 5 * at_most)
            if over and picture > first:
                self.cuts.append((picture, ends[picture - 1]))
        self.cuts.append((pictures, len(owner)))

    def __len__(self) -> int:
        return len(self.cuts) - 1

    def pictures(self, tile: int) -> slice:
        return slice(self.cuts[tile][0], self.cuts[tile + 1][0])

    def texts(self, tile: int) -> slice:
        return slice(self.cuts[tile][1], self.cuts[tile + 1][1])

    @abstractmethod
    def scores(self, row: int, column: int) -> Tensor:
        """Of the pictures of a tile with the texts of a tile: (b, t)."""

    def all(self) -> Iterator[tuple[int, int]]:
        """Row and column of every tile, those on the diagonal first."""
        yield from ((i, i) for i in range(len(self)))
        yield from ((i, j) for i in range(len(self)) for j in range(len(self)) if i != j)


class _Products(_Tiles):
    def __init__(self, image: Tensor, text: Tensor, owner: Tensor, block: int) -> None:
        super().__init__(owner, len(image), block)
        self.image, self.text = image, text
        self.kind = torch.promote_types(image.dtype, torch.float32)
        self.sorted = bool((self.order.diff() > 0).all())

    def scores(self, row: int, column: int) -> Tensor:
        own = self.texts(column)
        texts = self.text[own] if self.sorted else self.text[self.order[own]]
        return self.image[self.pictures(row)].to(self.kind) @ texts.to(self.kind).T


class _Matrix(_Tiles):
    def __init__(self, scores: Tensor, owner: Tensor, block: int) -> None:
        super().__init__(owner.to(scores.device), scores.shape[1], block)
        self.matrix = scores
        self.kind = torch.promote_types(scores.dtype, torch.float32)

    def scores(self, row: int, column: int) -> Tensor:
        texts = self.order[self.texts(column)]
        return self.matrix[texts, self.pictures(row)].T.to(self.kind)


def _counted(tiles: _Tiles, pictures: int, texts: int) -> Ranks:
    device = tiles.owner.device
    ahead = {"image": torch.zeros(texts, dtype=torch.int64, device=device)}
    ahead["text"] = torch.zeros(pictures, dtype=torch.int64, device=device)
    to_beat: dict[str, Tensor] = {}
    for row, column in tiles.all():
        scores = tiles.scores(row, column)
        rows, columns = tiles.pictures(row), tiles.texts(column)
        if not to_beat:
            to_beat = {name: scores.new_empty(len(count)) for name, count in ahead.items()}
        if row == column:
            own = tiles.owner[columns] - rows.start
            to_beat["image"][columns] = scores[own, torch.arange(len(own), device=device)]
            to_beat["text"][rows] = scores.new_full((len(scores),), -torch.inf).scatter_reduce(
                0, own, to_beat["image"][columns], "amax"
            )
        here = torch.arange(rows.start, rows.stop, device=device)[:, None]
        above = _above(scores, to_beat["image"][columns], here, tiles.owner[columns], row - column)
        ahead["image"][columns] += above.sum(0).long()
        best = to_beat["text"][rows][:, None]
        above = _above(scores, best, tiles.owner[columns], here, column - row)
        ahead["text"][rows] += above.sum(1).long()
    ranks = torch.empty_like(ahead["image"])
    ranks[tiles.order] = ahead["image"] + 1
    return Ranks(image=ranks.cpu(), text=ahead["text"].cpu() + 1)


def _above(scores: Tensor, own: Tensor, candidate: Tensor, query: Tensor, apart: int) -> Tensor:
    """Which scores are ahead of a query's own, as 0 and 1 of the scores' kind: sums are quick.

    Args:
        scores: (b, t) of a tile.
        own: of each query the score to beat, (1, t) or (b, 1).
        candidate: picture of each candidate.
        query: picture of each query.
        apart: whether candidates' pictures are all below (< 0) or above (> 0) the queries'.
    """
    if apart:
        out = torch.empty_like(scores)
        return torch.ge(scores, own, out=out) if apart < 0 else torch.gt(scores, own, out=out)
    return ((scores > own) | ((scores == own) & (candidate < query))).to(scores.dtype)
