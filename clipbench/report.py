"""One page: which model is best, how certain that is, and at what cost. It needs no other file.

Run: python -m clipbench.report [sweep=DIR] [out=FILE.html]

sweep   a folder of sweeps/ below the outputs root, or its name; default: the latest
out     default: reports/NAME.html below the outputs root

Models and settings are chosen on val; the test split shows how good the chosen ones are and
whether they differ. Images are shown if the dataset is on this machine.
"""

from pathlib import Path

from clipbench.core import cli, paths
from clipbench.core.errors import UserError
from clipbench.reporting.page.page import write


def main() -> None:
    """Write the page, and print its path."""
    cli.opened(__doc__ or "", report, bare=True)


def report(words: list[str]) -> int:
    """Run the command."""
    arguments = cli.given(words, ("sweep", "out"))
    folder = _sweep(arguments.get("sweep"))
    out = Path(arguments.get("out", paths.outputs() / "reports" / f"{folder.name}.html"))
    if out.suffix != ".html":
        raise UserError(f"out={out} is not a .html file. Name one.")
    print(write(folder, out))
    return 0


def _sweep(given: str | None) -> Path:
    home = paths.outputs() / "sweeps"
    if given is None:
        lists = sorted(home.glob("*/jobs.jsonl"), key=lambda path: path.stat().st_mtime)
        if not lists:
            raise UserError(
                f"no sweeps under {home.parent}; run one: python -m clipbench.run -m ..."
            )
        return lists[-1].parent
    for folder in (paths.expanded(given), home / given):
        if (folder / "jobs.jsonl").is_file():
            return folder.resolve()
    raise UserError(f"sweep={given} has no jobs.jsonl. Name a folder of {home}.")


if __name__ == "__main__":
    main()
