"""Shapes and fills as signed distances: a scene in, two antialiased fields out.

Everything is a function of the pixel grid, so an image needs no supersampling and no image
library. The distance formulas follow https://iquilezles.org/articles/distfunctions2d/ (exact or
nearly so where it shows: at the edge). How the fields become colours is in ``styles.py``.
"""

# numpy's ufuncs are typed as returning Any.
# mypy: disable-error-code="no-any-return"

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clipbench.core.errors import UserError

Field: TypeAlias = NDArray[np.floating[Any]]

SIDE = 64
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.15, 0.18),
    "orange": (0.96, 0.52, 0.10),
    "yellow": (0.95, 0.79, 0.10),
    "green": (0.20, 0.62, 0.25),
    "teal": (0.06, 0.60, 0.62),
    "blue": (0.16, 0.34, 0.84),
    "purple": (0.52, 0.22, 0.74),
    "pink": (0.95, 0.42, 0.68),
    "brown": (0.50, 0.30, 0.16),
    "grey": (0.42, 0.43, 0.46),
}
FILLS = ("plain", "striped", "barred", "dotted", "checkered", "wavy", "shaded", "hollow")


@dataclass(frozen=True)
class Scene:
    """One thing in one image; the image is a function of this alone. Lengths are in pixels."""

    shape: str  # a key of SHAPES
    fill: str  # one of FILLS
    colour: str  # a key of COLOURS
    backdrop: str  # a key of styles.BACKDROPS
    style: str  # a key of styles.STYLES
    size: float  # radius of the shape
    x: float  # of its centre, from the left
    y: float  # of its centre, from the top
    angle: float  # rotation, in radians
    period: float  # repeat of the fill's pattern
    phase: float  # shift of that pattern, as a fraction of the period
    grain: int  # seed of whatever is random in the style

    def key(self) -> str:
        """Return the attributes as text: equal on every machine, unlike pixels (1/255)."""
        return "|".join(map(str, astuple(self)))


_ticks = np.arange(SIDE, dtype=np.float32) + 0.5
GRID_X: Field = np.broadcast_to(_ticks[None, :], (SIDE, SIDE)).copy()
GRID_Y: Field = np.broadcast_to(_ticks[:, None], (SIDE, SIDE)).copy()


def coverage(distance: Field) -> Field:
    """Return how much of each pixel is inside, 0 to 1, by its distance in pixels (< 0 inside)."""
    return np.clip(0.5 - distance, 0.0, 1.0)


def rgb(colour: Sequence[float]) -> Field:
    """Return a colour as (3, 1, 1)."""
    return np.asarray(colour, dtype=np.float32).reshape(3, 1, 1)


def _polygon(sides: int, inradius: float, u: Field, v: Field) -> Field:
    turn = 2 * np.pi * (np.arange(sides) + 0.5) / sides
    normals = np.stack([np.sin(turn), -np.cos(turn)], axis=1).astype(np.float32)
    planes = normals @ np.stack([u.ravel(), v.ravel()])
    return (planes.max(axis=0) - np.float32(inradius)).reshape(u.shape)


def _sector(points: int, u: Field, v: Field) -> tuple[Field, Field]:
    """Fold the plane into one half sector, its axis through the top."""
    length, step = np.hypot(u, v), 2 * np.pi / points
    turn = np.arctan2(u, -v)
    turn -= np.float32(step) * np.rint(turn * np.float32(1 / step))
    turn = np.abs(turn)
    return length * np.cos(turn), length * np.sin(turn)


def _star(u: Field, v: Field) -> Field:
    along, across = _sector(5, u, v)
    tip, inner, half = 1.04, 0.47, np.pi / 5
    edge = np.array([inner * np.cos(half) - tip, inner * np.sin(half)])
    normal = (np.array([edge[1], -edge[0]]) / np.hypot(*edge)).astype(np.float32)
    return normal[0] * (along - np.float32(tip)) + normal[1] * across


def _flower(u: Field, v: Field) -> Field:
    along, across = _sector(5, u, v)
    return np.minimum(np.hypot(along - np.float32(0.56), across) - np.float32(0.40), along - 0.5)


def _heart(u: Field, v: Field) -> Field:
    u, v = np.abs(u), v + np.float32(0.10)
    diagonal = np.float32(np.sqrt(0.5))
    along, across = (u + v) * diagonal, (u - v) * diagonal
    box = np.maximum(np.abs(along), np.abs(across)) - np.float32(0.56)
    lobe = np.hypot(along, across - np.float32(0.56)) - np.float32(0.56)
    # The mirrored box leaves out what its own lobe covers: |u| has both lobes already.
    return np.minimum(box, lobe)


