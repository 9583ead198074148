"""A soup of a sweep's runs: the mean of their weights, evaluated as a run of its own.

Run: python -m clipbench.soup sweep=outputs/sweeps/NAME [kind=greedy|uniform] [bn=reestimate]

greedy adds runs, best first, that improve val; uniform takes all (Wortsman et al. 2022).
"""

import sys
from pathlib import Path

from clipbench.core import cli
from clipbench.core.errors import UserError
from clipbench.reporting.tables import sweep_tables
from clipbench.results import sweep_log
from clipbench.sweeps import summary

KINDS = {"kind": ("greedy", "uniform"), "bn": ("average", "reestimate")}


def main() -> None:
    """Make a soup, add it to the sweep's runs, and write their table again."""
    given = dict(word.partition("=")[::2] for word in sys.argv[1:])
    options = {"kind": "greedy", "bn": "average", **given}
    right = all(options[key] in known for key, known in KINDS.items())
    if not right or "sweep" not in given or options.keys() - {"sweep", *KINDS}:
        print(__doc__, file=sys.stderr)
        sys.exit(0 if {"-h", "--help"} & given.keys() else 2)
    sweep = Path(given["sweep"])
    from clipbench.core import environment  # torch
    from clipbench.training.soup import cook, ingredients

    environment.quiet()
    try:
        outcome = cook(ingredients(sweep), options["kind"], options["bn"])
    except UserError as refused:
        cli.refusal(f"refused: {refused}", refused.details, sweep)
        sys.exit(1)
    summary.job(outcome)
    sweep_log.append(sweep, outcome, [f"soup={options['kind']}", f"bn={options['bn']}"])
    for path in sweep_tables.sweep(sweep):
        print(path)


if __name__ == "__main__":
    main()
