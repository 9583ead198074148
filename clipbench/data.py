"""Check or download a dataset.

Run: python -m clipbench.data check|fetch dataset=NAME [dataset.root=FOLDER ...]
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.override_parser.overrides_parser import OverridesParser

from clipbench.core import cli, files, paths
from clipbench.core.config import compose, overrides
from clipbench.core.console import console, marked, show, warn
from clipbench.core.errors import SHOWN

if TYPE_CHECKING:
    from clipbench.datamodules.audit import Audit
    from clipbench.datamodules.base import DataModule


def named(words: list[str]) -> str:
    """Return the dataset that a command line names."""
    parsed = OverridesParser.create().parse_overrides(overrides.read(words))
    return next((str(o.value()) for o in parsed if o.key_or_group == "dataset"), "")


def fetch(data: "DataModule", name: str, words: Sequence[str] = ()) -> int:
    """Download a dataset, or print the steps to get it.

    Args:
        data: to download.
        name: of the dataset.
        words: the overrides that named it, for the command that checks the download.
    """
    if not data.files:
        print(data.instructions or f"{name} has nothing to download", file=sys.stderr)
        return 1 if data.instructions else 0
    data.fetch()
    again = overrides.shell(["python", "-m", "clipbench.data", "check", *words])
    console.print(f"{name} is in {data.root}; {again}")
    return 0


def check(data: "DataModule", name: str, words: Sequence[str] = ()) -> int:
    """Check a dataset, and write the report to ``data/<dataset>.json`` under the outputs root."""
    from clipbench.datamodules.audit import audit
    from clipbench.loading.decoded import kept_in

    folder = paths.outputs() / "data"
    folder.mkdir(parents=True, exist_ok=True)
    result = audit(data, name, kept_in(data.root))
    report = json.dumps({"dataset": name, **asdict(result)}, indent=1)
    files.write_text(folder / f"{name}.json", report + "\n")
    _print(result, name, folder / f"{name}.json")
    return 1 if result.faults else 0


def _print(result: "Audit", name: str, report: Path) -> None:
    digests = ("sha256", "content")  # as runs record them; content is of the images
    columns = ("split", "n", "expected", "published", "captions", *digests)
    rows = [[row[c][:12] if c in digests else row[c] for c in columns] for row in result.rows]
    show(name, columns, rows)
    of, published = result.classes
    if result.labels:
        show("classes", ("label", "folder", "name"), result.labels[:SHOWN])
        if len(result.labels) > SHOWN:
            more = len(result.labels) - SHOWN
            console.print(f"and {more} more, listed in {report}", highlight=False)
    if of is not None:
        console.print(
            f"{of} classes" + (f", {published} published" if published else ""), highlight=False
        )
    for splits, n in result.sums.items():
        console.print(f"{splits}: {n:,} published", highlight=False)
    for row in result.rows:
        if row["rule"]:
            console.print(f"{row['split']}: {row['rule']}", highlight=False)
    for warning in result.warnings:
        warn(warning)
    for fault, details in result.faults.items():
        marked("fault:", fault, "red")
        for line in details[:SHOWN]:
            console.print(f"  {line}", highlight=False, markup=False)
        if len(details) > SHOWN:
            console.print(f"  and {len(details) - SHOWN} more, all of them in {report}")
    if not result.faults:
        console.print("nothing that stops a run")


def main() -> None:
    """Check or download a dataset."""
    cli.opened(__doc__ or "", act, folder="data")


def act(words: list[str]) -> int:
    """Build the datamodule, and check or download it."""
    action, *overridden = words
    actions = {"check": check, "fetch": fetch}
    if action not in actions or not any(word.startswith("dataset=") for word in overridden):
        print(__doc__, file=sys.stderr)
        return 2
    node = compose.compose(*overridden)["dataset"]
    from clipbench.core.config.instantiate import build

    return actions[action](build(node), named(overridden), overridden)


if __name__ == "__main__":
    main()
