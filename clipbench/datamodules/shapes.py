"""The embedded procedural world: captioned images of shapes, drawn at start in a second.

``python -m clipbench.datamodules.shapes`` draws the contact sheets of docs/data.md.
"""

import argparse
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf
from PIL import Image
from torchvision.transforms.v2.functional import to_pil_image
from torchvision.utils import make_grid

from clipbench.core import paths
from clipbench.core.errors import UserError
from clipbench.datamodules.base_classification import ClassificationDataModule
from clipbench.datamodules.options import Options
from clipbench.datamodules.synthetic.captions import aspects, captions, inspection
from clipbench.datamodules.synthetic.drawing import COLOURS, FILLS, SHAPES, SIDE, Scene
from clipbench.datamodules.synthetic.production_line import DEFECTS, Biscuit, photograph
from clipbench.datamodules.synthetic.styles import BACKDROPS, draw
from clipbench.loading.images.contents import SIZE
from clipbench.loading.split import Split


@dataclass(frozen=True)
class Look:
    """How the scenes of one split are laid out."""

    stream: int  # number of the split's random stream
    styles: tuple[str, ...] = ("paper",)  # equally probable; repeat one to see it more often
    size: tuple[float, float] = (14, 24)  # range of the radius, in pixels
    shift: float = 7  # of the centre from the middle, in pixels either way
    tilt: float = 0.45  # turn of the shape, in radians either way


# relief is in no pretraining image: to the tiny CLIP it is as new as it is to a ResNet.
SHIFT = ("sketch", "chalk", "neon", "blueprint", "relief")
KNOWN = ("paper", "paper", "paper", "noisy", "sketch", "chalk", "neon", "blueprint")
# What a web photograph is to a flower album: larger, more central, and in any style.
PRETRAIN = partial(Look, size=(17, 27), shift=5, tilt=0.3)
LOOKS = {
    "things": {
        "train": Look(0),
        "val": Look(1),
        "test": Look(2),
        "test_ood": Look(3, styles=SHIFT),
    },
    "pretrain": {"train": PRETRAIN(4, styles=KNOWN), "val": PRETRAIN(5)},
    "static": {"train": Look(6), "val": Look(7), "test": Look(8), "test_ood": Look(9)},
}


def imagine(look: Look, index: int, fill: str, shape: str, seed: int) -> Scene:
    """Return the scene at a position, a function of (seed, split, index) and the class."""
    rng = np.random.default_rng([seed, look.stream, index])
    colour, backdrop, style = rng.integers([len(COLOURS), len(BACKDROPS), len(look.styles)])
    u = rng.uniform(size=6)
    x, y = SIDE / 2 + (2 * u[:2] - 1) * look.shift
    size = look.size[0] + u[2] * (look.size[1] - look.size[0])
    return Scene(
        shape=shape,
        fill=fill,
        colour=list(COLOURS)[colour],
        backdrop=list(BACKDROPS)[backdrop],
        style=look.styles[style],
        size=round(float(size), 3),
        x=round(float(x), 3),
        y=round(float(y), 3),
        angle=round(float((2 * u[3] - 1) * look.tilt), 4),
        period=round(float(7 + 2.5 * u[4]), 3),
        phase=round(float(u[5]), 4),
        grain=int(rng.integers(2**31)),
    )


def inspect(look: Look, index: int, defect: str, seed: int, *, evening: bool) -> Biscuit:
    """Return the biscuit at a position, a function of (seed, split, index) and the class."""
    rng = np.random.default_rng([seed, look.stream, index])
    u = rng.uniform(size=6)
    return Biscuit(
        defect=defect,
        x=round(float(SIDE / 2 + 3 * u[0] - 1.5), 3),
        y=round(float(SIDE / 2 + 2 * u[1] - 1), 3),
        angle=round(float(0.3 * u[2] - 0.15), 4),
        bearing=round(float(2 * np.pi * u[3]), 4),
        reach=round(float(u[4]), 4),
        extent=round(float(u[5]), 4),
        evening=evening,
        grain=int(rng.integers(2**31)),
    )


