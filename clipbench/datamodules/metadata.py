"""What is published about the datasets, as the YAML files beside this one have it."""

from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from clipbench.loading.download.files import Remote


@cache
def read(name: str) -> Any:
    """Return the content of a YAML file of this folder; not to be changed."""
    return OmegaConf.to_container(OmegaConf.load(Path(__file__).with_name(f"{name}.yaml")))


def class_names(dataset: str) -> tuple[list[str], list[str], list[str]]:
    """Return what a dataset calls its classes, what prompts call them, and its templates."""
    entry = read("class_names")[dataset]
    classes = entry["classes"]
    names = classes.values() if isinstance(classes, dict) else classes
    return list(classes), list(names), list(entry["templates"])


def remotes(dataset: str) -> tuple[Remote, ...]:
    """Return the files that may be fetched for a dataset."""
    files = read("downloads")[dataset]
    return tuple(Remote(**file | {"makes": tuple(file.get("makes", ()))}) for file in files)
