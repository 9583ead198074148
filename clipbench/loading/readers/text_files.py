"""Text files in any encoding and with any line ends, and names of splits in any spelling."""

import re
from collections.abc import Iterator
from pathlib import Path

from clipbench.core.errors import UserError

_WORDS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "validate", "dev"),
    "test": ("test", "testing", "tst"),
}
_SPLITS = {word: split for split, words in _WORDS.items() for word in words}
# Words that people write around it: train_images, Test Set, val2017, TrainingData.
_AFFIX = (
    r"(?:images?|imgs?|pics?|pictures?|photos?|data|datasets?|sets?|splits?|files?|folders?|crops?"
    r"|jpe?gs?|pngs?)"
)
_NAMED = re.compile(
    rf"(?:{_AFFIX}|\d+)*?({'|'.join(sorted(_SPLITS, key=len, reverse=True))})(?:{_AFFIX}|\d+)*"
)
_SHIFT = re.compile(r"test[_-](\w+)")


def decode(path: Path) -> tuple[str, str | None]:
    """Read a text file; return its text, and a warning if its encoding was guessed.

    It is UTF-8 or what a byte order mark says; else Windows-1252, which reads Latin-1 as well.

    Raises:
        UserError: if it cannot be read, or holds no text.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}). Fix it") from error
    # the mark of UTF-32 begins with that of UTF-16
    marks = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32"}
    marks |= {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
    marked = next((kind for mark, kind in marks.items() if content.startswith(mark)), "utf-8-sig")
    for encoding in (marked, *(("cp1252", "latin-1") if marked == "utf-8-sig" else ())):
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            break
        guessed = f"{path} is not UTF-8: read as {encoding}, which may be wrong; save it as UTF-8"
        return text, None if encoding == marked else guessed
    raise UserError(f"{path} is not text (bytes of zero, or a broken {marked}). Save it as UTF-8")


def split_name(text: str) -> str:
    """Return the split that a text names: train, val, test or test_<name>; "" if none.

    In any case, by usual synonyms (``Training``, ``dev``), with usual words around them
    (``images_val``, ``test2017``).
    """
    name = text.strip().casefold()
    if (shift := _SHIFT.fullmatch(name)) and not re.fullmatch(f"{_AFFIX}+", shift[1]):
        return f"test_{shift[1]}"
    match = _NAMED.fullmatch(re.sub(r"[\W_]+", "", name))
    return _SPLITS[match[1]] if match else ""


def around_split(name: str) -> tuple[str, str]:
    """Return the split whose word is in a name, and the other words: ``seg_train`` is train, seg.

    Both are empty if no word of a split is in it, or several are.
    """
    words = [word for word in re.split(r"[\W_]+|(?<=[a-z])(?=[A-Z])", name) if word]
    splits = [word for word in words if word.casefold() in _SPLITS]
    if len(splits) != 1:
        return "", ""
    others = [word.casefold() for word in words if word != splits[0]]
    return _SPLITS[splits[0].casefold()], " ".join(others)


def whole(path: Path) -> str:
    """Read a text file; raise a UserError if its encoding would have to be guessed."""
    text, guessed = decode(path)
    if guessed:
        raise UserError(guessed)
    return text


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the numbered lines of a text file without their ends, but for empty ones."""
    for number, line in enumerate(re.split("\r\n|\n|\r", whole(path)), 1):
        if line.strip():
            yield number, line
