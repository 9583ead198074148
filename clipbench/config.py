"""The config of a command line, for doors that are not Hydra's own."""

from typing import Any

from clipbench import overrides, paths, schema


def compose(*words: str, resolve: bool = True) -> dict[str, Any]:
    """The config of a command line, as plain data.

    Args:
        words: as typed, ``dataset=flowers102``.
        resolve: False leaves interpolations as they are written.

    Raises:
        hydra.errors.HydraException: for an option or key that there is not.
    """
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    paths.register()
    schema.register()
    with initialize_config_dir(str(paths.CONF), version_base="1.3"):
        composed = compose("config", overrides.read(words))
    config: Any = OmegaConf.to_container(composed, resolve=resolve)
    return dict(config)


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
