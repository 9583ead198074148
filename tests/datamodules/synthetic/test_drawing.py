"""The drawing of the embedded world: deterministic, antialiased, within its bounds."""

from dataclasses import replace

import numpy as np
import pytest

from clipbench.core.errors import UserError
from clipbench.datamodules.synthetic.drawing import (
    COLOURS,
    FILLS,
    SHAPES,
    SIDE,
    Scene,
    coverage,
    fields,
)
from clipbench.datamodules.synthetic.production_line import DEFECTS, Biscuit, photograph
from clipbench.datamodules.synthetic.styles import BACKDROPS, STYLES, draw

STAR = Scene(
    *("star", "plain", "red", "sky", "paper"),
    *(20.0, 32.0, 32.0, 0.1, 8.0, 0.25, 7),
)
GOOD = Biscuit("flawless", 32.0, 32.0, 0.0, 0.7, 0.5, 1.0, False, 3)


@pytest.mark.parametrize("style", STYLES)
def test_a_scene_has_one_image(style):
    scene = replace(STAR, style=style)
    first, second = draw(scene), draw(replace(scene))
    assert first.shape == (SIDE, SIDE, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, second)
    assert scene.key() == replace(scene).key() != replace(scene, grain=8).key()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_near_its_radius_and_antialiased(shape):
    distance, _ = fields(replace(STAR, shape=shape))
    covered = coverage(distance)
    ticks = np.arange(SIDE) + 0.5 - 32
    radius = np.hypot(*np.meshgrid(ticks, ticks))
    assert covered[radius > 1.3 * STAR.size].max() == 0
    assert 0.15 < covered.sum() / (np.pi * STAR.size**2) < 1
    edge = (covered > 0.02) & (covered < 0.98)
    assert edge.sum() > 40  # a hard edge would have none


def test_all_shapes_and_all_fills_differ():
    shapes = [draw(replace(STAR, shape=shape)) for shape in SHAPES]
    fills = [draw(replace(STAR, fill=fill)) for fill in FILLS]
    for family in (shapes, fills):
        for i, one in enumerate(family):
            for other in family[:i]:
                assert np.abs(one.astype(int) - other).mean() > 1.0


def test_a_fill_moves_with_its_shape():
    """The pattern lies on the thing, not on the page."""
    near = draw(replace(STAR, fill="dotted", angle=0.0))
    far = draw(replace(STAR, fill="dotted", angle=0.0, x=36.0, y=30.0))
    moved = np.roll(near, (-2, 4), axis=(0, 1))
    inside = coverage(fields(replace(STAR, angle=0.0, x=36.0, y=30.0))[0]) == 1
    assert np.abs(far.astype(int) - moved)[inside].max() <= 4  # the light falls from a corner


@pytest.mark.parametrize("colour", COLOURS)
def test_a_colour_shows(colour):
    image = draw(replace(STAR, colour=colour, shape="square", angle=0.0))
    middle = image[28:36, 28:36].reshape(-1, 3).mean(0) / 255
    nearest = min(COLOURS, key=lambda name: np.abs(middle - COLOURS[name]).sum())
    assert nearest == colour


def test_a_backdrop_shows():
    corners = [draw(replace(STAR, backdrop=name))[:4, :4].mean((0, 1)) for name in BACKDROPS]
    for i, one in enumerate(corners):
        assert all(np.abs(one - other).max() > 4 for other in corners[:i])


def test_the_style_changes_the_image_and_not_the_geometry():
    images = [draw(replace(STAR, style=style)) for style in STYLES]
    assert len({image.tobytes() for image in images}) == len(STYLES)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"shape": "blob"}, "circle"), ({"fill": "furry"}, "striped"), ({"style": "oil"}, "chalk")],
)
def test_what_cannot_be_drawn_is_refused_with_what_can(wrong, named):
    with pytest.raises(UserError, match=named):
        draw(replace(STAR, **wrong))


@pytest.mark.parametrize("defect", [d for d in DEFECTS if d != "flawless"])
def test_a_defect_is_small_and_visible(defect):
    good, bad = photograph(GOOD).astype(int), photograph(replace(GOOD, defect=defect)).astype(int)
    changed = (np.abs(good - bad).max(axis=2) > 30).mean()
    assert 0.001 < changed < 0.12


def test_the_camera_is_fixed():
    one, other = photograph(GOOD), photograph(replace(GOOD, x=31.0, angle=0.1, grain=9))
    assert np.abs(one[:8].astype(int) - other[:8]).max() < 30  # rails and sensor noise


def test_an_unknown_defect_is_refused():
    with pytest.raises(UserError, match="chipped"):
        photograph(replace(GOOD, defect="soggy"))
