"""TensorBoard over the outputs root: every run by a readable name, sweeps by their figures.

Run: python -m clipbench.dashboard [TensorBoard's own flags, such as --port 6007]

HParams has the axes and, as chosen/<split>/<metric>, the same metrics for every run. Custom Scalars
lays the curves of all runs over each other. Images are confusion, the surest mistakes, the alpha
curve, and the figures of each sweep; Text has the worst classes. Runs that begin while it is open
are added.
"""

import shutil
import sys
import threading
import time
from pathlib import Path

from clipbench.core import paths
from clipbench.reporting.tensorboard import boards, hparams
from clipbench.results import store

AGAIN = 30.0  # seconds, after which new runs are looked for


def main() -> None:
    """Serve the runs until interrupted."""
    from tensorboard import program

    home = laid_out()
    threading.Thread(target=_watch, args=(home,), daemon=True).start()
    board = program.TensorBoard()
    board.configure(argv=[None, "--logdir", str(home), *sys.argv[1:]])
    sys.exit(board.main())


def laid_out() -> Path:
    """The folder for TensorBoard, made anew: links to the runs, and events of its own."""
    home = paths.outputs() / "dashboard"
    shutil.rmtree(home, ignore_errors=True)  # links are removed, not what they lead to
    home.mkdir(parents=True)
    records = [record for _, record in store.records(paths.outputs())]
    done = [record for record in records if record.completed]
    own = home / "events.out.tfevents.0.clipbench"
    boards.append(own, [boards.layout(), *([hparams.experiment(done)] if done else [])])
    for path in sorted((paths.outputs() / "tables").rglob("sweep_*.png")):
        place = home / "sweeps" / path.stem.removeprefix("sweep_") / own.name
        place.parent.mkdir(parents=True, exist_ok=True)
        boards.append(place, [boards.png("figure", path.read_bytes())])
    link(home)
    return home


def link(home: Path) -> None:
    """A link by a readable name to each run that has none yet."""
    for folder, record in store.records(paths.outputs()):
        place = home / record.dataset / hparams.name(record)
        if not place.is_symlink():
            place.parent.mkdir(exist_ok=True)
            place.symlink_to(folder, target_is_directory=True)


def _watch(home: Path) -> None:
    while True:
        time.sleep(AGAIN)
        link(home)


if __name__ == "__main__":
    main()
