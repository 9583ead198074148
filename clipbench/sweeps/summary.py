"""What is printed when a job ends: its table, or the error and its fix."""

import sys
from pathlib import Path

from clipbench.core import paths
from clipbench.core.cli import refusal
from clipbench.core.console import console, marked, show
from clipbench.core.jobs import Outcome
from clipbench.results import store
from clipbench.results.record import LOG, Row, RunRecord


def job(outcome: Outcome) -> None:
    """Print how a job ended."""
    if outcome.status == "elsewhere":
        print(f"{outcome.error} is at this: {outcome.folder}", flush=True)
        return
    if outcome.status != "completed":
        _failure(outcome)
        return
    assert outcome.folder is not None
    record = store.read(Path(outcome.folder))
    assert record is not None
    done = " (completed before; nothing was run)" if outcome.before else ""
    title = f"{record.model} on {record.dataset}, {record.strategy}{done}"
    zero: Row = next((row for row in record.curve if row["epoch"] == 0), {})
    final = {name: value for name, value in record.final.items() if "@alpha=" not in name}
    rows = [(name, zero.get(name), value) for name, value in final.items()]
    chosen = record.selection.epoch
    show(title, ("metric", "epoch 0", f"epoch {chosen} (chosen on val)"), rows)
    _alphas(record)
    console.print(
        f"{record.parameters.trainable:,} of {record.parameters.total:,} parameters "
        f"trained, {record.steps.total} steps, peak lr {record.steps.peak_lr:.3g}, "
        f"{record.cost.seconds:.0f} s, {record.cost.peak_memory_bytes / 1e9:.1f} GB",
        highlight=False,
    )
    if outcome.note is not None:
        marked("note:", outcome.note)
    console.print(outcome.folder, highlight=False)


def _alphas(record: RunRecord) -> None:
    """Print the averages of start and end, by the metric that runs are selected by."""
    if not (points := record.alpha_curve):
        return
    names = [n for n in points[0] if n.endswith("/" + record.selection.metric.split("/")[1])]
    best = record.selection.alpha
    rows = [
        (f"{p['alpha']:g}{' *' if p['alpha'] == best else ''}", *map(p.get, names)) for p in points
    ]
    show("averages of start (0) and end (1); * best on val", ("alpha", *names), rows)


def _failure(outcome: Outcome) -> None:
    folder = Path(outcome.folder) if outcome.folder else paths.outputs()
    before = " (before; retry=failed runs it again)" if outcome.before else ""
    refusal(f"{outcome.status}: {outcome.error}{before}", outcome.details, folder)
    if (folder / LOG).is_file():
        print(f"  {folder / LOG}", file=sys.stderr)
