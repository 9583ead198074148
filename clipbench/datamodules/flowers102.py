"""Oxford Flowers102 (Nilsback and Zisserman 2008) in its official splits, as in torchvision."""

from typing import ClassVar

from torchvision import datasets

from clipbench.datamodules.torchvision_sets import Parts, TorchvisionDataModule
from clipbench.loading.download.files import Remote

# CLIP's prompt names (openai/CLIP data/prompts.md), in label order: image class - 1. torchvision's
# own differ in three: globe-flower, "pink-yellow dahlia?" and ball moss (here: air plant). FLYP's
# list is alphabetical and fits no loader that follows the labels.
CLASSES = """
pink primrose, hard-leaved pocket orchid, canterbury bells, sweet pea, english marigold, tiger
lily, moon orchid, bird of paradise, monkshood, globe thistle, snapdragon, colt's foot, king
protea, spear thistle, yellow iris, globe flower, purple coneflower, peruvian lily, balloon
flower, giant white arum lily, fire lily, pincushion flower, fritillary, red ginger, grape
hyacinth, corn poppy, prince of wales feathers, stemless gentian, artichoke, sweet william,
carnation, garden phlox, love in the mist, mexican aster, alpine sea holly, ruby-lipped cattleya,
cape flower, great masterwort, siam tulip, lenten rose, barbeton daisy, daffodil, sword lily,
poinsettia, bolero deep blue, wallflower, marigold, buttercup, oxeye daisy, common dandelion,
petunia, wild pansy, primula, sunflower, pelargonium, bishop of llandaff, gaura, geranium, orange
dahlia, pink and yellow dahlia, cautleya spicata, japanese anemone, black-eyed susan, silverbush,
californian poppy, osteospermum, spring crocus, bearded iris, windflower, tree poppy, gazania,
azalea, water lily, rose, thorn apple, morning glory, passion flower, lotus, toad lily, anthurium,
frangipani, clematis, hibiscus, columbine, desert-rose, tree mallow, magnolia, cyclamen,
watercress, canna lily, hippeastrum, bee balm, air plant, foxglove, bougainvillea, camellia,
mallow, mexican petunia, bromelia, blanket flower, trumpet creeper, blackberry lily
"""
OXFORD = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"


class Flowers102DataModule(TorchvisionDataModule):
    """102 kinds of flowers: 1,020 photos to train on, 1,020 to validate, 6,149 to test.

    Not comparable with the split of CoOp and its followers, which trains on four times as much.

    Args:
        root: torchvision's root, the folder that holds ``flowers-102``.
        options: see :class:`clipbench.datamodules.base.Options`.
    """

    source, home = datasets.Flowers102, "flowers-102"
    parts: ClassVar[Parts] = {name: {"split": name} for name in ("train", "val", "test")}
    published_name = "vtab/flowers"
    # md5s as in torchvision, sizes as in tensorflow/datasets url_checksums/oxford_flowers102.txt
    files = (
        Remote(
            f"{OXFORD}102flowers.tgz",
            "flowers-102/102flowers.tgz",
            size=344_862_509,
            md5="52808999861908f626f3c1f4e79d11fa",
            unpack="flowers-102",
            makes=("flowers-102/jpg",),
        ),
        *(
            Remote(f"{OXFORD}{name}", f"flowers-102/{name}", size=size, md5=md5)
            for name, size, md5 in (
                ("imagelabels.mat", 502, "e0620be6f572b9609742df49c70aed4d"),
                ("setid.mat", 14_989, "a5357ecc9cb78c4bef273ce3793fc85c"),
            )
        ),
    )

    def name_classes(self) -> None:
        """Set the names of its classes and its template."""
        self.keys = self.classes = [" ".join(name.split()) for name in CLASSES.split(",")]
        self.templates = ["a photo of a {}, a type of flower."]