@dataclass(frozen=True)
class Imagined(Split):
    """A split that is drawn image by image, when it is looked at; ``images`` have no pixels."""

    scenes: Sequence[Scene] = ()  # what each image shows

    def image(self, index: int, value_range: tuple[float, float] | None = None) -> Image.Image:
        """Draw the image at a position."""
        return Image.fromarray(draw(self.scenes[index]))

    def drawn(self) -> NDArray[np.uint8]:
        """Return the digest of each scene: a million are not drawn to be looked at."""
        texts = (scene.key().encode() for scene in self.scenes)
        digests = b"".join(hashlib.sha256(text).digest()[:SIZE] for text in texts)
        return np.frombuffer(digests, np.uint8).reshape(-1, SIZE)

    def take(self, index: NDArray[np.int64]) -> "Imagined":
        """Return the images at some positions, with their scenes."""
        rows = super().take(index)
        return replace(self, **vars(rows) | {"scenes": [self.scenes[i] for i in index]})


class ShapesDataModule(ClassificationDataModule):
    """Images of one thing each; a class is a fill and a shape, "striped star".

    Args:
        scene: ``things``; ``static``, a production line of biscuits whose classes are defects;
            or ``pretrain``, every pair of fill and shape that is *not* a class, in many styles.
        classes: the fill and the shape of each class, ``{"fill": "striped", "shape": "star"}``.
        counts: images a class in each split.
        defects: for ``static``, each class with its images in train; other splits in proportion.
        world_seed: the seed of the world, which is not the seed of a run.
        root: not used; there are no files.
        options: see :class:`clipbench.datamodules.base.Options`.

    Attributes:
        scenes: what each image shows, by the image's id.

    Raises:
        UserError: if the scene is unknown, or a class cannot be drawn.
    """

    def __init__(
        self,
        *,
        scene: str,
        classes: Sequence[Mapping[str, str]],
        counts: Mapping[str, int],
        defects: Mapping[str, int],
        world_seed: int = 0,
        root: str | Path = ".",
        **options: Unpack[Options],
    ) -> None:
        super().__init__(root=root, **options)
        if scene not in LOOKS:
            raise UserError(f"dataset.scene={scene}: unknown. Use one of {', '.join(LOOKS)}")
        everything = list(product(FILLS, SHAPES))
        held_out = [(c["fill"], c["shape"]) for c in classes]
        if wrong := [pair for pair in held_out if pair not in everything]:
            raise UserError(
                f"dataset.classes: cannot draw a {' '.join(wrong[0])}. Fills are "
                f"{', '.join(FILLS)}, shapes are {', '.join(SHAPES)}"
            )
        self.scene, self.counts, self.world_seed = scene, dict(counts), world_seed
        self.defects = dict(defects)
        self.pairs = held_out
        if scene == "pretrain":
            self.pairs = [pair for pair in everything if pair not in held_out]
        self.classes = [f"{fill} {shape}" for fill, shape in self.pairs]
        self.templates = ["a {}", "a picture of a {}", "a drawing of a {}"]
        if scene == "static":
            self.classes = [f"{defect} biscuit" for defect in self.defects]
            self.templates = ["a {}", "a photo of a {}", "a {} on a conveyor belt"]
            self.metrics = ("macro_f1", "acc", "mean_per_class")
        self.scenes: dict[str, Scene | Biscuit] = {}

    def read_splits(self) -> dict[str, Split]:
        """Lay out every scene, and draw those of the downstream splits: 3,000 a second."""
        make = {"things": self._things, "pretrain": self._pretrain, "static": self._static}
        looks = LOOKS[self.scene]
        return {name: make[self.scene](name, look) for name, look in looks.items()}

    def attributes(self, image: str) -> dict[str, str]:
        """Return shape, fill and colour of an image by its id; of a biscuit, its defect."""
        scene = self.scenes[image]
        if isinstance(scene, Biscuit):
            return {"defect": scene.defect}
        return {"shape": scene.shape, "fill": scene.fill, "colour": scene.colour}

    def _imagine(self, look: Look, count: int) -> tuple[list[Scene], NDArray[np.int64]]:
        labels = np.arange(count * len(self.pairs), dtype=np.int64) % len(self.pairs)
        pairs = [self.pairs[label] for label in labels]
        return [imagine(look, i, *p, seed=self.world_seed) for i, p in enumerate(pairs)], labels

    def _register(self, name: str, scenes: Sequence[Scene | Biscuit]) -> list[str]:
        """Return ids with a digest of the scene, so that the split's fingerprint covers it."""
        digests = [hashlib.sha256(scene.key().encode()).hexdigest()[:12] for scene in scenes]
        ids = [f"{name}/{i:05d}-{digest}" for i, digest in enumerate(digests)]
        self.scenes.update(zip(ids, scenes, strict=True))
        return ids

    def _things(self, name: str, look: Look) -> Split:
        scenes, labels = self._imagine(look, self.counts[name])
        ids, texts = self._register(name, scenes), [captions(scene) for scene in scenes]
        return Split(ids, labels, _stack(draw, scenes), expected=len(ids), captions=texts)

    def _pretrain(self, name: str, look: Look) -> Split:
        scenes, labels = self._imagine(look, self.counts[name])
        ids, texts = self._register(name, scenes), [aspects(scene) for scene in scenes]
        none = np.empty((len(ids), 0, 0, 3), dtype=np.uint8)
        return Imagined(ids, labels, none, expected=len(ids), captions=texts, scenes=scenes)

    def _static(self, name: str, look: Look) -> Split:
        share = self.counts[name] / self.counts["train"]
        counts = [max(1, round(share * n)) for n in self.defects.values()]
        labels = np.repeat(np.arange(len(counts)), counts).astype(np.int64)
        kinds, evening = list(self.defects), name == "test_ood"
        scenes = [
            inspect(look, i, kinds[label], self.world_seed, evening=evening)
            for i, label in enumerate(labels)
        ]
        ids, texts = self._register(name, scenes), [inspection(b.defect) for b in scenes]
        return Split(ids, labels, _stack(photograph, scenes), expected=len(ids), captions=texts)


