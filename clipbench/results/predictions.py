"""What completed runs predicted, image by image, as they saved it; no torch."""

from pathlib import Path

import pandas as pd

from clipbench.core.errors import UserError
from clipbench.results import store
from clipbench.results.record import RunRecord

# Of every image what was predicted: at the chosen epoch, and at the alpha chosen on val.
SAVED, MERGED = "predictions.parquet", "merged_predictions.parquet"


def record(run: Path, split: str) -> RunRecord:
    """Return the record of a run that evaluated a split.

    Raises:
        UserError: if it did not.
    """
    found = store.read(run)
    if found is None or split not in found.data:
        raise UserError(f"{run} has no record of split={split}; choose another, or run it again")
    return found


def predictions(run: Path, split: str, alpha: str | None = None) -> pd.DataFrame:
    """Return the saved predictions of one split, by image id.

    Args:
        run: a completed run's folder.
        split: such as ``test``.
        alpha: of the merged weights, those of the alpha chosen on val: ``=0.5``, or empty for
            whichever that is; None for the chosen epoch's.

    Raises:
        UserError: if there are none.
    """
    file = run / (SAVED if alpha is None else MERGED)
    if not file.is_file():
        raise UserError(f"{run} has no {file.name}; give the folder of a completed run")
    if alpha and (found := store.read(run)):
        chosen = found.selection.alpha
        if f"={chosen:g}" != alpha:
            raise UserError(f"{run} kept predictions at alpha={chosen:g} only, not at alpha{alpha}")
    rows = pd.read_parquet(
        file, columns=["id", "label", "prediction"], filters=[("split", "==", split)]
    )
    if rows.empty:
        raise UserError(
            f"{run} has no predictions of split={split}; choose another, or run it again"
        )
    return rows.set_index("id")


def saved(run: Path, split: str, alpha: str | None = None) -> bool:
    """Return whether :func:`predictions` has any of a run, without reading them."""
    file = run / (SAVED if alpha is None else MERGED)
    if not file.is_file():
        return False
    found = store.read(run)
    at = found.selection.alpha if found else None
    if alpha and (at is None or alpha != f"={at:g}"):
        return False
    return not pd.read_parquet(file, columns=["split"], filters=[("split", "==", split)]).empty


def discordant(first: Path, second: Path, split: str) -> tuple[int, int, int]:
    """Return the images of a split, how many the first run alone has right, and the second alone.

    Raises:
        UserError: if either has no predictions of that split.
    """
    one, other = predictions(first, split), predictions(second, split)
    theirs = other["prediction"].reindex(one.index)
    right, also = one["prediction"] == one["label"], theirs == one["label"]
    return len(one), int((right & ~also).sum()), int((also & ~right).sum())
