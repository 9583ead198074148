"""Class names and templates as a user gives them: a variant, a list, a mapping, or a file."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from clipbench.core import paths, text_values
from clipbench.core.errors import UserError
from clipbench.loading.images.folder_walk import identifier

Names = Mapping[str, str] | Sequence[str]


def class_names(
    keys: Sequence[str],
    default: Sequence[str],
    given: Names | str | None,
    variants: Mapping[str, Sequence[str]],
) -> list[str]:
    """Return the class names that prompts use, in label order.

    Args:
        keys: what a mapping names the classes by, such as their folders.
        default: the dataset's own names.
        given: one of the variants, a list in label order, a mapping from key to name, or a file
            that holds either; None for the default.
        variants: other names that the dataset knows, by what they are called.

    Raises:
        UserError: if there are more or fewer names than classes, or a key that no class has.
    """
    if given is None:
        return list(default)
    if isinstance(given, str) and given in variants:
        return list(variants[given])
    if isinstance(given, str) and variants and not Path(given).suffix:
        raise UserError(
            f"dataset.class_names={given}: unknown. Use one of {', '.join(variants)}, or a file"
        )
    names = from_file(given, "dataset.class_names") if isinstance(given, str) else given
    if isinstance(names, Mapping):
        named = {str(key): _text(name) for key, name in names.items()}
        if odd := sorted(named.keys() ^ set(keys)):
            raise UserError(
                f"dataset.class_names and the classes differ, first {odd[0]}. Name each once",
                [f"{key}: {'not named' if key in keys else 'no such class'}" for key in odd],
            )
        return [named[key] for key in keys]
    if len(names) != len(keys):
        raise UserError(
            f"dataset.class_names has {len(names)} names for {len(keys)} classes. Give one for "
            "each, in label order, or a mapping from class to name"
        )
    return [_text(name) for name in names]


def templates(given: Sequence[str] | str | None, default: Sequence[str]) -> list[str]:
    """Return the templates from a file or a list, else the dataset's.

    Raises:
        UserError: if a file holds no list.
    """
    if given is None:
        return list(default)
    found = from_file(given, "dataset.templates") if isinstance(given, str) else given
    if isinstance(found, Mapping):
        raise UserError(
            f"dataset.templates={given} holds no list. Give one of prompts with one {{}}"
        )
    return [_text(template) for template in found]


def from_file(path: str, key: str) -> Any:
    """Read a YAML or JSON file: a mapping or a list, its values as text.

    Args:
        path: the file.
        key: the config key that named it, for the message.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        found = text_values.read(paths.expanded(path))
    except Exception as error:
        raise UserError(f"{key}={path} cannot be read ({error}). Fix it") from error
    if not isinstance(found, (Mapping, list)):
        raise UserError(f"{key}={path} holds neither a mapping nor a list. Give one")
    return found


def ordered(keys: Iterable[str]) -> list[str]:
    """Return keys sorted: by number where they are numbers, or one text with a number after it."""
    parts = {key: re.fullmatch(r"(.*?)([0-9]+)", key, re.DOTALL) for key in keys}
    if len({match and match[1] for match in parts.values()}) == 1 and all(parts.values()):
        return sorted(parts, key=lambda key: (int((parts[key] or "00")[2]), key))
    return sorted(parts)


def class_of(folder: str, names: Sequence[str]) -> str | None:
    """Return the class that a folder bears the name of, None if none or several may be meant.

    The very name decides; else the one that is the same in lower case, blanks for underscores.
    """
    spoken = identifier(folder).replace("_", " ")
    for form in (str, str.casefold):
        if found := [n for n in names if form(identifier(n).replace("_", " ")) == form(spoken)]:
            return found[0] if len(found) == 1 else None
    return None


def chosen(
    keys: Sequence[str], names: Sequence[str], subset: Sequence[str | int] | int
) -> list[int]:
    """Return the labels of a subset of classes, in the order given.

    Args:
        keys: what classes are called in the dataset.
        names: what prompts call them.
        subset: keys, names or labels; or k for the first k classes.

    Raises:
        UserError: for a class that is not there, one named twice, or fewer than two.
    """
    if isinstance(subset, int):
        labels = list(range(subset))
        wrong = [str(label) for label in labels if label >= len(names)]
    else:
        found = [_labels(keys, names, item) for item in subset]
        _refuse_ambiguous(keys, names, subset, found)
        labels = [next(iter(meant), -1) for meant in found]
        wrong = [str(item) for item, meant in zip(subset, found, strict=True) if not meant]
    if wrong:
        raise UserError(
            f"dataset.subset: no class {wrong[0]}. Use some of {', '.join(names[:5])} ..."
        )
    if len(set(labels)) < len(labels) or len(labels) < 2:
        raise UserError("dataset.subset needs two classes or more, each once")
    return labels


def _labels(keys: Sequence[str], names: Sequence[str], item: str | int) -> set[int]:
    """Return the labels that an item of a subset may mean: by key, by name, by position."""
    found = {k for own in (keys, names) for k, name in enumerate(own) if name == str(item)}
    if isinstance(item, int) and 0 <= item < len(names):
        found.add(item)
    return found


def _refuse_ambiguous(
    keys: Sequence[str],
    names: Sequence[str],
    subset: Sequence[str | int],
    found: Sequence[set[int]],
) -> None:
    for item, labels in zip(subset, found, strict=True):
        if len(labels) > 1:
            meant = " or ".join(f"{keys[k]} (label {k}, named {names[k]})" for k in sorted(labels))
            raise UserError(
                f"dataset.subset: {item} may be {meant}. Name classes that cannot be mistaken, in "
                "quotes: dataset.subset=['a','b'], or give other dataset.class_names"
            )


def _text(name: object) -> str:
    """Return a name as text; the check of all names refuses an empty one."""
    if isinstance(name, bool | float):
        raise UserError(f"dataset.class_names: {name} was not read as text. Put it in quotes")
    return "" if name is None else str(name)
