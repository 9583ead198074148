"""Config groups whose options are those of another: any dataset can stand in several places."""

from pathlib import Path

from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import OmegaConf

from clipbench.core import paths

ALSO_DATASETS = ("retention", "mix")


class AlsoDatasets(ConfigSource):
    """Finds ``retention/flowers102`` and ``mix/flowers102`` in ``dataset/flowers102.yaml``.

    A source of its own, for Hydra's ``searchpath``: entries in its ConfigStore would be copied at
    each look, which ``--help`` takes a hundred of.
    """

    @staticmethod
    def scheme() -> str:
        """As in ``datasets://again``."""
        return "datasets"

    def _place(self, config_path: str) -> Path | None:
        group, _, rest = config_path.partition("/")
        return paths.CONF / "dataset" / rest if group in ALSO_DATASETS else None

    def available(self) -> bool:
        """Return True: there are always datasets."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Whether a path is a folder of options."""
        place = self._place(config_path)
        return config_path == "" or (place is not None and place.is_dir())

    def is_config(self, config_path: str) -> bool:
        """Whether a path is an option."""
        place = self._place(self._normalize_file_name(config_path))
        return place is not None and place.is_file()

    def load_config(self, config_path: str) -> ConfigResult:
        """Return an option's content, as Hydra reads any file.

        Raises:
            ConfigLoadError: if there is none.
        """
        place = self._place(self._normalize_file_name(config_path))
        if place is None or not place.is_file():
            raise ConfigLoadError(f"Config not found : {config_path}")
        header = self._get_header_dict(place.read_text(encoding="utf-8"))
        config = OmegaConf.load(place)
        return ConfigResult(self.provider, self.full_path(), config, header)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Return the options and folders below a path."""
        if config_path == "":
            return sorted(ALSO_DATASETS) if results_filter != ObjectType.CONFIG else []
        place, found = self._place(config_path), list[str]()
        for path in sorted(place.iterdir()) if place is not None and place.is_dir() else ():
            self._list_add_result(found, f"{config_path}/{path.name}", path.name, results_filter)
        return found
