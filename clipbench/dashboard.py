"""TensorBoard over the outputs root: every run by a readable name, sweeps with their figures.

Run: python -m clipbench.dashboard [TensorBoard's own flags, such as --port 6007]

HParams has the axes and, as chosen/<split>/<metric>, the same metrics for every run. Custom Scalars
overlays the curves of all runs. Images are confusion, the most confident mistakes, the alpha
curve, and the figures of each sweep; Text has the worst classes. Runs that start while it is open
are added.
"""

import sys
import threading
import time
from pathlib import Path

from clipbench.reporting.tensorboard.run_links import laid_out, link

AGAIN = 30.0  # seconds between two looks for new runs


def main() -> None:
    """Serve the runs until interrupted."""
    from tensorboard import program

    home = laid_out()
    threading.Thread(target=_watch, args=(home,), daemon=True).start()
    board = program.TensorBoard()
    board.configure(argv=[None, "--logdir", str(home), *sys.argv[1:]])
    sys.exit(board.main())


def _watch(home: Path) -> None:
    while True:
        time.sleep(AGAIN)
        link(home)


if __name__ == "__main__":
    main()
