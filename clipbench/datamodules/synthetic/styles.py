"""Ways to paint a scene: the default paper, and the styles of a distribution shift."""

# numpy's ufuncs are typed as returning Any.
# mypy: disable-error-code="no-any-return"

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from clipbench.core.errors import UserError
from clipbench.datamodules.synthetic.drawing import (
    COLOURS,
    GRID_X,
    GRID_Y,
    SIDE,
    Field,
    Scene,
    coverage,
    fields,
    rgb,
)

BACKDROPS: dict[str, tuple[float, float, float]] = {
    "cream": (0.98, 0.94, 0.84),
    "mint": (0.84, 0.95, 0.88),
    "sky": (0.83, 0.92, 0.99),
    "lilac": (0.91, 0.87, 0.97),
    "rose": (0.99, 0.88, 0.89),
    "sand": (0.93, 0.88, 0.80),
}
# A painter gets the scene, the distance and second-tone fields, and its own random stream; it
# returns float32 (3, SIDE, SIDE) in about [0, 1].
Painter: TypeAlias = Callable[[Scene, Field, Field, np.random.Generator], Field]

_LIGHT: Field = (1.035 - 0.07 * (GRID_X + 2 * GRID_Y) / (3 * SIDE)).astype(np.float32)


def _towards(colour: Field, level: float, share: float) -> Field:
    """Return a colour moved towards a grey level."""
    return colour + np.float32(share) * (np.float32(level) - colour)


def _over(canvas: Field, colour: Field, alpha: Field) -> Field:
    """Paint a colour onto a canvas where alpha is 1."""
    return canvas + alpha * (colour - canvas)


def _ripples(rng: np.random.Generator, height: float) -> Field:
    """Return a smooth random field of about ``height`` pixels, for lines drawn by hand."""
    a, b, c, d = rng.uniform(0, 2 * np.pi, 4)
    waves = np.sin(GRID_X[0] / 5.3 + a) + np.sin(GRID_X[0] / 2.9 + b)
    cross = np.sin(GRID_Y[:, 0] / 4.7 + c) + np.sin(GRID_Y[:, 0] / 3.1 + d)
    return ((waves[None, :] + cross[:, None]) * (height / 2)).astype(np.float32)


def _noise(rng: np.random.Generator) -> Field:
    return rng.standard_normal((SIDE, SIDE), dtype=np.float32)


def _paper(scene: Scene, distance: Field, tone: Field, rng: np.random.Generator) -> Field:
    """Paint pastel paper, a soft shadow, a slightly darker rim."""
    ink = rgb(COLOURS[scene.colour])
    canvas = rgb(BACKDROPS[scene.backdrop]) * _LIGHT
    shadow = np.zeros_like(distance)
    reach = np.clip(0.5 - distance[:-4, :-3] / 7, 0, 1)
    shadow[4:, 3:] = reach * reach * np.float32(0.30)
    canvas = canvas * (1 - shadow)
    fill = _over(ink * (_LIGHT + np.float32(0.02)), _towards(ink, 1, 0.80), tone)
    rim = coverage(np.abs(distance + 0.9) - 0.9) * np.float32(0.9)
    return _over(canvas, _over(fill, ink * np.float32(0.45), rim), coverage(distance))


def _noisy(scene: Scene, distance: Field, tone: Field, rng: np.random.Generator) -> Field:
    """Paint a badly lit photograph of the paper."""
    grain = rng.standard_normal((3, SIDE, SIDE), dtype=np.float32)
    return _paper(scene, distance, tone, rng) * np.float32(0.82) + grain * np.float32(0.09)


def _sketch(scene: Scene, distance: Field, tone: Field, rng: np.random.Generator) -> Field:
    """Paint in coloured pencil: a wobbling outline and hatching."""
    ink = rgb(COLOURS[scene.colour])
    grain = _noise(rng)
    canvas = rgb((0.975, 0.965, 0.94)) + grain * np.float32(0.012)
    distance = distance + _ripples(rng, 0.8)
    hatch = np.sin((GRID_X + GRID_Y * np.float32(0.55)) * np.float32(2.1)) * np.float32(0.22)
    fill = coverage(distance) * (1 - tone) * np.clip(0.55 + hatch + grain * np.float32(0.08), 0, 1)
    line = coverage(np.abs(distance) - 0.45) * np.float32(0.85)
    return _over(_over(canvas, ink, fill), ink * np.float32(0.35), line)


