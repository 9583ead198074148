"""Where two models part: by class, and picture by picture, from their saved predictions."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from clipbench.core import spreadsheet
from clipbench.core.errors import UserError

SHOWN = 6  # pictures of a kind
RULE = (
    f"Shown are those on which the wrong one was surest, at most {SHOWN} of a kind; nothing is "
    "chosen by eye."
)
KINDS = ("first", "second", "both")


def predictions(run: Path, split: str) -> pd.DataFrame:
    """What one run said of each picture of a split, by id, with the names of the classes."""
    rows = pd.read_parquet(run / "predictions.parquet", filters=[("split", "==", split)])
    names = classes(run)
    for column in ("label", "prediction"):
        rows[f"{column}_name"] = rows[column].map(names)
    return rows.set_index("id")


def classes(run: Path) -> dict[int, str]:
    """The names of a run's classes by label; as they are, NaN and null included."""
    table = spreadsheet.read(run / "per_class.csv", ["class"])
    return dict(zip(table["label"], table["class"], strict=True))


def apart(first: pd.DataFrame, second: pd.DataFrame) -> bool:
    """Whether two models differ on any picture."""
    return bool((first["prediction"] != second["prediction"].reindex(first.index)).any())


def by_class(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Recall of each class by two models, the largest difference first.

    Args:
        first: of :func:`predictions`.
        second: of the same pictures.

    Returns:
        Columns ``name``, ``n``, ``first``, ``second`` and ``difference``.
    """
    second = second.loc[first.index]
    right = pd.DataFrame(
        {
            "name": first["label_name"],
            "first": first["prediction"] == first["label"],
            "second": second["prediction"] == second["label"],
        }
    )
    table = right.groupby(first["label"]).agg(
        name=("name", "first"),
        n=("name", "size"),
        first=("first", "mean"),
        second=("second", "mean"),
    )
    table["difference"] = table["first"] - table["second"]
    order = table["difference"].abs().sort_values(ascending=False, kind="stable").index
    return table.loc[order].reset_index(drop=True)


@dataclass(frozen=True)
class Parted:
    """Pictures that one of two models gets wrong, or both.

    Attributes:
        count: how many there are.
        ids: of those that are shown.
    """

    count: int
    ids: tuple[str, ...]


def parted(first: pd.DataFrame, second: pd.DataFrame) -> dict[str, Parted]:
    """By who is wrong, ``first``, ``second`` or ``both``: the pictures, by :data:`RULE`."""
    second = second.loc[first.index]
    wrong = [rows["prediction"] != rows["label"] for rows in (first, second)]
    chosen = {
        "first": (wrong[0] & ~wrong[1], first["probability"]),
        "second": (wrong[1] & ~wrong[0], second["probability"]),
        "both": (wrong[0] & wrong[1], (first["probability"] + second["probability"]) / 2),
    }
    found = {}
    for kind, (mask, sure) in chosen.items():
        ids = sure[mask].sort_values(ascending=False, kind="stable").index
        found[kind] = Parted(len(ids), tuple(ids[:SHOWN]))
    return found


def pictures(record: Mapping[str, Any], split: str, ids: set[str], side: int) -> dict[str, str]:
    """Small pictures of a split as ``data:`` addresses; none where they are not on this machine."""
    from clipbench.core.config.instantiate import build
    from clipbench.reporting.page.retrieval_examples import thumbnail  # torch

    try:
        rows = build(record["config"]["dataset"]).lists(record["seed"])[split]
    except UserError:
        return {}
    found = {}
    for index, name in enumerate(rows.ids):
        if name in ids:
            try:
                found[name] = thumbnail(rows.image(index), side)
            except UserError:
                continue
    return found
