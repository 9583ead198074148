"""Every table and figure: those of the documents, and each sweep's own; no torch.

Run: python -m clipbench.tables [table=NAME] [results=outputs|frozen]

table=claims: what each experiment claims, and whether its runs show it.

Without results=, tables use the runs here and, of experiments that were not run here, the rows in
experiments/results.
"""

from clipbench.core import cli
from clipbench.reporting.tables import all_tables


def main() -> None:
    """Write the tables of the command line; exit with 1 if one was refused."""
    cli.opened(__doc__ or "", make, bare=True)


def make(words: list[str]) -> int:
    """Write the tables that ``table=NAME`` and ``results=SOURCE`` name."""
    arguments = cli.given(words, ("table", "results"))
    return all_tables.write(arguments.get("table"), arguments.get("results"))


if __name__ == "__main__":
    main()
