"""Tables and figures from run records; no torch, so a laptop rebuilds them in a second.

Run: python -m clipbench.tables [--help]
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from clipbench import figures, paths, results
from clipbench.progress import console, show
from clipbench.results import write_text


def sweep_runs(sweep: Path) -> tuple[list[tuple[Path, dict[str, Any]]], list[dict[str, Any]]]:
    """The runs that a sweep's ``jobs.jsonl`` lists, once each, and the jobs that have no result.

    A record of a run gets what its job typed, as ``typed``.
    """
    lines = (sweep / "jobs.jsonl").read_text().splitlines()
    jobs = {json.dumps(job["overrides"]): job for job in map(json.loads, lines)}
    done = {job["folder"]: job for job in jobs.values() if job["status"] == "completed"}
    read = [(Path(folder), results.read(Path(folder)), job) for folder, job in done.items()]
    failed = [job for job in jobs.values() if job["status"] != "completed"]
    return [
        (folder, {**record, "typed": dict(w.split("=", 1) for w in job["overrides"] if "=" in w)})
        for folder, record, job in read
        if record is not None
    ], failed


def _metrics(frame: pd.DataFrame) -> list[str]:
    """Accuracy, worst groups, and what runs were selected by; val first, then test, then shifts."""
    names = [c for c in frame.columns if "/" in c and not c.startswith(("selection/", "cost/"))]
    if any(c.endswith("@alpha") for c in names):  # those of the best alpha; the rest is a curve
        names = [c for c in names if "@alpha=" not in c]
    order = {"val": 0, "test": 1}
    chosen = {metric.split("/")[1] for metric in frame["selection/metric"]}
    bare = {c: c.split("@")[0].split("/")[1] for c in names}
    kept = [c for c in names if bare[c] in {"acc", *chosen} or bare[c].startswith("acc_worst_")]
    return sorted(kept, key=lambda c: (order.get(c.split("/")[0], 2), c))


def result_table(runs: Sequence[tuple[Path, dict[str, Any]]]) -> pd.DataFrame:
    """One row a run: the axes that vary, epoch 0, the chosen epoch, every metric, and the data.

    ``data`` is the start of the test split's fingerprint and the number of its pictures: rows
    compare only where it is equal.
    """
    frame = figures.frame(runs)
    varying = list(dict.fromkeys(["model", "dataset", *figures.varying(frame)]))
    varying.sort(key=[*figures.AXES, *varying].index)
    frame["chosen"] = frame["selection/epoch"]
    frame["data"] = [_data(record) for _, record in runs]
    frame = frame.rename(columns={"epoch0": "epoch 0"})
    alpha = ["alpha"] if frame.get("selection/alpha", pd.Series()).notna().any() else []
    frame = frame.rename(columns={"selection/alpha": "alpha"})
    columns = [*varying, "epoch 0", "chosen", *alpha, *_metrics(frame), "data", "key"]
    return frame[columns].sort_values([*varying, "key"], kind="stable", ignore_index=True)


def _data(record: dict[str, Any]) -> str:
    split = record["data"].get("test") or record["data"]["val"]
    part = f" of {split['expected']}" if split["n"] != split["expected"] else ""
    return f"{split['sha256'][:8]} n={split['n']}{part}"


def cost_table(runs: Sequence[tuple[Path, dict[str, Any]]]) -> pd.DataFrame:
    """One row a run: parameters, time, memory. Apart from the results, which two machines share."""
    rows = [
        {
            "model": record["model"],
            "parameters": record["parameters"]["total"],
            "trainable": record["parameters"]["trainable"],
            "steps": record["steps"]["total"],
            "seconds": round(record["cost"]["seconds"], 1),
            "images/s": round(record["cost"]["images_per_second"] or 0) or None,
            "peak memory MB": round(record["cost"]["peak_memory_bytes"] / 1e6),
            "device": record["cost"]["device"],
            "key": record["key"],
        }
        for _, record in runs
    ]
    return pd.DataFrame(rows).sort_values(["model", "key"], ignore_index=True)


def as_text(frame: pd.DataFrame) -> pd.DataFrame:
    """The cells of a table as they are read: metrics to four digits, axes as they were typed."""
    text = frame.astype(object)
    for column in frame.columns:
        digits = ".4f" if "/" in column or column == "epoch 0" else "g"
        text[column] = [
            "" if pd.isna(v) else format(v, digits) if isinstance(v, float) else str(v)
            for v in frame[column]
        ]
    return text


def write_table(frame: pd.DataFrame, stem: Path) -> None:
    """A table as Markdown, CSV and LaTeX (booktabs)."""
    shown = as_text(frame)
    markdown = shown.to_markdown(index=False, disable_numparse=True)
    write_text(stem.with_suffix(".md"), markdown + "\n")
    write_text(stem.with_suffix(".csv"), frame.to_csv(index=False))
    styler = shown.style.hide(axis="index").format(escape="latex")
    styler = styler.format_index(escape="latex", axis=1)
    write_text(stem.with_suffix(".tex"), styler.to_latex(hrules=True))


def sweep(folder: Path) -> list[Path]:
    """Write a sweep's table, its costs and its curves; print the table.

    Args:
        folder: one of ``sweeps/`` below the outputs root.

    Returns:
        The files written.
    """
    runs, failed = sweep_runs(folder)
    for job in failed:
        console.print(f"[red]{job['status']}:[/] {' '.join(job['overrides'])}: {job['error']}")
    if not runs:
        return []
    target = paths.outputs() / "tables"
    target.mkdir(parents=True, exist_ok=True)
    stem = target / f"sweep_{folder.name}"
    table = result_table(runs)
    write_table(table, stem)
    write_table(cost_table(runs), stem.with_name(f"{stem.name}_cost"))
    trained = [run for run in runs if run[1]["strategy"] != "soup"]  # which has no lr of its own
    figures.curves(trained, stem.with_suffix(".png"))
    drawn = figures.by_axis(trained, stem)
    metric = runs[0][1]["selection"]["metric"].split("/")[1]
    hidden = [c for c in table.columns if "/" in c and c.split("/")[1].split("@")[0] != metric]
    datasets = list(dict.fromkeys(table["dataset"]))
    alone = ["dataset"] if len(datasets) == 1 else []
    narrow = as_text(table.drop(columns=["data", *hidden, *alone]))
    show(
        f"sweep {folder.name} on {', '.join(datasets)}",
        [str(c) for c in narrow.columns],
        narrow.to_numpy().tolist(),
    )
    return [*(stem.with_suffix(s) for s in (".md", ".csv", ".tex", ".png")), *drawn]


def main() -> None:
    """Rebuild the tables of every sweep under the outputs root."""
    if {"-h", "--help"} & set(sys.argv):
        console.print(__doc__)
        return
    folders = sorted(p.parent for p in (paths.outputs() / "sweeps").glob("*/jobs.jsonl"))
    if not folders:
        console.print(f"no sweeps under {paths.outputs()}; run one: python -m clipbench.run -m ...")
    for folder in folders:
        for path in sweep(folder):
            console.print(path)


if __name__ == "__main__":
    main()
