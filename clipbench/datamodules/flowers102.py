"""Oxford Flowers102 (Nilsback and Zisserman 2008) in its official splits, as in torchvision."""

import socket
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from tarfile import TarError
from threading import Thread
from typing import Unpack

import numpy as np
from torchvision.datasets import Flowers102

from clipbench.datamodules.base import ClassificationDataModule, Options, Split
from clipbench.errors import Refused

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
SECONDS = 20  # how long to wait for the server; a name server alone may take half of it


class Flowers102DataModule(ClassificationDataModule):
    """102 kinds of flowers: 1,020 photos to train on, 1,020 to validate, 6,149 to test.

    Not comparable with the split of CoOp and its followers, which trains on four times as much.

    Args:
        root: torchvision's root, the folder that holds ``flowers-102``.
        download: fetch the dataset (345 MB, checked by md5) if it is not there.
        options: see :class:`clipbench.datamodules.base.Options`.
    """

    published_name = "vtab/flowers"

    def __init__(
        self,
        *,
        root: str | Path,
        download: bool = True,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(root=root, **options)
        self.download = download
        self.classes = [" ".join(name.split()) for name in CLASSES.split(",")]
        self.templates = ["a photo of a {}, a type of flower."]

    def read_splits(self) -> dict[str, Split]:
        """The three official splits, row for row as torchvision's ``Flowers102``."""
        needed = ("jpg", "imagelabels.mat", "setid.mat")
        if self.download and not all((self.root / "flowers-102" / n).exists() for n in needed):
            self._fetch()
        try:
            return {name: self._read(name) for name in ("train", "val", "test")}
        except (RuntimeError, OSError) as error:
            raise Refused(self._missing("is not there, or its .mat files are damaged")) from error

    def _read(self, name: str) -> Split:
        official = Flowers102(self.root, split=name)
        paths = official._image_files
        return Split(
            ids=[path.relative_to(self.root).as_posix() for path in paths],
            labels=np.array(official._labels, dtype=np.int64),
            pictures=paths,
            expected=len(paths),
        )

    def _fetch(self) -> None:
        if not _answers(Flowers102._download_url_prefix, SECONDS):
            raise Refused(self._missing("is not there and cannot be downloaded"))
        patience = socket.getdefaulttimeout()
        socket.setdefaulttimeout(SECONDS)  # torchvision sets none: a stalled server hangs forever
        try:
            Flowers102(self.root, download=True)
        except (RuntimeError, OSError, HTTPException, TarError) as error:
            raise Refused(self._missing(f"could not be downloaded ({error})")) from error
        finally:
            socket.setdefaulttimeout(patience)

    def _missing(self, what: str) -> str:
        names = ", ".join(name for name, _ in Flowers102._file_dict.values())
        return (
            f"flowers102 {what}; get {names} from {Flowers102._download_url_prefix} into "
            f"{self.root / 'flowers-102'} and unpack the archive there (it makes jpg/), or set "
            "dataset.root"
        )


def _answers(url: str, seconds: float) -> bool:
    """Whether a server answers in time; in a thread, as a name look-up cannot be timed out."""
    answered: list[bool] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(url, timeout=seconds):
                answered.append(True)
        except urllib.error.HTTPError:
            answered.append(True)  # if only to say that folders are not listed
        except OSError:
            pass

    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(answered)
