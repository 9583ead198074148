"""What the sets of WILDS (Koh et al. 2021) share: how splits are called, and tables to read.

Their folders are read as the ``wilds`` package downloads them, without the package.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from clipbench.core.errors import UserError

# Ours -> theirs: what WILDS calls val and test is out of distribution.
SPLITS = {
    "train": "train",
    "val": "id_val",
    "test": "id_test",
    "val_ood": "val",
    "test_ood": "test",
}


def table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a CSV file, with all of its columns as they are.

    Args:
        path: the file.
        columns: those needed.

    Raises:
        UserError: if it is not there, cannot be read, is empty or lacks a column.
    """
    try:
        found = pd.read_csv(path, low_memory=False)
    except FileNotFoundError as error:
        raise UserError(f"there is no {path}. Set dataset.root to the folder with it") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}). Download it again") from error
    if found.empty or (lacking := [name for name in columns if name not in found]):
        what = "no rows" if found.empty else f"no column {', '.join(lacking)}"
        raise UserError(f"{path} has {what}. Use the release's file")
    return found


def steps(bundle: str, size: str, folder: str) -> str:
    """Return how to get a release by hand.

    Args:
        bundle: its number on CodaLab, where WILDS keeps it.
        size: of the archive, to be shown.
        folder: how WILDS calls the folder.
    """
    name = folder.rpartition("_")[0]
    return (
        f"download https://worksheets.codalab.org/rest/bundles/{bundle}/contents/blob/ ({size}, a "
        f"tar.gz), unpack it into {folder} and set dataset.root to that; or pip install wilds and "
        f"in Python wilds.get_dataset({name!r}, root_dir=FOLDER, download=True)"
    )
