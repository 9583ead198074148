"""A production line seen by a fixed camera: one biscuit at a time, and small things wrong with it.

Belt, rails, light and pose hardly change from image to image; what tells a good biscuit from
a bad one is a few pixels. That is the very static world in which a pretrained model's knowledge of
many kinds of image may be of little use.
"""

# numpy's ufuncs are typed as returning Any.
# mypy: disable-error-code="no-any-return"

from collections.abc import Callable
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from clipbench.core.errors import UserError
from clipbench.datamodules.synthetic.drawing import GRID_X, GRID_Y, SIDE, Field, coverage, rgb


@dataclass(frozen=True)
class Biscuit:
    """One biscuit under the camera."""

    defect: str  # one of DEFECTS
    x: float  # of its centre, in pixels from the left
    y: float  # of its centre, in pixels from the top
    angle: float  # rotation, in radians
    bearing: float  # direction of the defect from the centre, in radians
    reach: float  # how far out the defect is, 0 at the centre and 1 at the rim
    extent: float  # size of the defect, 0 for the smallest and 1 for the largest
    evening: bool  # low and warm lamps: the shift of this scene
    grain: int  # seed of the sensor noise and the crumb

    def key(self) -> str:
        """Return the attributes as text: equal on every machine."""
        return "|".join(map(str, astuple(self)))


RADIUS = 22.0


@dataclass
class _Canvas:
    """A biscuit while it is made: pixels, its distance field, and where the stamp goes."""

    pixels: Field
    distance: Field
    stamp: tuple[float, float]
    rng: np.random.Generator

    def blend(self, colour: tuple[float, float, float], alpha: Field) -> None:
        self.pixels = self.pixels + alpha * (rgb(colour) - self.pixels)


def _spot(biscuit: Biscuit, reach: float) -> tuple[Field, float, float]:
    """Return each pixel's distance to the defect, and the defect's offset from the centre."""
    dx = float(np.cos(biscuit.bearing)) * reach * RADIUS
    dy = float(np.sin(biscuit.bearing)) * reach * RADIUS
    away = np.hypot(GRID_X - np.float32(biscuit.x + dx), GRID_Y - np.float32(biscuit.y + dy))
    return away.astype(np.float32), dx, dy


def _chip(biscuit: Biscuit, canvas: _Canvas) -> None:
    away, _, _ = _spot(biscuit, 1.02)
    canvas.distance = np.maximum(canvas.distance, np.float32(2.2 + 2.2 * biscuit.extent) - away)


def _misprint(biscuit: Biscuit, canvas: _Canvas) -> None:
    shift = 2.2 + 2.0 * biscuit.extent
    bearing = biscuit.bearing
    canvas.stamp = shift * float(np.cos(bearing)), shift * float(np.sin(bearing))


def _burn(biscuit: Biscuit, canvas: _Canvas) -> None:
    away, _, _ = _spot(biscuit, 0.45 + 0.5 * biscuit.reach)
    fade = np.clip(1.25 - away / np.float32(3.5 + 2.5 * biscuit.extent), 0, 1)
    canvas.blend((0.30, 0.16, 0.07), fade * np.float32(0.75))


def _stain(biscuit: Biscuit, canvas: _Canvas) -> None:
    away, _, _ = _spot(biscuit, 0.25 + 0.6 * biscuit.reach)
    radius = 1.8 + 1.0 * biscuit.extent
    canvas.blend((0.72, 0.12, 0.20), coverage(away - radius) * np.float32(0.9))


def _crack(biscuit: Biscuit, canvas: _Canvas) -> None:
    """Draw a jagged line that starts at the rim and runs across."""
    _, dx, dy = _spot(biscuit, 1.0)
    turn = biscuit.bearing + np.pi + 0.7 * (biscuit.reach - 0.5)
    ex, ey = float(np.cos(turn)), float(np.sin(turn))
    u, v = GRID_X - np.float32(biscuit.x + dx), GRID_Y - np.float32(biscuit.y + dy)
    along, across = u * ex + v * ey, v * ex - u * ey
    jag = np.sin(along * np.float32(1.1)) + np.sin(along * np.float32(0.55) + 1)
    length = 9 + 8 * biscuit.extent
    line = coverage(np.abs(across - jag * np.float32(0.6)) - 0.55)
    canvas.blend((0.28, 0.15, 0.07), line * coverage(along - length) * coverage(-along - 1))


# Those that change the outline or the stamp come before the drawing, the others after it.
BEFORE: dict[str, Callable[[Biscuit, _Canvas], None]] = {"chipped": _chip, "misprinted": _misprint}
AFTER: dict[str, Callable[[Biscuit, _Canvas], None]] = {
    "cracked": _crack,
    "burnt": _burn,
    "stained": _stain,
}
DEFECTS = ("flawless", *BEFORE, *AFTER)


