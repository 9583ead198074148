"""From a config back to the words that make it: which option a node is, what its own file has."""

import functools
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from clipbench.core import paths
from clipbench.reporting.tables import costs


@functools.cache
def _files(group: str) -> dict[str, dict[str, Any]]:
    """The files of a group as they are written, without what their defaults bring in."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((paths.CONF / group).glob("*.yaml")):
        node: Any = OmegaConf.to_container(OmegaConf.load(path))
        found[path.stem] = node
    return found


def option(group: str, node: Mapping[str, Any]) -> str | None:
    """Return the option of a group that a node is, or was before keys of it were set.

    Args:
        group: a folder of ``conf``: ``model``, ``dataset``.
        node: of a resolved config.

    Returns:
        The option of the same class that agrees in most values; None for a class of no option.
    """
    alike = {name: own for name, own in _files(group).items() if _same(own, node, "_target_")}
    return max(alike, key=lambda name: _agreement(alike[name], node), default=None)


def _same(own: Mapping[str, Any], node: Mapping[str, Any], key: str) -> bool:
    return bool(own.get(key) == node.get(key))


def _agreement(own: Mapping[str, Any], node: Mapping[str, Any]) -> tuple[bool, int]:
    return _same(own, node, "arch"), sum(_same(own, node, key) for key in own)


def words(group: str, node: Mapping[str, Any], into: str) -> str | None:
    """Return the overrides that make a node of a group again, under another key of the root.

    Args:
        group: whose options the node is of.
        node: of a resolved config.
        into: the key, such as ``mix``.
    """
    name = option(group, node)
    if name is None:
        return None
    own = _files(group)[name]
    scalars = {
        k: v for k, v in own.items() if isinstance(v, str | int | float) and "$" not in str(v)
    }
    changed = [f"{into}.{k}={node[k]}" for k, v in scalars.items() if k in node and node[k] != v]
    return " ".join((f"{into}={name}", *changed))


def pretrained(model: Mapping[str, Any]) -> str | None:
    """Return the override that gives a model pretrained weights which fit its architecture."""
    name = option("model", model)
    tag = _files("model")[name].get("pretrained") if name else None
    return f"model.pretrained={tag}" if tag else None


def half(model: Mapping[str, Any]) -> str:
    """Return the override that freezes half of a model's blocks, or two where nobody counted."""
    sizes = costs.facts(option("model", model) or "")
    return f"freeze_depth={int(sizes['blocks']) // 2 if sizes else 2}"
