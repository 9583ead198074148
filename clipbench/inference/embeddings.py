"""The features of a folder's images, computed once and cached."""

import hashlib
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from clipbench.core import cli, files
from clipbench.core.config import compose
from clipbench.core.config.instantiate import build
from clipbench.core.console import track, warn
from clipbench.core.errors import UserError
from clipbench.inference import prediction, saved_model
from clipbench.loading.images.decoding import Source
from clipbench.loading.images.integrity import status
from clipbench.loading.split import Split
from clipbench.models.two_towers import TwoTowers
from clipbench.results import store

PAUSE = 30.0  # seconds between two writes of the cache


@dataclass
class Gallery:
    """Images that can be searched.

    The features (n, D) are normalised, and of the images in the split; the faults are of those that
    could not be read; ``fresh`` were computed now and not read from the cache.
    """

    split: Split
    features: Tensor
    faults: dict[str, str]
    fresh: int

    def best(self, query: Tensor, top: int) -> list[tuple[int, float]]:
        """Return the positions nearest to a text's feature (D,), with their cosines, best first."""
        scores = self.features @ query.to(self.features)
        order = scores.argsort(descending=True, stable=True)[:top].tolist()
        return [(i, float(scores[i])) for i in order]


def fingerprint(tower: TwoTowers) -> str:
    """Return the SHA-256 of all that features depend on: the weights and the preprocessing."""
    digest = hashlib.sha256(tower.preprocess.to_json().encode())
    for name, tensor in sorted(tower.state_dict().items()):
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


def embedded(tower: TwoTowers, split: Split, cache: Path, **reading: int) -> Gallery:
    """Return the features of all images; those in the cache are not computed again.

    A cached feature is valid as long as the path, size and times of the file are the same. What
    was computed is cached even if this is interrupted.

    The tower is in eval mode, on its device; ``reading`` is ``batch_size`` and ``workers``.

    Raises:
        UserError: if no image can be read.
    """
    store = Store(cache)
    marks = [_mark(source) for source in split.sources]
    new = [i for i, mark in enumerate(marks) if mark is None or mark not in store.rows]
    faults: dict[str, str] = {}
    missing = _computed(tower, split.take(np.array(new, dtype=np.int64)), **reading)
    computed: dict[int, NDArray[np.float32]] = {}
    try:
        for features, bad in missing if new else ():
            computed |= {new[i]: row for i, row in features.items()}
            faults |= {split.ids[new[i]]: why for i, why in bad.items()}
            store.add({m: row for i, row in features.items() if (m := marks[new[i]])})
    finally:
        store.write({mark for mark in marks if mark})
    rows = [computed.get(i, store.rows.get(mark or "")) for i, mark in enumerate(marks)]
    readable = np.flatnonzero([row is not None for row in rows])
    if not len(readable):
        details = [f"{name}: {why}" for name, why in faults.items()]
        raise UserError("none of the images can be read. Copy them again.", details)
    matrix = torch.from_numpy(np.stack([row for row in rows if row is not None]))
    return Gallery(split.take(readable), matrix, faults, len(computed))


@torch.inference_mode()
def _computed(
    tower: TwoTowers, split: Split, batch_size: int = 64, workers: int = 0
) -> Iterator[tuple[dict[int, NDArray[np.float32]], dict[int, str]]]:
    """Yield of each batch the features by position, and the errors of unreadable images."""
    device = next(tower.parameters()).device
    loader = prediction.batches(split, tower.preprocess, batch_size=batch_size, workers=workers)
    steps = -(-len(split) // batch_size)
    for batch, bad in track(loader, f"embedding {len(split):,} images", steps):
        features: dict[int, NDArray[np.float32]] = {}
        if batch is not None:
            rows = tower.model.encode_image(batch["image"].to(device)).float()
            rows = F.normalize(rows, dim=-1).cpu().numpy()
            features = dict(zip(batch["index"].tolist(), rows, strict=True))
        yield features, {row.index: row.error or "" for row in bad}


def _mark(source: Source) -> str | None:
    """Return the cache key of an image; None if it does not exist or its name is not UTF-8."""
    name = str(source.absolute() if isinstance(source, Path) else source)
    try:
        name.encode()
        stamp = status(source)
    except (OSError, UnicodeEncodeError):
        return None
    return f"{stamp.size} {stamp.mtime_ns} {stamp.ctime_ns} {name}"


class Store:
    """Features by key, in a file that is written atomically; a damaged one is replaced."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, dict[str, NDArray[np.float32]]()
        self.written, self.changed = time.monotonic(), False
        if path.is_file():
            with suppress(Exception):  # the parquet reader raises many kinds
                frame = pd.read_parquet(path)
                features = (np.frombuffer(row, np.float32) for row in frame["feature"])
                self.rows = dict(zip(frame["mark"], features, strict=True))

    def add(self, rows: Mapping[str, NDArray[np.float32]]) -> None:
        """Add rows, and write the file every :data:`PAUSE` seconds."""
        self.rows |= rows
        self.changed |= bool(rows)
        if time.monotonic() - self.written > PAUSE:
            self.write(self.rows)

    def write(self, marks: Collection[str]) -> None:
        """Write the rows of some keys, if any is new."""
        if not self.changed:
            return
        self.rows = {mark: row for mark, row in self.rows.items() if mark in marks}
        content = [row.tobytes() for row in self.rows.values()]
        buffer = BytesIO()
        pd.DataFrame({"mark": list(self.rows), "feature": content}).to_parquet(buffer, index=False)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        files.write_bytes(self.path, buffer.getvalue())
        self.written, self.changed = time.monotonic(), False


def tower(arguments: cli.Given, name: str, overrides: list[str]) -> TwoTowers:
    """Return the towers of a run or a model, in eval mode.

    Raises:
        UserError: if they cannot read text.
    """
    if "run" in arguments:
        stem = cli.choice(arguments, "weights", ("model", "merged"))
        chosen = saved_model.classifier(store.completed(arguments)[0], stem).tower
    else:
        chosen = build(compose.compose(f"model={name}", *overrides)["model"])
        for warning in chosen.warnings:
            warn(warning)
    if not isinstance(chosen, TwoTowers) or not chosen.has_text:
        pooled = "left the space that texts share (model.pool=mean)"
        raise UserError(
            f"{name} cannot read text: {chosen.arch} "
            f"{pooled if chosen.mean_pooled else 'has no text tower'}; "
            "search with a run of a CLIP, or with model=clip_vitb32"
        )
    return chosen.eval()
