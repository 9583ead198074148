"""Save the rows of every experiment that was run here: a CSV per experiment, a row per run.

``pairs/`` has the counts of claims that compare image by image, a row per pair of runs.

Run: python -m clipbench.freeze
"""

import sys

from clipbench.core import paths
from clipbench.core.console import console
from clipbench.reporting.tables.frozen_rows import freeze


def main() -> None:
    """Freeze into ``experiments/results``."""
    if sys.argv[1:]:
        console.print(__doc__)
        sys.exit(0 if {"-h", "--help"} & set(sys.argv) else 2)
    written = freeze(paths.EXPERIMENTS / "results")
    if not written:
        console.print(f"no experiment was run under {paths.outputs()}: run experiment=demo")
    for path in written:
        console.print(path)


if __name__ == "__main__":
    main()
