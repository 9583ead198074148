"""Miniature datasets, drawn with a seed into the layouts that people have on disk."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from clipbench.transforms.augment import Augment
from clipbench.transforms.preprocess import Preprocess

TINY = Preprocess(size=16, resize=16, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
AUGMENT = Augment(scale=(0.5, 1.0), hflip=0.5)


def draw(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def class_folders(home: Path, classes: Iterable[str], each: int) -> None:
    for k, name in enumerate(classes):
        for i in range(each):
            draw(home / name / f"{name}_{i}.jpg", seed=100 * k + i)


def flowers(root: Path, classes: int = 3, sizes: tuple[int, int, int] = (2, 2, 4)) -> None:
    """Oxford's files, each image's class and split shuffled as in the real ones."""
    count = classes * sum(sizes)
    labels = np.arange(count) % classes + 1
    split = np.repeat(np.arange(3), [classes * n for n in sizes])
    shuffled = np.random.default_rng(0).permutation(count)
    home = root / "flowers-102"
    for i in range(count):
        draw(home / "jpg" / f"image_{i + 1:05d}.jpg", seed=i)
    table = np.empty(count, int)
    table[shuffled] = labels
    savemat(home / "imagelabels.mat", {"labels": table[None]})
    ids = [(shuffled[split == s] + 1)[None] for s in range(3)]
    savemat(home / "setid.mat", dict(zip(("trnid", "valid", "tstid"), ids, strict=True)))
