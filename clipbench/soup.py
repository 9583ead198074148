"""A soup of a sweep's runs: the mean of their weights, evaluated as a run of its own.

Run: python -m clipbench.soup sweep=outputs/sweeps/NAME [kind=greedy|uniform] [bn=reestimate]

greedy adds runs, best first, that improve val; uniform takes all (Wortsman et al. 2022).
"""

from pathlib import Path

from clipbench.core import cli
from clipbench.core.errors import UserError
from clipbench.reporting.tables import sweep_tables
from clipbench.results import sweep_log
from clipbench.sweeps import summary


def main() -> None:
    """Make a soup, add it to the sweep's runs, and write their table again."""
    cli.opened(__doc__ or "", soup)


def soup(words: list[str]) -> int:
    """Run the command."""
    arguments = cli.given(words, ("sweep", "kind", "bn"))
    kind = cli.choice(arguments, "kind", ("greedy", "uniform"))
    bn = cli.choice(arguments, "bn", ("average", "reestimate"))
    if "sweep" not in arguments:
        raise UserError("sweep=DIR is missing. Name a folder of sweeps/ below the outputs root.")
    from clipbench.core import environment  # torch
    from clipbench.training.soup import cook, ingredients

    sweep = Path(arguments["sweep"])
    environment.quiet()
    outcome = cook(ingredients(sweep), kind, bn)
    summary.job(outcome)
    sweep_log.append(sweep, outcome, [f"soup={kind}", f"bn={bn}"])
    for path in sweep_tables.sweep(sweep):
        print(path)
    return 0


if __name__ == "__main__":
    main()
