"""The evidence of every experiment that was run here: one CSV an experiment, one row a run.

Run: python -m clipbench.freeze
"""

import sys
from pathlib import Path

import pandas as pd

from clipbench import overrides, paths
from clipbench.progress import console, marked
from clipbench.results import write_text
from clipbench.tabling import frames, sweep_tables, typeset


def frozen(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows without what is of this machine: folders, and typed words that are paths.

    Args:
        frame: of :func:`clipbench.tabling.frames.frame`.
    """
    words = [str(c) for c in frame if "/" not in str(c)]
    local = [c for c in words if frame[c].astype(str).str.match(r"[/~.]|[A-Za-z]:\\").any()]
    left_out = {"folder", "experiment", *local}
    # A probe has no pace; tables of costs have a column for it all the same.
    empty = [str(c) for c in frame if c not in words and frame[c].isna().all()]
    left_out |= {c for c in empty if not c.startswith("cost/")}
    kept = frame[[c for c in frame if c not in left_out]]
    return kept.sort_values("key", kind="stable", ignore_index=True)


def freeze(results: Path) -> list[Path]:
    """Write the rows of each experiment that has a sweep of its name under the outputs root.

    Args:
        results: the folder to write to. What is there of other experiments stays.

    Returns:
        The files written.
    """
    written = []
    for path in sorted((paths.EXPERIMENTS / "experiment").glob("*.yaml")):
        sweep = paths.outputs() / "sweeps" / path.stem
        if not (sweep / "jobs.jsonl").is_file():
            continue
        runs, failed = sweep_tables.sweep_runs(sweep)
        for job in failed:
            marked("not frozen:", f"{path.stem}: {overrides.shell(job['overrides'])}", "red")
        if runs:
            results.mkdir(parents=True, exist_ok=True)
            text = typeset.csv(frozen(frames.frame(runs)))
            write_text(results / f"{path.stem}.csv", text)
            written.append(results / f"{path.stem}.csv")
    return written


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
