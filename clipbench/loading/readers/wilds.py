"""The datasets of WILDS (Koh et al. 2021), as the ``wilds`` package downloads them."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from clipbench.core.errors import UserError

# Ours -> theirs: what WILDS calls val and test is out of distribution.
SPLITS = {"train": "train", "val": "id_val", "test": "id_test"}
SPLITS |= {"val_ood": "val", "test_ood": "test"}


def table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a CSV file that needs some columns, with all that it has.

    Raises:
        UserError: if it does not exist, cannot be read, is empty or lacks a column.
    """
    try:
        rows = pd.read_csv(path, low_memory=False)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist. Set dataset.root to the folder with it") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}). Download it again") from error
    if rows.empty or (lacking := [name for name in columns if name not in rows]):
        what = "no rows" if rows.empty else f"no column {', '.join(lacking)}"
        raise UserError(f"{path} has {what}. Use the release's file")
    return rows


def steps(bundle: str, size: str, folder: str) -> str:
    """Return how to get a release by hand, by its number on CodaLab and its folder in WILDS."""
    name = folder.rpartition("_")[0]
    return (
        f"download https://worksheets.codalab.org/rest/bundles/{bundle}/contents/blob/ ({size}, a "
        f"tar.gz), unpack it into {folder} and set dataset.root to that; or pip install wilds and "
        f"in Python wilds.get_dataset({name!r}, root_dir=FOLDER, download=True)"
    )
