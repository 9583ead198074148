"""Weights that make classes of unequal size count alike."""

import numpy as np
from numpy.typing import NDArray


def evening(labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Return n / (C' n_c) of each class, (C,); 0 for those that no image has.

    C' is the number of classes that an image has, so that the mean over images is 1 (sklearn's
    "balanced").

    Args:
        labels: of n images, (n,).
        classes: C.
    """
    counts = np.bincount(labels, minlength=classes)
    seen = counts > 0
    return np.where(seen, counts.sum() / (seen.sum() * np.maximum(counts, 1)), 0.0)
