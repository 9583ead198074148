"""What people would write under a picture of the procedural world."""

from clipbench.datamodules.synthetic.drawing import SIDE, Scene

PICTURE = {
    "paper": "a picture",
    "noisy": "a grainy photo",
    "sketch": "a pencil sketch",
    "chalk": "a chalk drawing",
    "neon": "a neon sign",
    "blueprint": "a blueprint",
    "relief": "a relief",
}


def article(noun: str) -> str:
    """Return the noun with its indefinite article."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _size(scene: Scene) -> str:
    return "large" if scene.size >= 20 else "small"


def _place(scene: Scene) -> str:
    dx, dy = scene.x - SIDE / 2, scene.y - SIDE / 2
    if max(abs(dx), abs(dy)) < 2:
        return "in the middle"
    if abs(dx) > abs(dy):
        return "on the left" if dx < 0 else "on the right"
    return "near the top" if dy < 0 else "near the bottom"


def captions(scene: Scene) -> list[str]:
    """Return five different captions, each of which names shape, fill and colour."""
    colour, fill, shape, backdrop = scene.colour, scene.fill, scene.shape, scene.backdrop
    picture, size, place = PICTURE[scene.style], _size(scene), _place(scene)
    return [
        f"{picture} of {article(colour)} {fill} {shape} {place}",
        f"a {size} {colour} {fill} {shape} on a {backdrop} background",
        f"{article(fill)} {shape} in {colour}, {place}",
        f"{picture} of a {size} {shape}, {colour} and {fill}",
        f"there is {article(colour)} {shape} that is {fill}, {size} and {place}",
    ]


def aspects(scene: Scene) -> list[str]:
    """Return captions of five kinds in several wordings; the first three name one attribute.

    Positions 0-2 name the shape, 3-5 the fill, 6-8 the colour, 9-11 fill and shape, 12-16 all
    three.
    """
    colour, fill, shape = scene.colour, scene.fill, scene.shape
    openings, nouns = ("", "a picture of ", "a drawing of "), ("shape", "thing", "figure")
    return [
        *(opening + article(shape) for opening in openings),
        *(f"{article(fill)} {noun}" for noun in nouns),
        *(f"{article(colour)} {noun}" for noun in nouns),
        *(f"{opening}{article(fill)} {shape}" for opening in openings),
        *captions(scene),
    ]


def inspection(defect: str) -> list[str]:
    """Return five different captions of a biscuit on a production line."""
    biscuit = f"{defect} biscuit"
    return [
        f"{article(biscuit)} on a conveyor belt",
        f"a photo of {article(biscuit)}",
        f"the camera above the line shows {article(biscuit)}",
        f"a round biscuit with a heart on it, {defect}",
        f"quality control: {defect}",
    ]
