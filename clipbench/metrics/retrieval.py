"""Retrieval of images by text and of texts by image: ranks, recall@k, median ranks.

The definition is CLIP_benchmark's (metrics/zeroshot_retrieval.py): image recall@k is the share of
captions whose image is among the k best images, text recall@k the share of images that have
any of their captions among the k best captions. It sorts scores; here ranks are counted, tile by
tile, so that no more than a tile of scores is held at any time.

Of equal scores that of the lower image is ahead, in both directions: no order is left to a
sort, a search that cannot tell images apart finds one at k of n by chance alone, and a caption
that two images share word by word counts for the first of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

KS = (1, 5, 10)
BLOCK = 192  # images in a tile; with 960 captions beside them it is 0.7 MB: it stays in a cache


@dataclass(frozen=True)
class Ranks:
    """Where each query finds what belongs to it; 1 is the best.

    Attributes:
        image: (m,) for each text the rank of its image among the n.
        text: (n,) for each image the rank of its best caption, counted among those of others.
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
        owner: (m,), the image of each text.
        ks: how many of the best count as found.
        block: see :func:`ranks`.

    Raises:
        ValueError: as in :func:`ranks`.
    """
    return ranks(image, text, owner, block).metrics(ks)


@torch.no_grad()
def ranks(image: Tensor, text: Tensor, owner: Tensor, block: int = BLOCK) -> Ranks:
    """Return the rank of every query, both ways, from one product of each tile.

    The tiles in which images meet their own captions come first: they tell the score to beat of
    every query. Above the features, memory is for two tiles of scores, whatever n and m are.

    Args:
        image: (n, D), normalised; a feature is compared in the precision that it has, but in
            float32 at least.
        text: (m, D), normalised, on the same device.
        owner: (m,) integers in [0, n), the image of each text; in any order.
        block: images in a tile, and five times as many captions; those of one image are
            never divided.

    Raises:
        ValueError: if a feature is not finite, or an image has no text, or a text no image.
    """
    _check(len(image), len(text), owner)
    if not bool(torch.isfinite(image.sum() + text.sum())):
        raise ValueError("features that are not finite cannot be ranked")
    with torch.autocast(image.device.type, enabled=False):
        tiles = _Tiles(image, text, owner.to(image.device), block)
        return _counted(tiles, len(image), len(text))


def _check(images: int, texts: int, owner: Tensor) -> None:
    if len(owner) != texts:
        raise ValueError(f"{texts} texts, but {len(owner)} owners")
    if texts and not 0 <= int(owner.min()) <= int(owner.max()) < images:
        raise ValueError(f"owners are not all among the {images} images")
    bare = (torch.bincount(owner.long(), minlength=images) == 0).nonzero().flatten().tolist()
    if bare or not images:
        raise ValueError(f"{len(bare)} images have no text, first {bare[:1]}")


class _Tiles:
    """Images and their captions, cut where an image begins, so that a tile has all of its own."""

    def __init__(self, image: Tensor, text: Tensor, owner: Tensor, block: int) -> None:
        self.image, self.text, images = image, text, len(image)
        self.kind = torch.promote_types(image.dtype, torch.float32)
        self.order = owner.long().argsort(stable=True)
        self.sorted = bool((self.order.diff() > 0).all())
        self.owner = owner.long()[self.order]
        ends = torch.bincount(self.owner, minlength=images).cumsum(0).tolist()
        # Of one size, so that no product is so small that equal features get unequal scores.
        count = max(-(-images // block), -(-len(owner) // (5 * block)))
        at_most, texts = -(-images // count), -(-len(owner) // count)
        self.cuts = [(0, 0)]
        for number, end in enumerate(ends):
            first, begun = self.cuts[-1]
            over = number - first >= at_most or end - begun > max(texts, 5 * at_most)
            if over and number > first:
                self.cuts.append((number, ends[number - 1]))
        self.cuts.append((images, len(owner)))

    def __len__(self) -> int:
        return len(self.cuts) - 1

    def images(self, tile: int) -> slice:
        return slice(self.cuts[tile][0], self.cuts[tile + 1][0])

    def texts(self, tile: int) -> slice:
        return slice(self.cuts[tile][1], self.cuts[tile + 1][1])

    def all(self) -> Iterator[tuple[int, int]]:
        """Yield row and column of every tile, those on the diagonal first."""
        yield from ((i, i) for i in range(len(self)))
        yield from ((i, j) for i in range(len(self)) for j in range(len(self)) if i != j)

    def scores(self, row: int, column: int) -> Tensor:
        """Return the products of the images of a tile with the texts of a tile: (b, t)."""
        columns = self.texts(column)
        texts = self.text[columns] if self.sorted else self.text[self.order[columns]]
        return self.image[self.images(row)].to(self.kind) @ texts.to(self.kind).T


def _counted(tiles: _Tiles, images: int, texts: int) -> Ranks:
    device = tiles.owner.device
    ahead = {"image": torch.zeros(texts, dtype=torch.int64, device=device)}
    ahead["text"] = torch.zeros(images, dtype=torch.int64, device=device)
    to_beat: dict[str, Tensor] = {}
    for row, column in tiles.all():
        scores = tiles.scores(row, column)
        rows, columns = tiles.images(row), tiles.texts(column)
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
        candidate: image of each candidate.
        query: image of each query.
        apart: whether candidates' images are all below (< 0) or above (> 0) the queries'.
    """
    if apart:
        out = torch.empty_like(scores)
        return torch.ge(scores, own, out=out) if apart < 0 else torch.gt(scores, own, out=out)
    return ((scores > own) | ((scores == own) & (candidate < query))).to(scores.dtype)
