"""The options of a config group as their files are written, and what each says under ``about``."""

import functools
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from omegaconf import OmegaConf

from clipbench.core import paths

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ABOUT = "about"  # what a file says of its option; no part of a run's config
Node = Mapping[str, Any]  # a config's, or another JSON object
Config = dict[str, Any]  # a resolved root: plain values by key, and nodes by group
T = TypeVar("T", bound="DataclassInstance")


@functools.cache
def files(group: str) -> dict[str, Node]:
    """Return the options of a group by name, interpolations as written.

    A file has what its ``defaults`` name in the same group, as Hydra composes it.

    Args:
        group: a folder of ``conf``: ``model``, ``dataset``.
    """
    return {path.stem: _file(path) for path in sorted((paths.CONF / group).glob("*.yaml"))}


def _file(path: Path) -> dict[str, Any]:
    content: Any = OmegaConf.to_container(OmegaConf.load(path))
    merged: Any = {}
    for part in content.pop("defaults", ["_self_"]):
        base = content
        if part != "_self_":
            base = _file(path.parent / f"{part.partition('@')[0]}.yaml")
            base.get(ABOUT, {}).pop("label", None)  # it would name two options alike
        merged = OmegaConf.merge(merged, base)
    found: Any = OmegaConf.to_container(merged)
    return dict(found)


def option(group: str, node: Node) -> str | None:
    """Return the option of a group that a node is, or was before keys of it were set.

    Args:
        group: a folder of ``conf``.
        node: of a resolved config.

    Returns:
        The option of the same class that agrees in most values; None for a class of no option.
    """
    alike = {name: file for name, file in files(group).items() if _agree(file, node, "_target_")}
    return max(alike, key=lambda name: _agreement(alike[name], node), default=None)


def _agree(file: Node, node: Node, key: str) -> bool:
    return bool(file.get(key) == node.get(key))


def _agreement(file: Node, node: Node) -> tuple[bool, int]:
    return _agree(file, node, "arch"), sum(_agree(file, node, key) for key in file)


def about(kind: type[T], group: str, name: str | None, node: Node | None = None) -> T:
    """Return what an option's file says of it.

    An entry of a field that is True or False may be a condition, ``{captions: all}``: it is true
    where the option's keys have these values, or one of a list of them.

    Args:
        kind: a dataclass whose fields are the entries, each with a default.
        group: of the option.
        name: of the option; None, or one without a file, gives the defaults.
        node: of a resolved config, for the conditions; None for the file's own values.
    """
    file = files(group).get(name or "", {})
    entries = file.get(ABOUT) or {}
    values = {**file, **(node or {})}
    flags = {f.name for f in fields(kind) if isinstance(f.default, bool)}
    return kind(**{k: _holds(v, values) if k in flags else v for k, v in entries.items()})


def _holds(condition: bool | Node, values: Node) -> bool:
    if isinstance(condition, bool):
        return condition
    return all(
        values.get(key) in (wanted if isinstance(wanted, list) else [wanted])
        for key, wanted in condition.items()
    )