def _stack(paint: Callable[..., NDArray[np.uint8]], scenes: Iterable[object]) -> NDArray[np.uint8]:
    return np.stack([paint(scene) for scene in scenes])


def contact_sheet(images: Iterable[NDArray[np.uint8]], path: Path) -> None:
    """Save images (SIDE, SIDE, 3) in rows of twelve, white between them."""
    tiles = torch.tensor(np.stack(list(images))).permute(0, 3, 1, 2)
    sheet = make_grid(tiles, nrow=12, padding=4, pad_value=255)
    to_pil_image(sheet).save(path, optimize=True)


def main() -> None:
    """Draw every class, each shift style, and the production line, to ``experiments/figures``."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", nargs="?", default=paths.EXPERIMENTS / "figures", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    classes = OmegaConf.load(paths.CONF / "dataset" / "shapes.yaml").classes
    pairs = [(c.fill, c.shape) for c in classes]
    scenes = [imagine(LOOKS["things"]["test"], i, *pair, seed=0) for i, pair in enumerate(pairs)]
    for number, style in enumerate(SHIFT):
        look = Look(3, styles=(style,))
        few = [(i, pairs[(i * 5 + number) % len(pairs)]) for i in range(12)]
        scenes += [imagine(look, 40 * number + i, *pair, seed=0) for i, pair in few]
    contact_sheet(map(draw, scenes), folder / "shapes.png")
    biscuits = [
        inspect(Look(8), 9 * i + j, defect, 0, evening=evening)
        for evening in (False, True)
        for i, defect in enumerate(DEFECTS)
        for j in range(2)
    ]
    contact_sheet(map(photograph, biscuits), folder / "biscuits.png")


if __name__ == "__main__":
    main()
