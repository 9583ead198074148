"""Labels of images from a CSV, TSV or JSONL file: a row for each image, its path and its label."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipbench.core.errors import UserError
from clipbench.loading.readers import table_files
from clipbench.loading.readers.folder_layouts import Layout
from clipbench.loading.readers.text_files import split_name

LABEL_KEYS = (
    *("label", "labels", "class", "class_name", "classname", "class_label", "category", "target"),
)
SPLIT_KEYS = (*table_files.SPLIT_KEYS, "set", "subset", "partition")


def matches(where: Path) -> bool:
    """Return whether a path is of a table."""
    return where.suffix.lower() in table_files.SUFFIXES and where.is_file()


def read(file: Path, keys: Mapping[str, str | None]) -> Layout:
    """Return the images that a table names by split and label, labels as they are written.

    Paths begin in its folder. ``keys`` are the columns of ``path``, ``label`` and ``split``, None
    for those with a usual name.

    Raises:
        UserError: if columns cannot be found, or with ``file:line: reason`` of each faulty row.
    """
    table = table_files.read(file, "label")
    usual = {"path": table_files.PATH_KEYS, "label": LABEL_KEYS, "split": SPLIT_KEYS}
    path_key, label_key, split_key = table_files.columns(file, table, usual, keys)
    wrong, repeated = list(table.wrong), 0
    places: dict[str, tuple[str, str]] = {}
    for line, cells in table.rows:
        name = table_files.image_name(cells.get(path_key or ""), file.parent.absolute())
        label = _text(cells.get(label_key or ""))
        written = "train" if split_key is None else _text(cells.get(split_key))
        place = (split_name(written), label)
        before = places.setdefault(name, place)
        reason = table_files.fault(name, "label", bool(label), written)
        if reason is None and place != before:
            reason = f"{name} is {label} in {place[0]}, and {before[1]} in {before[0]} above"
        if reason:
            wrong.append(f"{file.name}:{line}: {reason}")
        repeated += before is not place
    table_files.refuse(file, wrong)
    if not places:
        raise UserError(f"{file} has no rows. Give it one for each image")
    layout = Layout(warnings=list(table.warnings))
    for name, (split, label) in places.items():
        layout.listed.setdefault(split, {}).setdefault(label, []).append(name)
    if repeated:
        layout.warnings.append(f"{file.name} names {repeated:,} images again: each is read once")
    return layout


def _text(cell: Any) -> str:
    """Return a cell as text; JSON has numbers and truth values as well."""
    return "" if cell is None else str(cell).strip()
