"""The features of a folder's pictures, computed once and kept."""

import hashlib
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from clipbench.core import cli, files
from clipbench.core.config import compose
from clipbench.core.console import track, warn
from clipbench.core.errors import UserError
from clipbench.inference import prediction
from clipbench.loading.images.integrity import Source, status
from clipbench.loading.split import Split
from clipbench.models.two_towers import TwoTowers
from clipbench.results import store

if TYPE_CHECKING:
    from clipbench.models.two_towers import TwoTowers


PAUSE = 30.0  # seconds of work that an interruption may lose


@dataclass
class Gallery:
    """Pictures that can be searched.

    Attributes:
        split: the pictures that could be read.
        features: (n, D) of these, normalised.
        faults: why each of the others could not.
        fresh: how many were computed now and not taken from an earlier time.
    """

    split: Split
    features: Tensor
    faults: dict[str, str]
    fresh: int

    def best(self, query: Tensor, top: int) -> list[tuple[int, float]]:
        """The positions nearest to a text's feature (D,), with their cosines, best first."""
        scores = self.features @ query.to(self.features)
        order = scores.argsort(descending=True, stable=True)[:top].tolist()
        return [(i, float(scores[i])) for i in order]


def fingerprint(tower: TwoTowers) -> str:
    """Sha256 of what the features of a picture depend on: every weight, and the preprocessing."""
    digest = hashlib.sha256(tower.preprocess.to_json().encode())
    for name, tensor in sorted(tower.state_dict().items()):
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


def embedded(
    tower: TwoTowers, split: Split, kept: Path, *, batch_size: int = 64, workers: int = 0
) -> Gallery:
    """The features of all pictures, those known from an earlier time read and not computed.

    What is known of a picture holds as long as its path, size and time of change are the same.
    What was computed is kept even if this is interrupted.

    Args:
        tower: in eval mode, on the device that it should work on.
        split: pictures, readable or not.
        kept: the file of features, of these weights alone.
        batch_size: pictures in memory at once.
        workers: processes that decode.

    Raises:
        UserError: if no picture can be read.
    """
    store = Store(kept)
    marks = [_mark(source) for source in split.sources]
    new = [i for i, mark in enumerate(marks) if mark is None or mark not in store.rows]
    faults: dict[str, str] = {}
    found = _computed(tower, split.take(np.array(new, dtype=np.int64)), batch_size, workers)
    computed: dict[int, NDArray[np.float32]] = {}
    try:
        for features, bad in found if new else ():
            computed |= {new[i]: row for i, row in features.items()}
            faults |= {split.ids[new[i]]: why for i, why in bad.items()}
            store.add({m: row for i, row in features.items() if (m := marks[new[i]])})
    finally:
        store.write({mark for mark in marks if mark})
    rows = [computed.get(i, store.rows.get(mark or "")) for i, mark in enumerate(marks)]
    readable = np.flatnonzero([row is not None for row in rows])
    if not len(readable):
        details = [f"{name}: {why}" for name, why in faults.items()]
        raise UserError("no picture can be read; bring them again", details)
    known = torch.from_numpy(np.stack([row for row in rows if row is not None]))
    return Gallery(split.take(readable), known, faults, len(computed))


@torch.inference_mode()
def _computed(
    tower: TwoTowers, split: Split, batch_size: int, workers: int
) -> Iterator[tuple[dict[int, NDArray[np.float32]], dict[int, str]]]:
    """By batch the features by position, and why those that cannot be read cannot."""
    device = next(tower.parameters()).device
    loader = prediction.batches(split, tower.preprocess, batch_size=batch_size, workers=workers)
    for batch, bad in track(
        loader, f"embedding {len(split):,} pictures", -(-len(split) // batch_size)
    ):
        found: dict[int, NDArray[np.float32]] = {}
        if batch is not None:
            features = tower.model.encode_image(batch["image"].to(device))
            rows = F.normalize(features.float(), dim=-1).cpu().numpy()
            found = dict(zip(batch["index"].tolist(), rows, strict=True))
        yield found, {one.index: one.error or "" for one in bad}


def _mark(source: Source) -> str | None:
    """What a picture is known by; None for one that is not there, or whose name is no UTF-8."""
    name = str(source.absolute() if isinstance(source, Path) else source)
    try:
        name.encode()
        stamp = status(source)
    except (OSError, UnicodeEncodeError):
        return None
    return f"{stamp.size} {stamp.mtime_ns} {stamp.ctime_ns} {name}"


class Store:
    """Features by mark, in a file that is whole at any time; a damaged one is begun anew."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, dict[str, NDArray[np.float32]]()
        self.written, self.changed = time.monotonic(), False
        if path.is_file():
            with suppress(Exception):  # a parquet reader's own, of many kinds
                frame = pd.read_parquet(path)
                features = (np.frombuffer(row, np.float32) for row in frame["feature"])
                self.rows = dict(zip(frame["mark"], features, strict=True))

    def add(self, rows: Mapping[str, NDArray[np.float32]]) -> None:
        """Take in rows, and write them now and then."""
        self.rows |= rows
        self.changed |= bool(rows)
        if time.monotonic() - self.written > PAUSE:
            self.write(self.rows)

    def write(self, marks: Collection[str]) -> None:
        """Write the rows of some marks, if there is anything new."""
        if not self.changed:
            return
        self.rows = {mark: row for mark, row in self.rows.items() if mark in marks}
        content = [row.tobytes() for row in self.rows.values()]
        buffer = BytesIO()
        pd.DataFrame({"mark": list(self.rows), "feature": content}).to_parquet(buffer, index=False)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        files.write_bytes(self.path, buffer.getvalue())
        self.written, self.changed = time.monotonic(), False


def _tower(asked: cli.Given, name: str, overrides: list[str]) -> "TwoTowers":
    from clipbench.core.config.instantiate import build
    from clipbench.inference import saved_model
    from clipbench.models.two_towers import TwoTowers

    if "run" in asked:
        stem = cli.choice(asked, "weights", ("model", "merged"))
        tower = saved_model.classifier(store.completed(asked)[0], stem).tower
    else:
        tower = build(compose.compose(f"model={name}", *overrides)["model"])
        for warning in tower.warnings:
            warn(warning)
    if not isinstance(tower, TwoTowers) or not tower.has_text:
        pooled = "left the space that texts share (model.pool=mean)"
        raise UserError(
            f"{name} cannot read text: {tower.arch} "
            f"{pooled if tower.mean_pooled else 'has pictures alone'}; "
            "search with a run of a CLIP, or with model=clip_vitb32"
        )
    return tower.eval()
