"""What experiments claim: judged by their rows, counted when they are frozen, said as it is."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from clipbench.core import paths
from clipbench.core.errors import UserError
from clipbench.reporting.tables import claims, documents, frozen_rows, layouts
from clipbench.reporting.tables.typeset import Bold
from clipbench.results import evidence, frames, store, sweep_log
from clipbench.results import record as record_module
from clipbench.results.evidence import Evidence

N = 200


def rows(**accuracies):
    """Frozen rows of a model each, a seed for each accuracy."""
    about = {"status": "completed", "dataset": "d", "strategy": "finetune", "lr": 1, "epochs": 1}
    about |= {"selection/metric": "val/acc", "data/sha256": "ab" * 32, "data/n": N}
    about |= {"data/expected": N, "batch_size": 1, "freeze_depth": 0, "shots": None}
    about |= {frames.VARIES: True}
    return pd.DataFrame(
        [
            {**about, "key": f"{model}{seed}", "model": model, "seed": seed, "test/acc": value}
            | {"test/loss": 1 - value, "val/acc": value}
            for model, values in accuracies.items()
            for seed, value in enumerate(values)
        ]
    )


def claim(tmp_path, frame, *lines, counts=None):
    path = tmp_path / "one.yaml"
    path.write_text("claim:\n" + "".join(f"  - {line}\n" for line in lines))
    return claims.judged(Evidence({"one": frame}, counts), path)


BETTER = "{metric: test/acc, better: {model: a}, worse: {model: b}}"
WITHIN = "{metric: test/acc, as_good: {model: b}, as: {model: a}, within: %s}"


def test_a_claim_is_held_where_the_rows_show_it(tmp_path):
    frame = rows(a=(0.9, 0.91, 0.92), b=(0.5, 0.52, 0.51), c=(0.9, 0.905, 0.915))
    held = claim(tmp_path, frame, BETTER)
    assert held.verdict == "held"
    assert held.findings[0].difference.estimate == pytest.approx(0.4)
    near = BETTER.replace("model: b", "model: c")
    assert claim(tmp_path, frame, near).verdict == "not shown"
    assert claim(tmp_path, frame, BETTER, near).verdict == "not shown"
    reverse = BETTER.replace("model: a", "model: x").replace("b}", "a}").replace("x}", "b}")
    assert claim(tmp_path, frame, reverse).verdict == "not shown"
    assert claim(tmp_path, frame, BETTER.replace("acc", "loss")).verdict == "held"  # less of it
    missing = claim(tmp_path, frame, BETTER.replace("model: b", "model: nobody"))
    assert (missing.verdict, missing.findings[0].difference) == ("not shown", None)
    single = frame[frame["seed"] == 0]
    assert claim(tmp_path, single, BETTER).verdict == "not shown"


def test_nearly_as_good_leaves_room_for_so_much_and_no_more(tmp_path):
    frame = rows(a=(0.9, 0.91, 0.92), b=(0.5, 0.52, 0.51))
    low = claim(tmp_path, frame, WITHIN % 0.1).findings[0].difference.low
    assert claim(tmp_path, frame, WITHIN % (0.001 - low)).verdict == "held"
    assert claim(tmp_path, frame, WITHIN % (-0.001 - low)).verdict == "not shown"


def test_a_rule_that_says_something_else_is_refused(tmp_path):
    for line in ("{metric: test/acc, better: {}}", "{metric: a, better: {}, worse: {}, within: 1}"):
        with pytest.raises(UserError, match=r"one\.yaml: claim=.* is not a statement\. Give"):
            claim(tmp_path, rows(a=(1.0,)), line)
    frame = rows(a=(0.9,), b=(0.5,))
    frame.loc[frame["model"] == "b", "data/sha256"] = "cd" * 32
    with pytest.raises(UserError, match="one: test/acc of model=a better than model=b compares"):
        claim(tmp_path, frame, BETTER)


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """Two models of three seeds as a sweep leaves them, and the experiment that claims of them."""
    rng = np.random.default_rng(0)
    monkeypatch.setenv("CLIPBENCH_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setattr(paths, "EXPERIMENTS", tmp_path / "experiments")
    (tmp_path / "experiments" / "experiment").mkdir(parents=True)
    (tmp_path / "experiments" / "experiment" / "one.yaml").write_text(f"claim:\n  - {BETTER}\n")
    sweep = tmp_path / "outputs" / "sweeps" / "one"
    sweep.mkdir(parents=True)
    hard, lines, right = rng.random(N), [], {}
    for model, accuracy in (("a", 0.9), ("b", 0.8)):
        for seed in range(3):
            folder = tmp_path / "outputs" / "runs" / "d" / f"{model}{seed}"
            folder.mkdir(parents=True)
            right[model, seed] = hard + rng.normal(0, 0.1, N) < accuracy
            table = {"split": "test", "id": [f"{i:03}" for i in range(N)], "label": 1}
            shuffled = pd.DataFrame({**table, "prediction": right[model, seed].astype(int)})
            shuffled.sample(frac=1, random_state=seed).to_parquet(folder / "predictions.parquet")
            acc = float(right[model, seed].mean())
            split = {"n": N, "expected": N, "sha256": "ab" * 32}
            record = {
                **{"schema": record_module.SCHEMA, "key": f"{model}{seed}", "status": "completed"},
                **{"model": model, "dataset": "d", "strategy": "finetune", "lr": 1e-3},
                **{"batch_size": 8, "epochs": 1, "freeze_depth": 0, "seed": seed},
                **{"config": {"dataset": {}}, "data": {"test": split, "val": split}},
                **{"steps": {"total": 1}, "parameters": {"total": 1, "trainable": 1}},
                "curve": [{"epoch": 0, "val/acc": 0.1}],
                "selection": {"metric": "val/acc", "epoch": 0, "alpha": None},
                "final": {"val/acc": acc, "test/acc": acc},
                "cost": {"seconds": 1.0},
            }
            store.write(folder, record)
            words = [f"model={model}", f"seed={seed}"]
            job = {"overrides": words, "status": "completed", "folder": str(folder)}
            lines.append(json.dumps({"key": record["key"], **job}))
    (sweep / "jobs.jsonl").write_text("\n".join(lines) + "\n")
    return sweep, right


def test_frozen_rows_keep_what_each_claimed_pair_is_right_of(experiment):
    sweep, right = experiment
    kept = paths.EXPERIMENTS / "results"
    rows_of, counts_of = frozen_rows.freeze(kept)
    assert (rows_of, counts_of) == (kept / "one.csv", kept / "pairs" / "one.csv")
    counts = pd.read_csv(counts_of).set_index("first")
    for seed in range(3):
        a, b = right["a", seed], right["b", seed]
        row = counts.loc[f"a{seed}"]
        told = (row["split"], row["second"], row["n"], row["only_first"], row["only_second"])
        assert told == ("test", f"b{seed}", N, (a & ~b).sum(), (b & ~a).sum())
    path = paths.EXPERIMENTS / "experiment" / "one.yaml"
    frozen = Evidence(evidence.gather("frozen"), evidence.pairs())
    at_hand = Evidence({"one": frames.frame(sweep_log.sweep_runs(sweep)[0])})
    (of_rows,), (of_runs,) = (claims.judged(one, path).findings for one in (frozen, at_hand))
    assert of_rows.difference.test == of_runs.difference.test == "Welch's t over seeds and images"
    # Counts bound what the images add: the seeds' own mistakes are not averaged out of them.
    assert of_runs.difference.p <= of_rows.difference.p < 0.05
    assert of_rows.shown
    without = claims.judged(Evidence(evidence.gather("frozen")), path).findings[0].difference
    assert without.test == "Welch's t over seeds and images, unpaired"
    assert without.p > of_rows.difference.p
    for folder in (paths.outputs() / "runs").glob("*/*"):
        (folder / "predictions.parquet").unlink()
    assert frozen_rows.freeze(kept) == [rows_of]  # of what was not predicted nothing is counted
    assert not counts_of.exists()


def test_the_counts_of_one_seed_a_side_are_an_exact_test(experiment, tmp_path):
    _, right = experiment
    a, b = right["a", 0], right["b", 0]
    counts = {("test", "a0", "b0"): (N, int((a & ~b).sum()), int((b & ~a).sum()))}
    counts |= {(s, q, p): (n, y, x) for (s, p, q), (n, x, y) in [*counts.items()]}
    frame = rows(a=(a.mean(),), b=(b.mean(),)).assign(**{frames.VARIES: False})
    found = claim(tmp_path, frame, BETTER, counts=counts).findings[0]
    expected = stats.binomtest(int((b & ~a).sum()), int((a ^ b).sum())).pvalue
    assert found.difference.p == pytest.approx(expected)
    assert (found.difference.test, found.shown) == ("exact McNemar", True)


@pytest.fixture(scope="module")
def verdicts():
    """Of each experiment whose rows are kept here, what they say of its claim."""
    kept = Evidence(evidence.gather("frozen"), evidence.pairs())
    return {one.experiment: one.verdict for one in claims.every(kept)}


def test_every_experiment_says_what_its_rows_show(verdicts):
    kept = {path.stem for path in (paths.EXPERIMENTS / "results").glob("*.csv")}
    assert set(verdicts) == kept
    for name, verdict in verdicts.items():
        text = (paths.EXPERIMENTS / "experiment" / f"{name}.yaml").read_text()
        (line,) = re.findall(r"^# Claim: (.*)$", text, re.M)
        assert line.endswith(f": {verdict}"), f"{name} says {line!r}, its rows {verdict!r}"


def test_the_docs_say_what_the_rows_show(verdicts):
    text = (paths.ROOT / "docs" / "tables_and_experiments.md").read_text()
    found = re.findall(r"^\|[^|]*\| \*\*(held|not shown)\*\*[^|]*\| `(\w+)` \|$", text, re.M)
    table = text[text.index("| claim | result |") :].split("\n\n")[0]
    assert len(found) == len(table.splitlines()) - 2  # each row of it, and no other
    for said, name in found:
        assert said == verdicts[name], f"docs say {said!r} of {name}, its rows {verdicts[name]!r}"


def test_no_number_is_bold_that_no_table_has_bold():
    """Bold cells of the texts are bold in experiments/table/, by its tests; today there is none."""
    kept = Evidence(evidence.gather("frozen"), evidence.pairs())
    bold = set()
    for path in sorted((paths.EXPERIMENTS / "table").glob("*.yaml")):
        made = documents.document(layouts.fill(path.stem, layouts.read(path), kept))
        bold |= {cell.split()[0] for row in made.rows for cell in row if isinstance(cell, Bold)}
    assert bold  # or this would hold of anything
    pages = [paths.ROOT / "README.md", *sorted((paths.ROOT / "docs").glob("*.md"))]
    for file in (*pages, paths.EXPERIMENTS / "README.md"):
        for line in file.read_text().splitlines():
            if line.startswith("|"):
                for number in re.findall(r"\*\*([\d.]+)[^*]*\*\*", line):
                    assert number in bold, f"{file.name}: {number} is bold in no table: {line}"