def _chalk(scene: Scene, distance: Field, tone: Field, rng: np.random.Generator) -> Field:
    """Paint a blackboard."""
    chalk = _towards(rgb(COLOURS[scene.colour]), 1, 0.35)
    grain = _noise(rng)
    smear = _ripples(rng, 0.03)
    canvas = rgb((0.15, 0.23, 0.20)) + smear + grain * np.float32(0.01)
    dust = np.clip(0.62 + grain * np.float32(0.30), 0, 1)
    line = coverage(np.abs(distance + 0.6) - 0.9) * np.clip(dust + np.float32(0.3), 0, 1)
    area = coverage(distance) * (1 - tone * np.float32(0.9)) * dust * np.float32(0.75)
    return _over(canvas, chalk, np.maximum(line, area))


def _neon(scene: Scene, distance: Field, tone: Field, rng: np.random.Generator) -> Field:
    """Paint glowing tubes on a dark wall."""
    glow = _towards(rgb(COLOURS[scene.colour]), 1, 0.12)
    canvas = rgb((0.05, 0.04, 0.11)) * _LIGHT
    edge = np.abs(distance + np.float32(0.8))
    halo = np.exp(edge * np.float32(-0.30)) * np.float32(0.55)
    area = coverage(distance) * (1 - tone) * np.float32(0.45)
    return _over(canvas + glow * (halo + area), _towards(glow, 1, 0.65), coverage(edge - 0.6))


def _blueprint(scene: Scene, distance: Field, tone: Field, rng: np.random.Generator) -> Field:
    """Paint light lines over a grid on blue paper; the colour is a tint only."""
    line = _towards(rgb(COLOURS[scene.colour]), 1, 0.5)
    canvas = rgb((0.10, 0.25, 0.52)) * _LIGHT
    mesh = np.zeros((SIDE, SIDE), dtype=np.float32)
    mesh[scene.grain % 8 :: 8] = 0.14
    mesh[:, scene.grain % 7 :: 8] = 0.14
    area = coverage(distance) * (1 - tone) * np.float32(0.55)
    return _over(canvas + mesh, line, np.maximum(area, coverage(np.abs(distance) - 0.5)))


def _relief(scene: Scene, distance: Field, tone: Field, rng: np.random.Generator) -> Field:
    """Paint pressed clay, lit from the upper left: the colour is nearly gone."""
    clay = _towards(rgb(COLOURS[scene.colour]), 0.72, 0.78)
    height = np.clip(0.5 - distance / 3, 0, 1) * (1 - tone * np.float32(0.7))
    slope = np.zeros_like(height)
    slope[1:-1, 1:-1] = height[2:, 2:] - height[:-2, :-2]
    grain = _noise(rng) * np.float32(0.015)
    return clay * _LIGHT + slope * np.float32(0.42) + grain


STYLES: dict[str, Painter] = {
    "paper": _paper,
    "noisy": _noisy,
    "sketch": _sketch,
    "chalk": _chalk,
    "neon": _neon,
    "blueprint": _blueprint,
    "relief": _relief,
}


def draw(scene: Scene) -> NDArray[np.uint8]:
    """Draw the image of a scene.

    Returns:
        Pixels, uint8 (SIDE, SIDE, 3).

    Raises:
        UserError: if the scene names something that cannot be drawn.
    """
    if scene.style not in STYLES:
        raise UserError(f"no style '{scene.style}'. Use one of {', '.join(STYLES)}")
    distance, tone = fields(scene)
    canvas = STYLES[scene.style](scene, distance, tone, np.random.default_rng(scene.grain))
    pixels = np.clip(canvas * np.float32(255) + np.float32(0.5), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))
