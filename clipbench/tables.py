"""Every table and figure: those of the documents, and each sweep's own; no torch.

Run: python -m clipbench.tables [table=NAME] [results=outputs|frozen]

Without results= from both: own runs, and those frozen in experiments/results of experiments that
were not run here.
"""

from pathlib import Path

from clipbench import (
    document_figures,
    documents,
    evidence,
    frames,
    layouts,
    paths,
    sweep_tables,
    typeset,
)
from clipbench.errors import Refused
from clipbench.evidence import Evidence
from clipbench.progress import console


def main() -> None:
    """Write the tables that are asked for; 1 if one of them was refused."""
    from clipbench import doors

    doors.opened(__doc__ or "", make, bare=True)


def make(words: list[str]) -> int:
    """Write tables.

    Args:
        words: ``table=NAME``, ``results=SOURCE``.

    Raises:
        Refused: for a table or a source that there is not.
    """
    from clipbench import doors

    asked = doors.given(words, ("table", "results"))
    if (source := asked.get("results")) not in (None, *evidence.SOURCES):
        raise Refused(f"results={source} is not known; give outputs or frozen, or leave it out")
    specs = {path.stem: path for path in sorted((paths.EXPERIMENTS / "table").glob("*.yaml"))}
    name = asked.get("table")
    if name is not None and name not in specs and not name.startswith("sweep_"):
        raise Refused(f"no table {name}; there are {', '.join(specs)}, and sweep_NAME of a sweep")
    refused = of_documents({n: p for n, p in specs.items() if name in (None, n)}, source)
    if name is None or name.startswith("sweep_"):
        of_sweeps(name and name.removeprefix("sweep_"), source)
    return refused


def of_documents(specs: dict[str, Path], source: str | None) -> int:
    """Write the tables of some YAMLs; 1 if one was refused."""
    target, refused = paths.outputs() / "tables", 0
    target.mkdir(parents=True, exist_ok=True)
    runs = Evidence(evidence.gather(source)) if specs else None
    for name, path in specs.items():
        assert runs is not None
        try:
            layout = layouts.fill(name, layouts.read(path), runs)
            found = documents.document(layout)
        except Refused as error:
            console.print(f"[red]refused:[/] {error}", highlight=False)
            refused = 1
            continue
        figure = target / f"{name}.png"
        drawn = document_figures.draw(layout, runs, figure)
        text = found.markdown(figure.name if drawn else None)
        files = typeset.write_texts(target / name, text, found.latex(), found.frame)
        for file in [*files, figure] if drawn else files:
            console.print(file)
    return refused


def of_sweeps(name: str | None, source: str | None) -> None:
    """Write the tables of every sweep, or of one."""
    own = sorted((paths.outputs() / "sweeps").glob("*/jobs.jsonl")) if source != "frozen" else []
    folders = {path.parent.name: path.parent for path in own}
    frozen = sorted((paths.EXPERIMENTS / "results").glob("*.csv")) if source != "outputs" else []
    for folder in folders.values():
        if name in (None, folder.name):
            for path in sweep_tables.sweep(folder):
                console.print(path)
    for csv in frozen:
        if csv.stem not in folders and name in (None, csv.stem):
            for path in sweep_tables.of_frame(frames.read(csv), csv.stem):
                console.print(path)
    if not folders and not frozen:
        console.print(f"no sweeps under {paths.outputs()}; run one: python -m clipbench.run -m ...")


if __name__ == "__main__":
    main()
