"""The folder that TensorBoard serves: every run by a readable name, sweeps by their figures."""

import shutil
from pathlib import Path

from clipbench.core import paths
from clipbench.reporting.tensorboard import boards, hparams
from clipbench.results import store


def laid_out() -> Path:
    """Make the folder for TensorBoard again: links to the runs, and the events of all of them."""
    home = paths.outputs() / "dashboard"
    shutil.rmtree(home, ignore_errors=True)  # the links, not the runs
    home.mkdir(parents=True)
    records = [record for _, record in store.records(paths.outputs())]
    done = [record for record in records if record.completed]
    events = home / "events.out.tfevents.0.clipbench"
    boards.append(events, [boards.layout(), *([hparams.experiment(done)] if done else [])])
    for path in sorted((paths.outputs() / "tables").rglob("sweep_*.png")):
        place = home / "sweeps" / path.stem.removeprefix("sweep_") / events.name
        place.parent.mkdir(parents=True, exist_ok=True)
        boards.append(place, [boards.png("figure", path.read_bytes())])
    link(home)
    return home


def link(home: Path) -> None:
    """Link each run that has no link yet, by a readable name."""
    for folder, record in store.records(paths.outputs()):
        place = home / record.dataset / hparams.name(record)
        if not place.is_symlink():
            place.parent.mkdir(exist_ok=True)
            place.symlink_to(folder, target_is_directory=True)
