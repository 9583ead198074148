"""Class names and templates from a user's options: a variant, a list, a mapping, or a file."""

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
    option: Names | str | None,
    variants: Mapping[str, Sequence[str]],
) -> list[str]:
    """Return the class names that prompts use, in label order.

    The option is one of the dataset's variants, a list in label order, a mapping from key (such as
    the folder of a class) to name, or a file that holds either; None for the default.

    Raises:
        UserError: if the names and the classes, or the keys of both, differ.
    """
    if option is None:
        return list(default)
    if isinstance(option, str) and option in variants:
        return list(variants[option])
    if isinstance(option, str) and variants and not Path(option).suffix:
        raise UserError(
            f"dataset.class_names={option}: unknown. Use one of {', '.join(variants)}, or a file"
        )
    names = from_file(option, "dataset.class_names") if isinstance(option, str) else option
    if isinstance(names, Mapping):
        by_key = {str(key): _text(name) for key, name in names.items()}
        if odd := sorted(by_key.keys() ^ set(keys)):
            raise UserError(
                f"dataset.class_names and the classes differ, first {odd[0]}. Name each once",
                [f"{key}: {'not named' if key in keys else 'no such class'}" for key in odd],
            )
        return [by_key[key] for key in keys]
    if len(names) != len(keys):
        raise UserError(
            f"dataset.class_names has {len(names)} names for {len(keys)} classes. Give one for "
            "each, in label order, or a mapping from class to name"
        )
    return [_text(name) for name in names]


def templates(option: Sequence[str] | str | None, default: Sequence[str]) -> list[str]:
    """Return the templates from a list, or a file that must hold one, else the dataset's."""
    if option is None:
        return list(default)
    texts = from_file(option, "dataset.templates") if isinstance(option, str) else option
    if isinstance(texts, Mapping):
        raise UserError(
            f"dataset.templates={option} does not hold a list. Give one of prompts with one {{}}"
        )
    return [_text(template) for template in texts]


def from_file(path: str, key: str) -> Any:
    """Read a YAML or JSON file, named by a config key: a mapping or a list, its values as text."""
    try:
        values = text_values.read(paths.expanded(path))
    except Exception as error:
        raise UserError(f"{key}={path} cannot be read ({error}). Fix it") from error
    if not isinstance(values, (Mapping, list)):
        raise UserError(f"{key}={path} holds neither a mapping nor a list. Give one")
    return values


def ordered(keys: Iterable[str]) -> list[str]:
    """Return keys sorted: by number if all are numbers, or one text with a number after it."""
    parts = {key: re.fullmatch(r"(.*?)([0-9]+)", key, re.DOTALL) for key in keys}
    if len({match and match[1] for match in parts.values()}) == 1 and all(parts.values()):
        return sorted(parts, key=lambda key: (int((parts[key] or "00")[2]), key))
    return sorted(parts)


def class_of(folder: str, names: Sequence[str]) -> str | None:
    """Return the class that a folder has the name of, None if none or several may be meant.

    An equal name comes first; else one that is equal in lower case, with spaces for underscores.
    """
    spoken = identifier(folder).replace("_", " ")
    for form in (str, str.casefold):
        if same := [n for n in names if form(identifier(n).replace("_", " ")) == form(spoken)]:
            return same[0] if len(same) == 1 else None
    return None


def chosen(
    keys: Sequence[str], names: Sequence[str], subset: Sequence[str | int] | int
) -> list[int]:
    """Return the labels of a subset, in order: of keys, names or labels; or k for the first k.

    Raises:
        UserError: for an unknown or ambiguous class, one named twice, or fewer than two.
    """
    labels = []
    for item in range(subset) if isinstance(subset, int) else subset:
        matches = {k for k in range(len(names)) if k == item}
        if not isinstance(subset, int):
            matches |= {k for own in (keys, names) for k, n in enumerate(own) if n == str(item)}
        if not matches:
            raise UserError(
                f"dataset.subset: no class {item}. Use some of {', '.join(names[:5])} ..."
            )
        if len(matches) > 1:
            those = " or ".join(f"{keys[k]} (label {k}, named {names[k]})" for k in sorted(matches))
            raise UserError(
                f"dataset.subset: {item} may be {those}. Name classes that cannot be mistaken, in "
                "quotes: dataset.subset=['a','b'], or give other dataset.class_names"
            )
        labels.append(matches.pop())
    if len(set(labels)) < len(labels) or len(labels) < 2:
        raise UserError("dataset.subset needs two classes or more, each once")
    return labels


def _text(name: object) -> str:
    """Return a name as text; the check of all names refuses an empty one."""
    if isinstance(name, bool | float):
        raise UserError(f"dataset.class_names: {name} was not read as text. Put it in quotes")
    return "" if name is None else str(name)
