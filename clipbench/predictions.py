"""Every prediction of a run, with the id of its picture: what paired tests need."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from clipbench.datamodules.base import Split


def write(
    folder: Path, splits: Mapping[str, Split], outputs: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Write ``predictions.parquet`` and, row for row, ``logits.npy``.

    Args:
        folder: the run's.
        splits: in the order of the rows.
        outputs: per split the logits (n, C) and labels (n,), in the order of its pictures.
    """
    frames, logits = [], []
    for name, split in splits.items():
        scores = outputs[name]["logits"]
        probabilities = scores.softmax(1)
        labels = outputs[name]["label"]
        top = probabilities.max(1)
        frames.append(
            pd.DataFrame(
                {
                    "split": name,
                    "id": list(split.ids),
                    "label": labels.numpy(),
                    "prediction": top.indices.numpy(),
                    "probability": top.values.numpy(),
                    "label_probability": probabilities.gather(1, labels[:, None])[:, 0].numpy(),
                }
            )
        )
        logits.append(scores.numpy())
    pd.concat(frames, ignore_index=True).to_parquet(folder / "predictions.parquet")
    np.save(folder / "logits.npy", np.concatenate(logits))
