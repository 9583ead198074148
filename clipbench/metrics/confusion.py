"""How often each class is taken for each other, in memory that grows with the images.

A matrix of 10,000 classes has 10^8 cells, of which a split of 50,000 images fills 50,000 at most.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

Counts = Any  # scipy.sparse.csr_array, which has no types: (C, C) int64, the true class by row

DENSE = 1000  # classes up to which a file has whole matrices, of 8 MB at most
_PARTS = ("data", "indices", "indptr")


def count(labels: ArrayLike, predictions: ArrayLike, classes: int) -> Counts:
    """Return how often each class (row) was taken for each (column).

    Args:
        labels: (n,) integers in [0, classes).
        predictions: (n,), likewise.
        classes: how many there are.
    """
    rows, columns = np.asarray(labels, np.int64), np.asarray(predictions, np.int64)
    cells, counts = np.unique(rows * classes + columns, return_counts=True)
    where = (cells // classes, cells % classes)
    return sparse.csr_array((counts.astype(np.int64), where), shape=(classes, classes))


def write(path: Path, matrices: Mapping[str, Counts]) -> None:
    """Write the matrix of each split to an ``.npz``.

    Up to :data:`DENSE` classes a split's entry is the (C, C) matrix itself. Above, it has the three
    entries ``<split>/data``, ``<split>/indices`` and ``<split>/indptr`` of
    ``scipy.sparse.csr_array((data, indices, indptr))``.
    """
    entries: dict[str, Any] = {}
    for name, matrix in matrices.items():
        if matrix.shape[0] <= DENSE:
            entries[name] = matrix.toarray()
        else:
            entries |= {f"{name}/{part}": getattr(matrix, part) for part in _PARTS}
    np.savez_compressed(path, **entries)


def read(path: Path) -> dict[str, Counts]:
    """Return the matrix of each split of a file that :func:`write` wrote."""
    matrices: dict[str, Counts] = {}
    with np.load(path) as file:
        for entry in file.files:
            name, _, part = entry.partition("/")
            if not part:
                matrices[name] = sparse.csr_array(file[name])
            elif name not in matrices:
                data, indices, indptr = (file[f"{name}/{part}"] for part in _PARTS)
                shape = (len(indptr) - 1, len(indptr) - 1)
                matrices[name] = sparse.csr_array((data, indices, indptr), shape=shape)
    return matrices


def most_confused(matrix: Counts, most: int) -> list[int]:
    """Return the classes with the most errors, as true class or as prediction, in label order.

    Args:
        matrix: (C, C) counts.
        most: how many classes; all, if there are no more.
    """
    errors = matrix.sum(0) + matrix.sum(1) - 2 * matrix.diagonal()
    worst: list[int] = np.argsort(-errors, kind="stable")[:most].tolist()
    return sorted(worst)
