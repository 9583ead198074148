"""Every prediction of a run with the id of its image, and what they say of each class.

Of captions: the rank at which every query finds what belongs to it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipbench.datamodules.base_captions import CaptionDataModule
from clipbench.datamodules.base_classification import ClassificationDataModule
from clipbench.metrics import classification, confusion, retrieval
from clipbench.reporting.tables import typeset
from clipbench.results import predictions


def write(
    folder: Path, data: ClassificationDataModule, outputs: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Write what paired tests and error reports need.

    ``predictions.parquet`` has a row for each image, with a column for each kind of group; row for
    row ``logits.npy`` has its logits, -inf for classes its split does not choose among.
    ``per_class.csv`` has a row for each class of each split, ``confusion.npz`` a matrix (C, C) for
    each split, see :func:`clipbench.metrics.confusion.write`. The outputs are by split the logits
    (n, C) and labels (n,), in the order of its images.
    """
    rows, logits, tables, matrices = [], [], [], {}
    for name, output in outputs.items():
        labels = output["label"]
        scores = classification.among(output["logits"], data.splits[name].among)
        rows.append(_rows(data, name, scores, labels))
        logits.append(scores.numpy())
        matrices[name] = classification.confusion(scores, labels)
        table = classification.per_class(matrices[name], data.classes, data.levels)
        table.insert(0, "split", name)
        tables.append(table)
    pd.concat(rows, ignore_index=True).to_parquet(folder / predictions.SAVED)
    _write_logits(folder / "logits.npy", logits)
    text = typeset.csv(pd.concat(tables, ignore_index=True))
    (folder / "per_class.csv").write_text(text, encoding="utf-8")
    confusion.write(folder / "confusion.npz", matrices)


def write_merged(
    folder: Path,
    data: ClassificationDataModule,
    outputs: Mapping[str, Mapping[str, Tensor]],
    alpha: float,
) -> None:
    """Write ``merged_predictions.parquet``: the rows at the chosen alpha, which is a column."""
    rows = [
        _rows(data, name, classification.among(of["logits"], data.splits[name].among), of["label"])
        for name, of in outputs.items()
    ]
    pd.concat(rows, ignore_index=True).assign(alpha=alpha).to_parquet(folder / predictions.MERGED)


def _rows(
    data: ClassificationDataModule, name: str, scores: Tensor, labels: Tensor
) -> pd.DataFrame:
    """Return a row for each image of a split, from its logits (n, C) and labels (n,)."""
    split = data.splits[name]
    top = scores.argmax(1)  # probabilities can tie where logits still differ
    shares = torch.empty(len(labels), 2, dtype=scores.dtype)
    chosen = torch.stack([top, labels], 1)
    for rows in classification.blocks(scores):
        shares[rows] = scores[rows].softmax(1).gather(1, chosen[rows])
    columns: dict[str, Any] = {
        "split": name,
        "id": list(split.ids),
        "label": labels.numpy(),
        "prediction": top.numpy(),
        "probability": shares[:, 0].numpy(),
        "label_probability": shares[:, 1].numpy(),
    }
    for kind, ids in split.groups.items():
        names = data.groups[kind]
        columns[kind] = [names[i] if i >= 0 else None for i in ids.tolist()]  # -1: in no group
    return pd.DataFrame(columns)


def _write_logits(path: Path, parts: Sequence[NDArray[Any]]) -> None:
    """Write what ``np.save`` would write of all parts (n, C), without a second copy of them."""
    shape = (sum(map(len, parts)), parts[0].shape[1])
    head = {"descr": parts[0].dtype.str, "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, head)
        for part in parts:
            file.write(np.ascontiguousarray(part).data)


def write_ranks(
    folder: Path, data: CaptionDataModule, outputs: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Write ``ranks.parquet``, from which every recall follows, and paired tests.

    A row is a query: a caption that looks for its image (``query`` is ``text``), or an image that
    looks for the best of its captions (``image``, its caption null); ``id`` is the image's,
    ``rank`` is 1 for the best. The outputs are by split the features ``image`` (n, D) and ``text``
    (m, D), in its order.
    """
    rows = []
    for name, output in outputs.items():
        owner, split = data.owner(name), data.splits[name]
        ranks = retrieval.ranks(output["image"], output["text"], owner)
        texts = [text for texts in split.captions or () for text in texts]
        for query, ids, captions, rank in (
            ("text", [split.ids[i] for i in owner.tolist()], texts, ranks.image),
            ("image", list(split.ids), None, ranks.text),
        ):
            columns = {"split": name, "query": query, "id": ids, "caption": captions}
            rows.append(pd.DataFrame({**columns, "rank": rank.numpy()}))
    pd.concat(rows, ignore_index=True).to_parquet(folder / "ranks.parquet")
