"""Text files whatever their encoding and line ends, and splits whatever they are called."""

import re
from collections.abc import Iterator
from pathlib import Path

from clipbench.errors import Refused

_SPLITS = {"train": "train", "test": "test"} | dict.fromkeys(
    ("val", "valid", "validation", "dev"), "val"
)


def decode(path: Path) -> tuple[str, str | None]:
    """A text file, and the warning that its encoding had to be guessed.

    UTF-8, and whatever a byte order mark says; else Windows-1252, which reads Latin-1 as well.

    Raises:
        Refused: if it cannot be read, or holds no text.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Refused(f"{path} cannot be read ({error.strerror or error}); mend it") from error
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
    raise Refused(f"{path} is no text (bytes of zero, or a broken {marked}); save it as UTF-8")


def split_name(given: str) -> str:
    """A split's name as ours, whatever it is called; empty if it is none."""
    name = given.strip().lower()
    return name if re.fullmatch(r"test_\w+", name) else _SPLITS.get(name, "")


def whole(path: Path) -> str:
    """A text file whose encoding need not be guessed.

    Raises:
        Refused: if it would have to be.
    """
    text, guessed = decode(path)
    if guessed:
        raise Refused(guessed)
    return text


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines, ends taken off and nothing else; empty ones left out."""
    for number, line in enumerate(re.split("\r\n|\n|\r", whole(path)), 1):
        if line.strip():
            yield number, line
