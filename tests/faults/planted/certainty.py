"""How sure a difference is: one seed a side compares two trained models, and no more."""

from pathlib import Path

from clipbench.metrics.seeds import Spread
from clipbench.reporting.page import page, verdict
from clipbench.reporting.tables import cells, significance
from clipbench.results.evidence import Evidence
from clipbench.results.frames import frame
from clipbench.results.record import RunRecord
from tests.faults.planted import image_folder, plants, run

STRATEGIES = ("lp_ft", "finetune")
COUNTS = {"train": 8, "val": 8, "test": 40}


@plants(
    "one seed a side, as if another could not reverse it",
    blind={"clipbench.metrics.significance.spread": lambda *sides: Spread([], known=True)},
)
def one_seed_a_side(place):
    root = f"dataset.root={image_folder(place / 'images', COUNTS)}"
    trained = [run(place, root, strategy=strategy) for strategy in STRATEGIES]
    scores = [one.record["final"]["test/acc"] for one in trained]
    assert scores[0] > scores[1] + 0.2, f"{scores}: without a difference there is nothing to claim"
    runs = [(Path(one.outcome.folder), RunRecord.from_json(one.record)) for one in trained]
    text = page.rendered("one seed a side", runs, [], {})
    assert "Better than" not in text, "two single runs are called better and worse"
    assert verdict.REVERSIBLE in text
    assert '<tr class="taken">' not in text, "a single run is bold"
    evidence = Evidence({"": frame(runs)})
    rows = [cells.measure(evidence, {"strategy": strategy}, "test/acc") for strategy in STRATEGIES]
    best = significance.best([row for row in rows if row])
    assert best is not None
    assert best.of_these_runs
    assert not best.claimed, "a single run is bold in a table"
