"""Every table and figure: those of the documents, and each sweep's own; no torch.

Run: python -m clipbench.tables [table=NAME] [results=outputs|frozen]

table=claims: what each experiment claims, and whether its runs show it.

Without results= from both: own runs, and those frozen in experiments/results of experiments that
were not run here.
"""

import gc
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from clipbench.core import paths
from clipbench.core.console import console, marked, show
from clipbench.core.errors import UserError
from clipbench.reporting.tables import sweep_tables, typeset
from clipbench.results import evidence
from clipbench.results.evidence import Evidence

CLAIMS = "claims"


def main() -> None:
    """Write the tables that are asked for; 1 if one of them was refused."""
    from clipbench.core import cli

    cli.opened(__doc__ or "", make, bare=True)


def make(words: list[str]) -> int:
    """Write tables, some at a time where there are several cores.

    Args:
        words: ``table=NAME``, ``results=SOURCE``.

    Raises:
        UserError: for a table or a source that there is not.
    """
    from clipbench.core import cli

    asked = cli.given(words, ("table", "results"))
    if (source := asked.get("results")) not in (None, *evidence.SOURCES):
        raise UserError(f"results={source} is not known; give outputs or frozen, or leave it out")
    specs = {path.stem: path for path in sorted((paths.EXPERIMENTS / "table").glob("*.yaml"))}
    sweeps, judged = evidence.sweeps(source), True
    if (name := asked.get("table")) is not None:
        specs = {own: path for own, path in specs.items() if own == name}
        sweeps = {own: path for own, path in sweeps.items() if f"sweep_{own}" == name}
        judged = name == CLAIMS
        if not specs and not sweeps and not judged:
            names = sorted(path.stem for path in (paths.EXPERIMENTS / "table").glob("*.yaml"))
            named = ", ".join([*names, CLAIMS])
            raise UserError(f"no table {name}; there are {named}, and sweep_NAME")
    jobs: list[Job] = [partial(of_documents, specs, source)] if specs else []
    jobs += [partial(of_claims, source, told=name is not None)] if judged else []
    jobs += [partial(of_sweep, path, told=name is not None) for path in sweeps.values()]
    if not sweeps and name is None:
        console.print(f"no sweeps under {paths.outputs()}; run one: python -m clipbench.run -m ...")
    cores = min(len(jobs), os.cpu_count() or 1)
    if cores < 2:
        return max((job() for job in jobs), default=0)
    codes = []
    # A sixth of their time would go into looking for garbage; they end before it is much.
    with ProcessPoolExecutor(cores, initializer=gc.disable) as pool:
        for code, text in pool.map(_captured, jobs):
            sys.stdout.write(text)
            codes.append(code)
    return max(codes)


Job = Callable[[], int]


def _captured(job: Job) -> tuple[int, str]:
    with console.capture() as captured:
        code = job()
    return code, captured.get()


def of_documents(specs: dict[str, Path], source: str | None) -> int:
    """Write the tables of some YAMLs and their figures; 1 if one was refused.

    Args:
        specs: the YAML of each table, by its name.
        source: of :func:`clipbench.results.evidence.gather`.
    """
    # Half a second of scipy, which no sweep's table needs: meanwhile others write those.
    from clipbench.reporting.tables import document_figures, documents, layouts

    target, refused = paths.outputs() / "tables", 0
    target.mkdir(parents=True, exist_ok=True)
    runs = Evidence(evidence.gather(source), evidence.pairs())
    for name, path in specs.items():
        try:
            layout = layouts.fill(name, layouts.read(path), runs)
            found = documents.document(layout)
        except UserError as error:
            marked("refused:", str(error), "red")
            refused = 1
            continue
        figure = target / f"{name}.png"
        drawn = document_figures.draw(layout, runs, figure)
        text = found.markdown(figure.name if drawn else None)
        files = typeset.write_texts(target / name, text, found.latex(), found.frame)
        for file in [*files, figure] if drawn else files:
            console.print(file)
    return refused


def of_claims(source: str | None, *, told: bool) -> int:
    """Write the table of what the experiments claim, printing the verdicts if told; 0.

    Args:
        source: of :func:`clipbench.results.evidence.gather`.
        told: whether to print.
    """
    from clipbench.reporting.tables import claim_tables

    written, rows = claim_tables.write(Evidence(evidence.gather(source), evidence.pairs()))
    if told and rows:
        show("what the experiments claim", claim_tables.COLUMNS[:7], [row[:7] for row in rows])
    for file in written:
        console.print(file)
    return 0


def of_sweep(path: Path, *, told: bool) -> int:
    """Write the tables of a sweep's folder, or of its frozen rows, printing one if told; 0."""
    if path.is_dir():
        written = sweep_tables.sweep(path, told=told)
    else:
        written = sweep_tables.of_frame(evidence.frozen(path), path.stem, told=told)
    for file in written:
        console.print(file)
    return 0


if __name__ == "__main__":
    main()