def _crescent(u: Field, v: Field) -> Field:
    bite = np.hypot(u - np.float32(0.46), v + np.float32(0.12)) - np.float32(0.70)
    return np.maximum(np.hypot(u, v) - np.float32(0.94), -bite)


def _cross(u: Field, v: Field) -> Field:
    u, v = np.abs(u), np.abs(v)
    return np.minimum(np.maximum(u - 0.31, v - 0.92), np.maximum(u - 0.92, v - 0.31))


def _drop(u: Field, v: Field) -> Field:
    tip, centre, radius = -1.02, 0.32, 0.62
    sine = radius / (centre - tip)
    cosine = np.sqrt(1 - sine**2)
    u = np.abs(u)
    cone = np.float32(cosine) * u - np.float32(sine) * (v - np.float32(tip))
    below = v - np.float32(centre - radius * sine)
    return np.minimum(np.maximum(cone, below), np.hypot(u, v - np.float32(centre)) - radius)


SHAPES: dict[str, Callable[[Field, Field], Field]] = {
    "circle": lambda u, v: np.hypot(u, v) - np.float32(0.86),
    "square": lambda u, v: np.maximum(np.abs(u), np.abs(v)) - np.float32(0.77),
    "triangle": lambda u, v: _polygon(3, 0.54, u, v - np.float32(0.22)),
    "pentagon": partial(_polygon, 5, 0.79),
    "hexagon": partial(_polygon, 6, 0.82),
    "star": _star,
    "flower": _flower,
    "heart": _heart,
    "ring": lambda u, v: np.abs(np.hypot(u, v) - np.float32(0.64)) - np.float32(0.27),
    "crescent": _crescent,
    "cross": _cross,
    "drop": _drop,
}


def _bands(along: Field, period: float, phase: float) -> Field:
    """Return the coverage of the second of two bands that alternate along a coordinate."""
    place = along * np.float32(1 / period) + np.float32(phase)
    return coverage((np.abs(place - np.rint(place)) - np.float32(0.25)) * np.float32(period))


def _second_tone(scene: Scene, s: Field, t: Field) -> Field:
    """Return where the fill shows its lighter tone; s and t are pixels along the shape's axes."""
    period, phase = scene.period, scene.phase
    if scene.fill == "striped":
        return _bands((s + t) * np.float32(np.sqrt(0.5)), period, phase)
    if scene.fill == "barred":
        return _bands(t, period, phase)
    if scene.fill == "wavy":
        ripple = np.sin(s * np.float32(2 * np.pi / (1.9 * period))) * np.float32(0.30 * period)
        return _bands(t + ripple, period, phase)
    if scene.fill == "checkered":
        a, b = _bands(s, 1.5 * period, phase), _bands(t, 1.5 * period, phase)
        return a + b - 2 * a * b
    if scene.fill == "dotted":
        s, t = s / np.float32(period) + np.float32(phase), t / np.float32(period)
        return coverage((np.hypot(s - np.rint(s), t - np.rint(t)) - 0.31) * np.float32(period))
    if scene.fill == "shaded":
        return np.clip(0.5 - t * np.float32(0.62 / scene.size), 0.0, 1.0)
    return np.zeros_like(s)


def fields(scene: Scene) -> tuple[Field, Field]:
    """Return the geometry of a scene on the pixel grid.

    Returns:
        Distance to the painted area in pixels, negative inside, and the share of the fill's
        second tone in [0, 1]; both float32 (SIDE, SIDE).

    Raises:
        UserError: if the scene names a shape or a fill that does not exist.
    """
    if scene.shape not in SHAPES or scene.fill not in FILLS:
        raise UserError(
            f"cannot draw a {scene.fill} {scene.shape}. Shapes are {', '.join(SHAPES)}, "
            f"fills are {', '.join(FILLS)}"
        )
    cosine, sine = np.float32(np.cos(scene.angle)), np.float32(np.sin(scene.angle))
    dx, dy = GRID_X - np.float32(scene.x), GRID_Y - np.float32(scene.y)
    s, t = cosine * dx + sine * dy, cosine * dy - sine * dx
    size = np.float32(scene.size)
    distance = SHAPES[scene.shape](s / size, t / size) * size
    if scene.fill == "hollow":
        half = np.float32(0.12 * scene.size)
        return np.abs(distance + half) - half, np.zeros_like(distance)
    return distance, _second_tone(scene, s, t)
