"""The rows of anyone's CSV, TSV or JSONL file, each with the line it begins on."""

import csv
import io
import json
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from clipbench.core.errors import UserError
from clipbench.loading.images.decoding import EXTENSIONS
from clipbench.loading.images.folder_walk import identifier
from clipbench.loading.readers.text_files import decode, split_name

Row = tuple[int, Mapping[str, Any]]
_TABLES, _JSON_LINES = (".csv", ".tsv", ".tab", ".txt"), (".jsonl", ".ndjson")
SUFFIXES = (*_TABLES, *_JSON_LINES)
PATH_KEYS = (
    *("image", "path", "filepath", "file_path", "filename", "file_name", "file"),
    *("image_path", "image_file", "image_name", "img", "img_path"),
)
SPLIT_KEYS = ("split",)
# Excel's own first line, which says how the cells are divided.
_SEPARATOR = re.compile(r'\s*"?sep=(.)"?[^\S\n]*\r?\n', re.IGNORECASE)
# the first cell, in quotes or not, and what ends it
_DELIMITER = re.compile(r'\s*(?:"(?:[^"]|"")*"|[^",;\t|]*)([,;\t|])')


@dataclass(frozen=True)
class Table:
    """A file's rows, each a line number and a cell by column.

    Each line that is not a row is ``wrong``, ``file:line: reason``. Warnings are about guesses.
    """

    columns: Sequence[str]
    rows: Sequence[Row]
    wrong: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read(path: Path, what: str = "caption") -> Table:
    """Read the rows of a file by its suffix; without a header its columns are image and ``what``.

    Raises:
        UserError: if it is of another kind, is empty, or is damaged.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{path} is none of {' '.join(SUFFIXES)}. Save its rows as one of them")
    text, guessed = decode(path)
    if not text.strip():
        raise UserError(f"{path} is empty. Give it a row for each {what}")
    table = _json_lines(path, text) if suffix in _JSON_LINES else _delimited(path, text, what)
    table.warnings[:0] = [guessed] if guessed else []
    return table


def _json_lines(path: Path, text: str) -> Table:
    rows, wrong, columns = [], [], dict[str, None]()
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            wrong.append(f"{path.name}:{number}: not JSON ({error})")
            continue
        if isinstance(row, dict):
            rows.append((number, row))
            columns |= dict.fromkeys(row)
        else:
            wrong.append(f"{path.name}:{number}: not a JSON object")
    return Table(list(columns), rows, wrong)


def _delimited(path: Path, text: str, what: str) -> Table:
    if separator := _SEPARATOR.match(text):
        delimiter, text = separator[1], "\n" + text[separator.end() :]  # lines keep their numbers
    elif path.suffix.lower() in (".tsv", ".tab"):
        delimiter = "\t"
    else:
        match = _DELIMITER.match(text)
        delimiter = match[1] if match else ","
    warnings = []
    try:
        lines = list(_cells(text, delimiter))
    except csv.Error as error:
        if delimiter != "\t":
            raise UserError(
                f"{path.name}:{error}. Close the quotes, doubling those within"
            ) from None
        lines = list(_cells(text, delimiter, csv.QUOTE_NONE))
        warnings.append(f"{path.name} has quotes that do not close: all are read as characters")
    if not lines:
        raise UserError(f"{path} is empty. Give it a row for each {what}")
    columns, headed = _columns(path, lines[0][1], what)
    if not headed:
        warnings.append(f"{path.name} has no header: its columns are taken as {columns}")
    rows, wrong = [], []
    for number, cells in lines[headed:]:
        if len(cells) == len(columns):
            rows.append((number, dict(zip(columns, cells, strict=True))))
        else:
            wrong.append(f"{path.name}:{number}: {len(cells)} cells, not {len(columns)}")
    return Table(columns, rows, wrong, warnings)


def _cells(text: str, delimiter: str, quoting: Any = csv.QUOTE_MINIMAL) -> Iterator[Any]:
    """Yield the line number and the cells of each row that is not empty.

    Raises:
        csv.Error: with the line that the faulty row begins on.
    """
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:  # also a cell of over 131,072 characters: quotes left open
            raise csv.Error(f"{start}: {error}") from None
        if any(cell.strip() for cell in cells):
            yield start, cells


def _columns(path: Path, first: Sequence[str], what: str) -> tuple[list[str], bool]:
    """Return the column names, and whether a header gives them; else path and ``what``."""
    images = [Path(cell.strip()).suffix.lower() in EXTENSIONS for cell in first]
    if not any(images):
        names = [cell.strip() for cell in first]
        if twice := [name for name, n in Counter(names).items() if n > 1 and name]:
            raise UserError(f"{path} has columns of the same name {twice}. Rename them")
        return names, True
    if len(first) != 2:
        raise UserError(f"{path} has no header. Give it a first line with its columns' names")
    return (["image", what] if images[0] else [what, "image"]), False


def columns(
    file: Path,
    table: Table,
    usual: Mapping[str, Sequence[str]],
    keys: Mapping[str, str | None],
) -> list[str | None]:
    """Return the columns of a table's path, caption or label, and split; only the last may be None.

    They have one of the usual names, in lower case, or that of the user's key.

    Raises:
        UserError: if one does not exist, or several may be meant.
    """
    return [_column(file, table.columns, what, usual[what], keys[what]) for what in usual]


def _column(
    file: Path, columns: Sequence[str], what: str, usual: Sequence[str], key: str | None
) -> str | None:
    if key in columns:
        return key
    if key is not None:
        near = get_close_matches(key, columns, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(columns)}"
        raise UserError(f"dataset.{what}_key={key} is not a column of {file}; {hint}")
    candidates = [column for column in columns if column.strip().lower() in usual]
    if len(candidates) == 1:
        return candidates[0]
    if what == "split" and not candidates:
        return None
    those = " or ".join(candidates) if candidates else f"one of {', '.join(columns)}"
    raise UserError(f"{file}: is the {what} in {those}? say which, dataset.{what}_key={{a column}}")


def fault(name: str, what: str, present: bool, split: str) -> str | None:
    """Return why a row is faulty by itself, or None; ``present`` says if it has its ``what``."""
    if not name:
        return "no path"
    if "://" in name:
        return f"{name} is not a file; download it first"
    if not present:
        return f"no {what} of {name}"
    if not split_name(split):
        return f"split {split!r} is none of train, val, test and test_<name>"
    return None


def refuse(file: Path, wrong: Sequence[str]) -> None:
    """Refuse a table with faulty rows, each ``file:line: reason``."""
    if wrong:
        raise UserError(
            f"{len(wrong):,} rows of {file} are faulty, first {wrong[0]}. Correct or remove them",
            wrong,
        )


def image_name(path: Any, root: Path) -> str:
    """Return the path of an image in a cell as one below the folder ``root``; "" for none."""
    text = path.strip() if isinstance(path, str) else ""
    if not text or "://" in text:
        return text
    if "\\" in text and "/" not in text:
        text = text.replace("\\", "/")  # written on Windows
    name = posixpath.normpath(text)
    return identifier(name.removeprefix(root.as_posix() + "/"))
