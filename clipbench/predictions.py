"""Every prediction of a run with the id of its picture, and what they say of each class.

Of captions: the rank at which every query finds what belongs to it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from clipbench import metrics, retrieval
from clipbench.datamodules.base import ClassificationDataModule
from clipbench.datamodules.captioned import CaptionDataModule


def write(
    folder: Path, data: ClassificationDataModule, outputs: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Write what paired tests and error reports need.

    ``predictions.parquet`` has a row for each picture, with a column for each kind of group; row
    for row ``logits.npy`` has its logits, -inf for classes its split does not choose among.
    ``per_class.csv`` has a row for each class of each split, ``confusion.npz`` a matrix for each
    split: (C, C) counts, the true class by row.

    Args:
        folder: the run's.
        data: its splits, class names, names of groups, and coarser levels.
        outputs: by split, in the order of the rows, the logits (n, C) and labels (n,), in the
            order of its pictures.
    """
    rows, logits, tables, matrices = [], [], [], {}
    for name, output in outputs.items():
        split, labels = data.splits[name], output["label"]
        scores = metrics.among(output["logits"], split.among)
        probabilities = scores.softmax(1)
        top = scores.argmax(1)  # of probabilities there are ties where logits still differ
        columns = {
            "split": name,
            "id": list(split.ids),
            "label": labels.numpy(),
            "prediction": top.numpy(),
            "probability": probabilities.gather(1, top[:, None])[:, 0].numpy(),
            "label_probability": probabilities.gather(1, labels[:, None])[:, 0].numpy(),
        }
        groups = {kind: _named(ids, data.groups[kind]) for kind, ids in split.groups.items()}
        rows.append(pd.DataFrame({**columns, **groups}))
        logits.append(scores.numpy())
        table = metrics.per_class(scores, labels, data.classes, data.levels)
        table.insert(0, "split", name)
        tables.append(table)
        matrices[name] = metrics.confusion(scores, labels)
    pd.concat(rows, ignore_index=True).to_parquet(folder / "predictions.parquet")
    np.save(folder / "logits.npy", np.concatenate(logits))
    pd.concat(tables, ignore_index=True).to_csv(folder / "per_class.csv", index=False)
    # the stub takes any keyword for allow_pickle
    np.savez_compressed(folder / "confusion.npz", **matrices)  # type: ignore[arg-type]


def _named(ids: NDArray[np.int64], names: Sequence[str]) -> list[str | None]:
    """The name of each picture's group; None for none that counts."""
    return [names[i] if i >= 0 else None for i in ids.tolist()]


def write_ranks(
    folder: Path, data: CaptionDataModule, outputs: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Write ``ranks.parquet``, from which every recall follows, and paired tests.

    A row is a query: a caption that looks for its picture (``query`` is ``text``), or a picture
    that looks for the best of its captions (``image``, its caption null); ``id`` is the picture's,
    ``rank`` is 1 for the best.

    Args:
        folder: the run's.
        data: its splits.
        outputs: by split the features ``image`` (n, D) and ``text`` (m, D), in its order.
    """
    rows = []
    for name, output in outputs.items():
        owner, split = data.owner(name), data.splits[name]
        found = retrieval.ranks(output["image"], output["text"], owner)
        texts = [text for own in split.captions or () for text in own]
        told = {"split": name, "query": "text", "id": [split.ids[i] for i in owner.tolist()]}
        rows.append(pd.DataFrame({**told, "caption": texts, "rank": found.image.numpy()}))
        told = {"split": name, "query": "image", "id": list(split.ids)}
        rows.append(pd.DataFrame({**told, "caption": None, "rank": found.text.numpy()}))
    pd.concat(rows, ignore_index=True).to_parquet(folder / "ranks.parquet")
