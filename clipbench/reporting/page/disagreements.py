"""Where two models disagree, by class and by image, from their saved predictions."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from clipbench.core import spreadsheet
from clipbench.core.errors import UserError
from clipbench.results.record import RunRecord

SHOWN = 6  # images of a kind
RULE = (
    f"Shown are the images on which the wrong model was most confident, at most {SHOWN} of each "
    "kind. Nothing is chosen by eye."
)


def predictions(run: Path, split: str) -> pd.DataFrame:
    """Return a run's predictions on a split by image id, with the names of the classes."""
    rows = pd.read_parquet(run / "predictions.parquet", filters=[("split", "==", split)])
    names = classes(run)
    for column in ("label", "prediction"):
        rows[f"{column}_name"] = rows[column].map(names)
    return rows.set_index("id")


def classes(run: Path) -> dict[int, str]:
    """Return the names of a run's classes by label, as text even if they are NaN or null."""
    table = spreadsheet.read(run / "per_class.csv", ["class"])
    return dict(zip(table["label"], table["class"], strict=True))


def apart(first: pd.DataFrame, second: pd.DataFrame) -> bool:
    """Return whether two models disagree on any image."""
    return bool((first["prediction"] != second["prediction"].reindex(first.index)).any())


def by_class(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Return the recall of each class by two models, the largest difference first.

    The columns are ``name``, ``n``, ``first``, ``second`` and ``difference``.
    """
    second = second.loc[first.index]
    right = first.assign(
        first=first["prediction"] == first["label"],
        second=second["prediction"] == second["label"],
    )
    table = right.groupby("label").agg(
        name=("label_name", "first"),
        n=("label_name", "size"),
        first=("first", "mean"),
        second=("second", "mean"),
    )
    table["difference"] = table["first"] - table["second"]
    return table.sort_values(
        "difference", key=lambda gap: gap.abs(), ascending=False, kind="stable", ignore_index=True
    )


@dataclass(frozen=True)
class Disagreement:
    """Images that one of two models gets wrong, or both: their number, and the ids shown."""

    count: int
    ids: tuple[str, ...]


def by_image(first: pd.DataFrame, second: pd.DataFrame) -> dict[str, Disagreement]:
    """Return the images that ``first``, ``second`` or ``both`` get wrong, by :data:`RULE`."""
    second = second.loc[first.index]
    one, two = (rows["prediction"] != rows["label"] for rows in (first, second))
    chosen = {
        "first": (one & ~two, first["probability"]),
        "second": (two & ~one, second["probability"]),
        "both": (one & two, (first["probability"] + second["probability"]) / 2),
    }
    kinds = {}
    for kind, (mask, confidence) in chosen.items():
        ids = confidence[mask].sort_values(ascending=False, kind="stable").index
        kinds[kind] = Disagreement(len(ids), tuple(ids[:SHOWN]))
    return kinds


def thumbnails(record: RunRecord, split: str, ids: set[str], side: int) -> dict[str, str]:
    """Return thumbnails of a split's images, as far as they are here, as ``data:`` URLs."""
    from clipbench.core.config.instantiate import build
    from clipbench.reporting.page.retrieval_examples import thumbnail  # torch

    try:
        rows = build(record.config["dataset"]).lists(record.seed)[split]
    except UserError:
        return {}
    urls = {}
    for index, name in enumerate(rows.ids):
        if name in ids:
            try:
                urls[name] = thumbnail(rows.image(index), side)
            except UserError:
                continue
    return urls
