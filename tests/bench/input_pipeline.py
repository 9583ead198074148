"""From a JPEG on disk to what a model sees, beside open_clip's own transform.

One process, one thread, CPU time; the variants take turns, so that a busy machine slows all alike.
"""

import os
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import open_clip
import pandas as pd
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from clipbench.loading.dataset import ImageDataset
from clipbench.loading.split import Split
from clipbench.transforms.preprocess import Preprocess, View

TITLE = "Input pipeline: images per second and core, CLIP ViT-B/32's preprocessing at 224 px"
ROUNDS = 7
PHOTOS = 24
GOALS = {"cold, torchvision (default)": 1.7, "from the cache": 5.0}

MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
PREPROCESS = Preprocess(size=224, resize=224, mean=MEAN, std=STD)


def photos(folder, size):
    """scikit-learn's two sample photos with noise, as JPEGs of quality 90."""
    generator = np.random.default_rng(0)
    for i in range(PHOTOS):
        photo = Image.fromarray(load_sample_images().images[i % 2]).resize(size)
        noise = generator.normal(0, 4, (size[1], size[0], 3))
        pixels = np.clip(np.asarray(photo) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02d}.jpg", quality=90)
    return sorted(folder.glob("*.jpg"))


def sets(folder):
    """Name -> paths: made photos of two sizes, and the Flowers102 photos where they are."""
    for size in ((500, 375), (800, 600)):
        home = folder / f"{size[0]}x{size[1]}"
        home.mkdir()
        yield home.name, photos(home, size)
    flowers = Path(os.environ.get("CLIPBENCH_DATA", "")) / "flowers102" / "flowers-102" / "jpg"
    if found := sorted(flowers.glob("*.jpg")):
        yield "flowers102", found[:: len(found) // PHOTOS][:PHOTOS]


def variants(paths):
    """Name -> function of a position; the first is the reference."""
    theirs = open_clip.image_transform(224, is_train=False, mean=MEAN, std=STD)
    split = Split([p.name for p in paths], np.zeros(len(paths), np.int64), paths, len(paths))
    view = View(PREPROCESS)
    quick, exact = ImageDataset(split, view), ImageDataset(split, view, decoder="pillow")
    cached = ImageDataset(split, view, cache_gb=1.0)
    return {
        "open_clip (Pillow)": lambda i: theirs(Image.open(paths[i])),
        "cold, pillow": lambda i: exact[i]["image"],
        "cold, torchvision (default)": lambda i: quick[i]["image"],
        "from the cache": lambda i: cached[i]["image"],
        "from the cache, uint8": lambda i: cached.kept(i).clone(),
    }


def seconds(look, count):
    """CPU seconds for each picture; many times over where one pass is too short for the clock."""
    start, passes = time.process_time(), 0
    while passes == 0 or time.process_time() - start < 0.05:
        for i in range(count):
            look(i)
        passes += 1
    return (time.process_time() - start) / (count * passes)


def furthest(look, reference, count):
    """The largest difference of any value, in steps of 1/255 before normalisation."""
    scale = 255 * torch.tensor(STD).view(3, 1, 1)
    return max(float(((look(i) - reference(i)) * scale).abs().max()) for i in range(count))


def rows(name, paths):
    """A row for each variant."""
    looks = variants(paths)
    taken = {variant: [] for variant in looks}
    for _ in range(ROUNDS):
        for variant, look in looks.items():
            taken[variant].append(seconds(look, len(paths)))
    reference = next(iter(looks))
    median = {variant: float(np.median(times)) for variant, times in taken.items()}
    for variant, look in looks.items():
        uint8 = look(0).dtype == torch.uint8
        apart = "" if uint8 else f"{furthest(look, looks[reference], len(paths)):.2f}"
        goal = GOALS.get(variant)
        yield {
            "photos": name,
            "variant": variant,
            "images/s/core": f"{1 / median[variant]:,.0f}",
            "ratio": f"{median[reference] / median[variant]:.2f}",
            "goal": "" if goal is None else f">= {goal}",
            "max difference of 255": apart,
        }


def run():
    """The table; every variant of a set beside the same reference."""
    torch.set_num_threads(1)
    before = os.environ.get("CLIPBENCH_OUTPUTS")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.environ["CLIPBENCH_OUTPUTS"] = folder  # the cache's place
        try:
            return pd.DataFrame([r for told in sets(Path(folder)) for r in rows(*told)])
        finally:
            os.environ.pop("CLIPBENCH_OUTPUTS")
            if before is not None:
                os.environ["CLIPBENCH_OUTPUTS"] = before
