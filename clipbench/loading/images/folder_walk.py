"""The walk through a folder of images, whatever disk or system the folder comes from.

Thumbnails, previews, trash and resource forks are never images; links are followed, each folder
once; a file is an image by its name or, where its name does not tell, by its content.
"""

import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from clipbench.core.errors import UserError, printable
from clipbench.loading.images.decoding import EXTENSIONS, FORMATS

# Folders that systems and programs make beside a user's files, in lower case.
SYSTEM = frozenset(
    (
        *("__macosx", "network trash folder", "temporary items", "thevolumesettingsfolder"),
        *("@eadir", "@recycle", "@recently-snapshot", "@tmp", "@__thumb", "@transcode"),
        *("#recycle", "#snapshot", "~snapshot", "$recycle.bin", "recycler", "recycled"),
        *("system volume information", "found.000", "lost+found", "_vti_cnf", "__pycache__"),
    )
)
# Folders of small copies, which a user may have named: left out with a warning.
COPIES = frozenset(("thumbs", "thumbnails", "_thumbs", "__thumbs", "_thumbnails", "previews"))
SYSTEM_FILES = frozenset(("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"))
# Images in formats that are not read: they are reported as unreadable.
FOREIGN = frozenset(
    (
        *(".heic", ".heif", ".hif", ".avif", ".jxl", ".jp2", ".j2k", ".jpx", ".jpf", ".tga"),
        *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".exr", ".dcm"),
    )
)
# Endings of other files, which are not opened to find out.
OTHER = frozenset(
    (
        *(".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".md", ".html"),
        *(".npy", ".npz", ".mat", ".pkl", ".pt", ".h5", ".db", ".ini", ".log", ".url", ".lnk"),
        *(".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".pdf", ".doc", ".docx", ".xls", ".xlsx"),
        *(".mp4", ".mov", ".avi", ".mkv", ".wav", ".mp3", ".py", ".ipynb", ".aae", ".xmp"),
        *(".part", ".partial", ".crdownload", ".download", ".tmp", ".bak", ".old", ".orig"),
        *(".svg", ".psd", ".xcf", ".ico", ".eps", ".identifier"),
    )
)
NOT_UTF8 = re.compile("[\udc80-\udcff]")  # as Python reads bytes of a name that are not UTF-8
_BRANDS = (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"avis")


@dataclass
class Tree:
    """What is below a folder; paths are relative to it, with ``/``, and sorted.

    Attributes:
        root: the folder.
        folders: all but those of :data:`SYSTEM` and :data:`COPIES`, and hidden ones.
        images: files that are images by their name or their content, readable or not.
        others: all other files.
        copies: folders of small copies, which were left out.
        dangling: links that lead nowhere.
        twice: both paths of each folder that two paths lead to; the second was not entered.
    """

    root: Path
    folders: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)
    dangling: list[str] = field(default_factory=list)
    twice: list[tuple[str, str]] = field(default_factory=list)


Identity = tuple[int, int]  # of a folder: its device and its number there


def walk(root: Path) -> Tree:
    """Return what is below a folder.

    Raises:
        UserError: if a folder cannot be listed.
    """
    tree = Tree(root)
    above = {_identity(folder) for folder in (root.resolve(), *root.resolve().parents)}
    _enter(tree, "", above, {_identity(root): ""})
    for names in (tree.folders, tree.images, tree.others, tree.copies, tree.dangling, tree.twice):
        names.sort()
    return tree


def _enter(tree: Tree, home: str, above: set[Identity], entered: dict[Identity, str]) -> None:
    """Add what is in the folder ``home`` below the root, then what is in the folders below it.

    Above are the folder itself, those it was reached through and those around each of them;
    ``entered`` has the path that each folder was entered by.
    """
    names, below = [], []
    for entry in _entries(tree.root / home):
        path = joined(home, entry.name)
        if set_aside(entry.name):
            continue
        if not entry.is_dir():
            names.append(entry.name)
        elif entry.name.casefold() in COPIES:
            tree.copies.append(path)
        else:
            below.append((path, entry.is_symlink()))
    _sort_files(tree, home, names)
    for path, linked in sorted(below):
        identity = _identity(tree.root / path)
        if identity in above:
            continue  # a link to a folder around this one would go round for ever
        if identity in entered:
            tree.twice.append((entered[identity], path))
            continue
        tree.folders.append(path)
        entered[identity] = path
        around = (tree.root / path).resolve().parents if linked else ()
        _enter(tree, path, above | {identity} | set(map(_identity, around)), entered)


def _entries(folder: Path) -> Iterator["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        raise UserError(
            f"{printable(folder)}: this folder cannot be listed ({error.strerror}). "
            "Make it readable, or move it away"
        ) from error


def joined(home: str, name: str) -> str:
    """Return the path of a name in a folder, which is "" for the root."""
    return f"{home}/{name}" if home else name


def _identity(folder: Path) -> Identity:
    status = folder.stat()
    return status.st_dev, status.st_ino


def set_aside(name: str) -> bool:
    """Return whether a file or folder is the system's: hidden, a resource fork, trash, ...

    An image that iCloud has not downloaded yet, ``.a.jpg.icloud``, is the user's own.
    """
    hidden = name.startswith(".") and not name.endswith(".icloud")
    return hidden or name.casefold() in SYSTEM


def _sort_files(tree: Tree, home: str, names: list[str]) -> None:
    """Add the files of a folder as images, as others, or as links that lead nowhere."""
    images, unnamed = [], {}
    for name in names:
        path, suffix = joined(home, name), Path(name).suffix.lower()
        if name.casefold() in SYSTEM_FILES or suffix == ".identifier":
            continue
        if suffix in EXTENSIONS or suffix in FOREIGN or suffix == ".icloud":
            images.append(path)
        elif not (tree.root / path).exists():
            tree.dangling.append(path)
        elif suffix in OTHER or name.endswith("~"):
            tree.others.append(path)
        else:
            unnamed[path] = holds_image(tree.root / path)
    # Beside images without an ending, what is neither image nor text is a damaged image.
    some = any(unnamed.values())
    for path, is_image in unnamed.items():
        (images if is_image or (some and is_image is None) else tree.others).append(path)
    stems = {Path(path).stem for path in images if Path(path).suffix.lower() in EXTENSIONS}
    for path in images:
        # a camera's raw file beside its JPEG is not another image
        raw = Path(path).suffix.lower() in FOREIGN - EXTENSIONS and Path(path).stem in stems
        (tree.others if raw else tree.images).append(path)


def holds_image(path: Path) -> bool | None:
    """Return whether a file holds an image; None if it is empty or neither image nor text."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as file:
            head = file.read(512)
        if head[4:8] == b"ftyp" and head[8:12] in _BRANDS:
            return True
        with Image.open(path, formats=FORMATS):
            return True
    except OSError:
        pass
    except Exception:  # a damaged header: decoders raise errors of many kinds
        return None
    return None if not head or b"\0" in head else False


def is_image(name: str) -> bool:
    """Return whether a file is a user's image, by its name alone."""
    return Path(name).suffix.lower() in EXTENSIONS and not set_aside(name)


class Finder:
    """Finds files below a folder by their names in a table, whichever way é is written."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listed: dict[Path, dict[str, str]] = {}

    def find(self, name: str) -> Path:
        """Return the path of a file, whether it exists or not."""
        if name.isascii() or Path(name).is_absolute():
            return self.root / name
        path = self.root
        for part in Path(name).parts:
            path = path / self._names(path).get(identifier(part), part)
        return path

    def _names(self, folder: Path) -> dict[str, str]:
        if folder not in self._listed:
            paths = folder.iterdir() if folder.is_dir() else ()
            self._listed[folder] = {identifier(path.name): path.name for path in paths}
        return self._listed[folder]


def identifier(path: str) -> str:
    r"""Return a path as text that is the same on every system.

    macOS writes é as two characters. A name may not be UTF-8 at all: its bytes become ``\xe9``.
    """
    return unicodedata.normalize("NFC", printable(path))
