"""The typed root of every config, and the one place that turns config nodes into objects."""

import inspect
from collections.abc import Mapping
from typing import Any

from clipbench.core.config.overrides import escaped
from clipbench.core.errors import UserError

# A config is data: it may name these classes and nothing else (a block-list would not protect:
# torch.load and pandas.read_pickle are reachable through Hydra's own).
ALLOWED = ("clipbench.", "pytorch_lightning.")
# Addresses that are in records and run keys, and the classes' modules of today.
MOVED = {
    "clipbench.prompts.Prompts": "clipbench.loading.prompts.Prompts",
    "clipbench.loggers.Wandb": "clipbench.training.loggers.Wandb",
}


def _check(node: Any) -> None:
    if isinstance(node, Mapping):
        if "_target_" in node:
            _class(str(node["_target_"]))
        for child in node.values():
            _check(child)
    elif isinstance(node, list):
        for child in node:
            _check(child)


def _located(value: Any) -> Any:
    """Return a config's value, its addresses that have moved replaced by where they are now."""
    if isinstance(value, Mapping):
        return {k: _located(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_located(v) for v in value]
    return MOVED.get(value, value) if isinstance(value, str) else value


def _class(target: str) -> type:
    from hydra.utils import get_object

    if not target.startswith(ALLOWED):
        raise UserError(
            f"_target_ {target} is refused; a config may name classes of {ALLOWED} only"
        )
    try:
        found = get_object(MOVED.get(target, target))
    except Exception as error:
        raise UserError(f"_target_ {target} cannot be imported: {error}") from error
    # The second test stops a detour through a module's imports: clipbench.core.paths.os.system.
    if not inspect.isclass(found) or not found.__module__.startswith(ALLOWED):
        raise UserError(f"_target_={target}: refused, not a class of {ALLOWED}. Use one of these.")
    return found


def build(node: Mapping[str, Any], **extra: Any) -> Any:
    """Instantiate a config node after checking every ``_target_`` in it.

    Args:
        node: plain data with a ``_target_``; its ``recommended`` entry is not for the constructor.
        extra: further keyword arguments.

    Raises:
        UserError: if a target is outside the allow-list, a key is not one of its parameters, or the
            constructor refuses what it is given.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    _check(node)
    keys = {k: _located(v) for k, v in node.items() if k != "recommended"}
    signature = inspect.signature(_class(str(node["_target_"])))
    try:
        signature.bind(**{k: v for k, v in keys.items() if not k.startswith("_")}, **extra)
    except TypeError as error:
        names = ", ".join(signature.parameters)
        raise UserError(f"{node['_target_']}: {error}; it takes {names}") from error
    try:
        # All of it is resolved, and Hydra would do so twice: in the whole, and at each look.
        return instantiate(escaped(escaped(keys)), **escaped(escaped(extra)))
    except InstantiationException as wrapped:
        if isinstance(wrapped.__cause__, UserError):
            raise wrapped.__cause__ from None
        raise
