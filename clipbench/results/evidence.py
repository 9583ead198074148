"""The runs that tables are made of: those under the outputs root, and those frozen here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clipbench.core import paths
from clipbench.results import frames, store, sweep_log

SOURCES = ("outputs", "frozen")
Sweeps = dict[str, pd.DataFrame]
Where = Mapping[str, str | float | bool | None]  # values of columns that select runs
Counts = tuple[int, int, int]  # images, those that only the first gets right, only the second


def sweeps(source: str | None = None) -> dict[str, Path]:
    """Return the folder, or the frozen rows, of each sweep, by its name.

    Args:
        source: ``outputs``, ``frozen``, or None: both, an own sweep before a frozen one of its
            name.
    """
    own = sorted((paths.outputs() / "sweeps").glob("*/jobs.jsonl")) if source != "frozen" else []
    kept = sorted((paths.EXPERIMENTS / "results").glob("*.csv")) if source != "outputs" else []
    return {path.stem: path for path in kept} | {path.parent.name: path.parent for path in own}


def gather(source: str | None = None) -> Sweeps:
    """Return the runs of each sweep by its name, as :func:`clipbench.results.frames.frame` does.

    Args:
        source: as for :func:`sweeps`.

    Returns:
        Of the empty name: the runs outside of any sweep.
    """
    parts: Sweeps = {}
    listed: set[Path] = set()
    for name, path in sweeps(source).items():
        if path.is_file():
            parts[name] = frozen(path)
        elif runs := sweep_log.sweep_runs(path)[0]:
            listed |= {folder for folder, _ in runs}
            parts[name] = frames.frame(runs)
    others = [] if source == "frozen" else store.records(paths.outputs())
    alone = [
        (folder, record) for folder, record in others if folder not in listed and record.completed
    ]
    return parts | ({"": frames.frame(alone)} if alone else {})


def frozen(path: Path) -> pd.DataFrame:
    """Return the rows of one of ``experiments/results/*.csv``."""
    return frames.read(path)


def pairs() -> dict[tuple[str, str, str], Counts]:
    """Return the counts kept of pairs of frozen runs, by split and the two keys, in either order.

    See :func:`clipbench.reporting.tables.frozen_rows.pairs`.
    """
    found: dict[tuple[str, str, str], Counts] = {}
    for path in sorted((paths.EXPERIMENTS / "results" / "pairs").glob("*.csv")):
        for row in pd.read_csv(path, dtype=str).to_dict("records"):
            n, ours, theirs = (int(row[name]) for name in ("n", "only_first", "only_second"))
            split, first, second = (row[name] for name in ("split", "first", "second"))
            found[split, first, second] = (n, ours, theirs)
            found[split, second, first] = (n, theirs, ours)
    return found


class Evidence:
    """Runs to select from.

    Args:
        sweeps: of :func:`gather`.
        counts: of :func:`pairs`.
    """

    def __init__(
        self,
        sweeps: Mapping[str, pd.DataFrame],
        counts: Mapping[tuple[str, str, str], Counts] | None = None,
    ) -> None:
        self.counts = counts or {}
        self.sweeps = {
            name: part[part["status"] == "completed"].reset_index(drop=True)
            for name, part in sweeps.items()
        }
        self._masks: dict[tuple[str, str], dict[str, NDArray[np.bool_]]] = {}
        self._found: dict[str, pd.DataFrame] = {}

    def select(self, where: Where) -> pd.DataFrame:
        """Return the completed runs that a selection names, each once.

        Args:
            where: values by column, a list for any of them; ``experiment`` is the sweep's name.
        """
        asked = str(sorted(where.items()))
        if asked not in self._found:
            sweeps = [where["experiment"]] if "experiment" in where else [*self.sweeps]
            parts = [self._part(name, where) for name in sweeps if name in self.sweeps]
            parts = [part for part in parts if len(part)]
            rows = pd.concat(parts) if len(parts) > 1 else parts[0] if parts else pd.DataFrame()
            self._found[asked] = rows.drop_duplicates("key") if len(rows) else rows
        return self._found[asked]

    def _part(self, sweep: str, where: Where) -> pd.DataFrame:
        frame = self.sweeps[sweep]
        kept = np.ones(len(frame), bool)
        for name, wanted in where.items():
            if name != "experiment":
                values = wanted if isinstance(wanted, list) else [wanted]
                masks = [self._is(sweep, name, _text(value)) for value in values]
                kept &= np.any(masks, axis=0)
        return frame.iloc[np.flatnonzero(kept)]

    def _is(self, sweep: str, name: str, value: str) -> NDArray[np.bool_]:
        frame = self.sweeps[sweep]
        if (sweep, name) not in self._masks:
            none = pd.Series("null", index=frame.index)
            array = (frame[name].map(_text) if name in frame else none).to_numpy(str)
            self._masks[sweep, name] = {found: array == found for found in set(array)}
        return self._masks[sweep, name].get(value, np.zeros(len(frame), bool))


def _text(value: Any) -> str:
    """Return it as it is compared: 1e-05 is 0.00001, and what is missing is null."""
    text = frames.cell(value) or "null"
    try:
        return f"{float(text):g}"
    except ValueError:
        return text
