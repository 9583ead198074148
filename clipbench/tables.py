"""Tables and figures from run records; no torch, so a laptop rebuilds them in a second.

Run: python -m clipbench.tables [results=outputs|frozen]
"""

import sys

from clipbench import frames, paths, sweep_tables
from clipbench.progress import console


def main() -> None:
    """Rebuild the tables of every sweep under the outputs root, or of the frozen results."""
    given = set(sys.argv[1:])
    if given - {"results=outputs", "results=frozen"}:
        console.print(__doc__)
        sys.exit(0 if given & {"-h", "--help"} else 2)
    if "results=frozen" in given:
        for path in sorted((paths.EXPERIMENTS / "results").glob("*.csv")):
            for written in sweep_tables.of_frame(frames.read(path), path.stem):
                console.print(written)
        return
    folders = sorted(p.parent for p in (paths.outputs() / "sweeps").glob("*/jobs.jsonl"))
    if not folders:
        console.print(f"no sweeps under {paths.outputs()}; run one: python -m clipbench.run -m ...")
    for folder in folders:
        for path in sweep_tables.sweep(folder):
            console.print(path)


if __name__ == "__main__":
    main()
