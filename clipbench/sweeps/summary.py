"""The last words of a job: its table, or the cause of its end and the fix."""

import difflib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipbench.core import paths
from clipbench.core.config import compose, overrides
from clipbench.core.config.search_path import ALSO_DATASETS
from clipbench.core.console import console, marked, show
from clipbench.core.errors import SHOWN
from clipbench.core.jobs import Outcome
from clipbench.results import store
from clipbench.sweeps.output import LOG

# Hydra's names for what comes with a plugin, and the extra that brings it.
_EXTRAS = {"optuna": "optuna"}


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
    cost = record["cost"]
    title = f"{record['model']} on {record['dataset']}, {record['strategy']}{done}"
    zero: dict[str, Any] = next((row for row in record["curve"] if row["epoch"] == 0), {})
    final = {name: value for name, value in record["final"].items() if "@alpha=" not in name}
    rows = [(name, zero.get(name), value) for name, value in final.items()]
    chosen = record["selection"]["epoch"]
    show(title, ("metric", "epoch 0", f"epoch {chosen} (chosen on val)"), rows)
    _alphas(record)
    console.print(
        f"{record['parameters']['trainable']:,} of {record['parameters']['total']:,} parameters "
        f"trained, {record['steps']['total']} steps, peak lr {record['steps']['peak_lr']:.3g}, "
        f"{cost['seconds']:.0f} s, {cost['peak_memory_bytes'] / 1e9:.1f} GB",
        highlight=False,
    )
    if outcome.note is not None:
        marked("note:", outcome.note)
    console.print(outcome.folder, highlight=False)


def _alphas(record: dict[str, Any]) -> None:
    """The averages of start and end, by the metric that runs are selected by."""
    if not (points := record.get("alpha_curve")):
        return
    names = [n for n in points[0] if n.endswith("/" + record["selection"]["metric"].split("/")[1])]
    best = record["selection"]["alpha"]
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


def refusal(summary: str, details: Sequence[str], folder: Path) -> None:
    """Print a cause and its details; those beyond the first fifty go to a file in ``folder``."""
    sys.stdout.flush()
    print(summary, file=sys.stderr)
    for line in details[:SHOWN]:
        print(f"  {line}", file=sys.stderr)
    if rest := details[SHOWN:]:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "refused.txt"
        store.write_text(path, "\n".join(details) + "\n")
        print(f"  and {len(rest)} more, all of them in {path}", file=sys.stderr)


def near(word: str, options: Sequence[str]) -> str:
    """``; did you mean ...?`` for the options nearest to a word, or nothing."""
    matches = difflib.get_close_matches(word, options, n=3, cutoff=0.5)
    # A key's last part is what people remember: rot is near dataset.root.
    matches += [
        o for o in options if difflib.get_close_matches(word, [o.split(".")[-1]], cutoff=0.75)
    ]
    unique = list(dict.fromkeys(matches))[:4]
    return f"; did you mean {' or '.join(unique)}?" if unique else ""


def config_error(error: Exception, words: Sequence[str]) -> None:
    """Print what is wrong with the command line, in one line, with what comes near."""
    text = str(error)
    cause = str(error.__cause__ or "")
    if match := re.search(r"Could not find '([^']+?)/?([^'/]+)'", text):
        group, option = match.groups()
        place = "dataset" if group in ALSO_DATASETS else group
        folders = [paths.CONF / place, paths.EXPERIMENTS / place]
        options = sorted({p.stem for folder in folders for p in folder.glob("*.yaml")})
        message = f"{group}={option} is no option{near(option, options)}"
        if (extra := _EXTRAS.get(option)) is not None:
            message, options = f'{extra} is not installed; pip install "clipbench[{extra}]"', []
        message += f" (options: {', '.join(options)})" if options else ""
    elif match := re.search(r"Could not override '([^']+)'", text):
        name = match.group(1)
        message = f"{name} is no key{near(name, compose.keys())}"
    elif match := re.search(r"override '([^'=]+)'\s+missing EQUAL", text):
        message = f"{match.group(1)} is not key=value; put quotes around a value that has spaces"
    elif match := re.search(r"Missing mandatory value: (\S+)", text):
        message = f"{match.group(1)} must be given: {match.group(1)}=..."
    else:
        message = " ".join((cause or text).split())
    print(f"error: {message}", file=sys.stderr)
    print(f"  in: {overrides.shell(words)}", file=sys.stderr)
