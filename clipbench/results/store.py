"""The record of a run: its identity, its ``result.json``, and many of them as a DataFrame."""

import functools
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from clipbench.core import paths
from clipbench.core.cli import Given
from clipbench.core.config.option_files import Node
from clipbench.core.errors import UserError
from clipbench.core.files import write_text
from clipbench.results.identity import varies
from clipbench.results.record import SCHEMA, Row, RunRecord, plain

if TYPE_CHECKING:
    import pandas as pd


def write(folder: Path, record: RunRecord) -> None:
    """Write ``result.json`` atomically, sealed; a number that is not finite becomes null."""
    body = plain(record)
    sealed = {**body, "sha256": _seal(body)}
    write_text(folder / "result.json", json.dumps(sealed, indent=1) + "\n")


def _seal(record: Node) -> str:
    body = {name: value for name, value in record.items() if name != "sha256"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def read(folder: Path) -> RunRecord | None:
    """Return the record in a run's folder, or None where there is none that can be read.

    One that was cut off, or changed by anyone, counts for nothing, and is named on the error
    output: its job runs again.
    """
    path = folder / "result.json"
    try:
        content = path.read_bytes()
    except OSError:
        return None
    try:
        record = json.loads(content)
        if record.get("sha256", seal := _seal(record)) != seal:
            raise ValueError("not what was written")
        return RunRecord.from_json(record) if record.get("schema") == SCHEMA else None
    except (ValueError, AttributeError) as error:
        _say(
            f"{path} is not a whole record ({error}); it counts for nothing and its job runs again"
        )
        return None


@functools.cache
def _say(text: str) -> None:
    """Print it once, though tables and checks read the same record again and again."""
    print(text, file=sys.stderr)


def records(outputs: Path) -> Iterator[tuple[Path, RunRecord]]:
    """Yield every run folder under an outputs root with its record, in the order of their names."""
    for path in sorted((outputs / "runs").glob("*/*/result.json")):
        record = read(path.parent)
        if record is not None:
            yield path.parent, record


_COLUMNS = (
    *("key", "status", "model", "dataset", "strategy", "lr", "batch_size", "epochs"),
    *("freeze_depth", "seed"),
)


def row(folder: Path, record: RunRecord) -> Row:
    """Return a run flat: its axes, its final metrics, its cost, its folder."""
    flat: Row = {name: getattr(record, name) for name in _COLUMNS}
    flat["shots"] = record.config["dataset"].get("shots")
    flat["epoch0"] = next(
        (r.get(record.selection.metric) for r in record.curve if r["epoch"] == 0), None
    )
    flat |= {"run/varies": varies(record), "run/setting": record.setting}
    flat |= {f"selection/{k}": v for k, v in plain(record.selection).items()}
    flat |= record.final
    if (alpha := record.selection.alpha) is not None:
        ending = f"@alpha={alpha:g}"
        chosen = {k.removesuffix(ending): v for k, v in flat.items() if k.endswith(ending)}
        flat |= {f"{name}@alpha": value for name, value in chosen.items()}
    flat |= {f"cost/{k}": v for k, v in plain(record.cost).items()}
    return flat | {"folder": str(folder)}


def load(outputs: Path) -> "pd.DataFrame":
    """Return all records under an outputs root, one row each; columns as in :func:`row`."""
    import pandas as pd

    return pd.DataFrame([row(folder, record) for folder, record in records(outputs)])


def completed(words: Given) -> tuple[Path, RunRecord]:
    """Return the folder and the record of the run that ``run=`` names.

    Raises:
        UserError: if there is no completed run in it.
    """
    if "run" not in words:
        raise UserError("run=DIR is missing; name a run's folder, which has a result.json")
    folder = paths.expanded(words["run"])
    record = read(folder)
    if record is None or not record.completed:
        said = f"its run is {record.status}" if record else "it has no result.json"
        raise UserError(
            f"run={folder} holds no completed run: {said}; give another, or run it again"
        )
    return folder, record
