"""The files of all tables: those of the documents, of the claims and of each sweep."""

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


def write(name: str | None, source: str | None) -> int:
    """Write tables, several at a time on several cores; return 1 if one was refused, else 0.

    Args:
        name: of the only table to write; None writes all.
        source: of :func:`clipbench.results.evidence.gather`.

    Raises:
        UserError: if the table or the source does not exist.
    """
    if source not in (None, *evidence.SOURCES):
        raise UserError(f"results={source}: unknown. Choose outputs or frozen, or leave it out.")
    specs = {path.stem: path for path in sorted((paths.EXPERIMENTS / "table").glob("*.yaml"))}
    sweeps, judged = evidence.sweeps(source), True
    if name is not None:
        specs = {stem: path for stem, path in specs.items() if stem == name}
        sweeps = {stem: path for stem, path in sweeps.items() if f"sweep_{stem}" == name}
        judged = name == CLAIMS
        if not specs and not sweeps and not judged:
            names = sorted(path.stem for path in (paths.EXPERIMENTS / "table").glob("*.yaml"))
            known = ", ".join([*names, CLAIMS])
            raise UserError(f"table={name} does not exist; there are {known}, and sweep_NAME")
    jobs: list[Job] = [partial(of_documents, specs, source)] if specs else []
    jobs += [partial(of_claims, source, shown=name is not None)] if judged else []
    jobs += [partial(of_sweep, path, shown=name is not None) for path in sweeps.values()]
    if not sweeps and name is None:
        console.print(f"no sweeps under {paths.outputs()}; run one: python -m clipbench.run -m ...")
    cores = min(len(jobs), os.cpu_count() or 1)
    if cores < 2:
        return max((job() for job in jobs), default=0)
    codes = []
    # Garbage collection would take a sixth of their time, and they end before it is needed.
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


def of_claims(source: str | None, *, shown: bool) -> int:
    """Write the table of what the experiments claim, printing the verdicts if shown; 0.

    Args:
        source: of :func:`clipbench.results.evidence.gather`.
        shown: whether to print.
    """
    from clipbench.reporting.tables import claim_tables

    written, rows = claim_tables.write(Evidence(evidence.gather(source), evidence.pairs()))
    if shown and rows:
        show("what the experiments claim", claim_tables.COLUMNS[:7], [row[:7] for row in rows])
    for file in written:
        console.print(file)
    return 0


def of_sweep(path: Path, *, shown: bool) -> int:
    """Write the tables of a sweep's folder, or of its frozen rows, printing one if shown; 0."""
    if path.is_dir():
        written = sweep_tables.sweep(path, told=shown)
    else:
        written = sweep_tables.of_frame(evidence.frozen(path), path.stem, told=shown)
    for file in written:
        console.print(file)
    return 0
