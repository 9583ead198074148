"""The config of a command line, for doors that are not Hydra's own."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clipbench.core import paths
from clipbench.core.config import overrides, schema
from clipbench.core.config.option_files import ABOUT
from clipbench.core.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def compose(*words: str, resolve: bool = True) -> dict[str, Any]:
    """Return the config of a command line, as plain data.

    Args:
        words: as typed, ``dataset=flowers102``.
        resolve: False leaves interpolations as they are written.

    Raises:
        hydra.errors.HydraException: for an option or key that there is not.
    """
    from hydra import compose, initialize_config_dir

    paths.register()
    schema.register()
    with initialize_config_dir(str(paths.CONF), version_base="1.3"):
        composed = compose("config", overrides.read(words))
    return plain(composed, resolve=resolve)


def plain(
    composed: "DictConfig", *, resolve: bool = True, complete: bool = False
) -> dict[str, Any]:
    """Return a composed config as plain data, without what its options' files say ``about`` them.

    Args:
        composed: without Hydra's own part.
        resolve: False leaves interpolations as they are written.
        complete: whether each value must be given.

    Raises:
        omegaconf.errors.MissingMandatoryValue: for a value that must be given and is not.
    """
    from omegaconf import OmegaConf

    config: Any = OmegaConf.to_container(composed, resolve=resolve, throw_on_missing=complete)
    for group in config.values():
        if isinstance(group, dict):
            group.pop(ABOUT, None)
    return dict(config)


def changed(node: Mapping[str, Any], group: str, words: Sequence[str]) -> dict[str, Any]:
    """Return a node of a record's config with the values of some words in place of its own.

    Args:
        node: plain data.
        group: the node's name, with which each word begins.
        words: as typed, ``dataset.root=/data/more``.

    Raises:
        UserError: for a key that the node has not, or several values of one.
        hydra.errors.HydraException: for a word that is not of the grammar.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    found = OmegaConf.create({group: overrides.escaped(dict(node))})
    for word in OverridesParser.create().parse_overrides(overrides.read(words)):
        if word.is_sweep_override():
            raise UserError(f"{word.input_line}: these are several values. Give one.")
        key = word.key_or_group.removeprefix(f"{group}.")
        if key.partition(".")[0] not in node:
            raise UserError(
                f"{word.input_line}: there is no such key. Use one of {', '.join(node)}."
            )
        OmegaConf.update(found, word.key_or_group, word.value())
    plain: Any = OmegaConf.to_container(found, resolve=True)
    return dict(plain[group])


def keys() -> list[str]:
    """Every key that a config of the defaults has, dotted, and every group."""
    found: list[str] = []

    def walk(node: object, prefix: str) -> None:
        if isinstance(node, dict):
            for key, child in node.items():
                found.append(f"{prefix}{key}")
                walk(child, f"{prefix}{key}.")

    walk(compose(resolve=False), "")
    return [*found, *(p.name for p in paths.CONF.iterdir() if p.is_dir())]
