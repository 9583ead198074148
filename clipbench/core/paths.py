"""Where conf/, experiments/, outputs/ and the data are, in a checkout or in an installed wheel."""

import functools
import os
from datetime import datetime
from pathlib import Path

from omegaconf import OmegaConf

PACKAGE = Path(__file__).resolve().parents[1]
# A checkout has conf/ beside the package; a wheel carries it inside (see pyproject.toml).
ROOT = PACKAGE.parent if (PACKAGE.parent / "conf" / "config.yaml").is_file() else PACKAGE
CONF = ROOT / "conf"
EXPERIMENTS = ROOT / "experiments"
ASSETS = PACKAGE / "assets"


def outputs() -> Path:
    """Return the folder of runs, sweeps and tables: ``$CLIPBENCH_OUTPUTS``, else ``outputs/``."""
    home = ROOT if ROOT != PACKAGE else Path.cwd()
    return Path(os.environ.get("CLIPBENCH_OUTPUTS") or home / "outputs").absolute()


def expanded(path: str | Path) -> Path:
    """Return a path, with ``~`` expanded unless a file of that very name exists."""
    try:
        return Path(path) if os.path.lexists(path) else Path(path).expanduser()
    except RuntimeError:  # ~old, without a user of that name
        return Path(path)


@functools.cache
def begun() -> str:
    """Return when this command started, which names its sweep on every machine that runs it."""
    return datetime.now().strftime("%Y-%m-%d_%H-%M-%S")


def data(layout: str) -> Path:
    """Return a dataset's folder: ``$CLIPBENCH_DATA/<layout>``, else ``data/<layout>``."""
    home = ROOT if ROOT != PACKAGE else Path.cwd()
    return Path(os.environ.get("CLIPBENCH_DATA") or home / "data").absolute() / layout


def options() -> str:
    """Return the options of each group, one line per group."""
    groups = {folder.name: folder for folder in sorted(CONF.iterdir()) if folder.is_dir()}
    groups["experiment"] = EXPERIMENTS / "experiment"
    names = {group: sorted(p.stem for p in path.glob("*.yaml")) for group, path in groups.items()}
    return "\n".join(f"{group}: {', '.join(stems)}" for group, stems in names.items() if stems)


def register() -> None:
    """Make ``${clipbench.root:}``, ``${clipbench.outputs:}`` ``${clipbench.data:x}``, ... known."""
    OmegaConf.register_new_resolver("clipbench.root", lambda: str(ROOT), replace=True)
    OmegaConf.register_new_resolver("clipbench.outputs", lambda: str(outputs()), replace=True)
    OmegaConf.register_new_resolver("clipbench.begun", begun, replace=True)
    OmegaConf.register_new_resolver("clipbench.data", lambda name: str(data(name)), replace=True)