def _belt() -> Field:
    """Draw steel rails and a ribbed belt: the same in every image."""
    ribs = np.float32(0.035) * np.sin(GRID_X * np.float32(2 * np.pi / 6.4))
    belt = rgb((0.25, 0.29, 0.34)) + ribs
    steel = rgb((0.66, 0.69, 0.73))
    depth = np.minimum(GRID_Y, SIDE - GRID_Y)
    gleam = np.float32(0.16) * np.cos((depth - 2.2) * np.float32(0.9))
    rail = coverage(depth - 5.0)
    shade = 1 - np.float32(0.45) * np.clip(1.6 - np.abs(depth - 6.0) / 2.5, 0, 1) * (1 - rail)
    return (belt + rail * (steel + gleam - belt)) * shade


_BELT = _belt()


def _bake(canvas: _Canvas, u: Field, v: Field) -> None:
    """Draw the shadow, the dough and the stamp: a raised ring, eight holes, a heart."""
    shadow = np.zeros((SIDE, SIDE), dtype=np.float32)
    reach = np.clip(0.5 - canvas.distance[:-4, :-2] / 6, 0, 1)
    shadow[4:, 2:] = reach * np.float32(0.5)
    canvas.pixels = canvas.pixels * (1 - shadow)
    bulge = np.clip(-canvas.distance / 5, 0, 1)
    crumb = canvas.rng.standard_normal((SIDE, SIDE), dtype=np.float32) * np.float32(0.012)
    light = np.float32(0.80) + 0.20 * bulge - (u + v) * np.float32(0.003) + crumb
    dough = rgb((0.93, 0.72, 0.42))
    canvas.pixels = canvas.pixels + coverage(canvas.distance) * (dough * light - canvas.pixels)
    u, v = u - np.float32(canvas.stamp[0]), v - np.float32(canvas.stamp[1])
    length = np.hypot(u, v)
    inside = coverage(canvas.distance + 1)
    ring = coverage(np.abs(length - np.float32(0.78 * RADIUS)) - 0.5)
    canvas.blend((0.72, 0.49, 0.24), ring * inside * np.float32(0.7))
    for turn in np.arange(8) * np.pi / 4 + np.pi / 8:
        hole = np.hypot(u - np.float32(12.6 * np.cos(turn)), v - np.float32(12.6 * np.sin(turn)))
        canvas.blend((0.50, 0.31, 0.14), coverage(hole - 1.0) * np.float32(0.85))
    p, q = np.abs(u) / np.float32(6.5), v / np.float32(6.5) + np.float32(0.1)
    along, across = (p + q) * np.float32(0.7071), (p - q) * np.float32(0.7071)
    box = np.maximum(np.abs(along), np.abs(across)) - np.float32(0.56)
    heart = np.minimum(box, np.hypot(along, across - np.float32(0.56)) - np.float32(0.56))
    canvas.blend((0.64, 0.41, 0.19), coverage(np.abs(heart * np.float32(6.5)) - 0.6) * inside)


def photograph(biscuit: Biscuit) -> NDArray[np.uint8]:
    """Draw the camera's image of a biscuit.

    Returns:
        Pixels, uint8 (SIDE, SIDE, 3).

    Raises:
        UserError: if there is no such defect.
    """
    if biscuit.defect not in DEFECTS:
        raise UserError(f"no defect '{biscuit.defect}'. Use one of {', '.join(DEFECTS)}")
    u, v = GRID_X - np.float32(biscuit.x), GRID_Y - np.float32(biscuit.y)
    scallops = np.float32(0.6) * np.cos(np.arctan2(v, u) * 20 + np.float32(biscuit.angle * 20))
    distance = np.hypot(u, v) - np.float32(RADIUS) + scallops
    canvas = _Canvas(_BELT, distance, (0.0, 0.0), np.random.default_rng(biscuit.grain))
    if biscuit.defect in BEFORE:
        BEFORE[biscuit.defect](biscuit, canvas)
    cosine, sine = np.float32(np.cos(biscuit.angle)), np.float32(np.sin(biscuit.angle))
    _bake(canvas, cosine * u + sine * v, cosine * v - sine * u)
    belt_and_all = canvas.pixels
    if biscuit.defect in AFTER:
        AFTER[biscuit.defect](biscuit, canvas)
    # What lies on a biscuit does not spill onto the belt.
    pixels = belt_and_all + coverage(distance) * (canvas.pixels - belt_and_all)
    if biscuit.evening:
        lamp = np.clip(np.float32(1.15) - np.hypot(GRID_X - 60, GRID_Y - 4) / 90, 0.3, 1)
        pixels = pixels * lamp * rgb((0.95, 0.74, 0.56))
    noise = canvas.rng.standard_normal((3, SIDE, SIDE), dtype=np.float32) * np.float32(0.01)
    out = np.clip((pixels + noise) * np.float32(255) + np.float32(0.5), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(out.transpose(1, 2, 0))
