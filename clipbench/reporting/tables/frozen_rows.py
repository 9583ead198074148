"""Save the rows of every experiment that was run here: a CSV per experiment, a row per run.

``pairs/`` has the counts of claims that compare image by image, a row per pair of runs.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from clipbench.core import paths
from clipbench.core.config import overrides
from clipbench.core.console import marked
from clipbench.core.files import write_text
from clipbench.reporting.tables import claims, significance, typeset
from clipbench.results import frames, predictions, sweep_log
from clipbench.results.evidence import Evidence


def frozen(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a frame of runs without the paths of this machine."""
    words = [str(c) for c in frame if "/" not in str(c)]
    local = [c for c in words if frame[c].astype(str).str.match(r"[/~.]|[A-Za-z]:\\").any()]
    left_out = {"folder", "experiment", *local}
    # A probe has no pace, but tables of costs have a column for it.
    empty = [str(c) for c in frame if c not in words and frame[c].isna().all()]
    left_out |= {c for c in empty if not c.startswith("cost/")}
    kept = frame[[c for c in frame if c not in left_out]]
    return kept.sort_values("key", kind="stable", ignore_index=True)


def freeze(results: Path) -> list[Path]:
    """Write the rows of each experiment that has a sweep of its name under the outputs root.

    Files of other experiments in the ``results`` folder are not changed. Return those written.
    """
    written = []
    for path in sorted((paths.EXPERIMENTS / "experiment").glob("*.yaml")):
        sweep = paths.outputs() / "sweeps" / path.stem
        if not (sweep / "jobs.jsonl").is_file():
            continue
        runs, failed = sweep_log.sweep_runs(sweep)
        for job in failed:
            marked("not frozen:", f"{path.stem}: {overrides.shell(job['overrides'])}", "red")
        if runs:
            results.mkdir(parents=True, exist_ok=True)
            frame = frames.frame(runs)
            write_text(results / f"{path.stem}.csv", typeset.csv(frozen(frame)))
            written.append(results / f"{path.stem}.csv")
            counts = results / "pairs" / f"{path.stem}.csv"
            counts.unlink(missing_ok=True)  # of runs that are no longer frozen
            if rows := pairs(path, frame):
                counts.parent.mkdir(exist_ok=True)
                write_text(counts, typeset.csv(pd.DataFrame(rows)))
                written.append(counts)
    return written


def pairs(path: Path, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the counts of each pair of runs that a claim compares on saved predictions.

    Frozen rows have no predictions; these counts give an exact McNemar test, and what the images
    add to the variance of a difference between means over seeds.

    Args:
        path: the experiment's YAML.
        frame: of its runs, with their folders.

    Returns:
        A row per pair: the split, the keys ``first`` and ``second``, ``n`` images, and how many
        only the first (``only_first``) or only the second (``only_second``) classifies correctly.
    """
    evidence = Evidence({path.stem: frame})
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for statement in claims.statements(path):
        both = claims.sides(evidence, path.stem, statement)
        if both is None or both[0].column != both[1].column or "@" in both[0].column:
            continue
        split = both[0].column.split("/")[0]
        for i, j in significance.paired_runs(*both):
            one, other = both[0].folders[i], both[1].folders[j]
            if predictions.saved(one, split) and predictions.saved(other, split):
                first, second = both[0].keys[i], both[1].keys[j]
                n, ours, theirs = predictions.discordant(one, other, split)
                row = {"split": split, "first": first, "second": second, "n": n}
                found[split, first, second] = {**row, "only_first": ours, "only_second": theirs}
    return list(found.values())
