"""Tables from records alone: what is shown, and what is never set side by side."""

import json
from pathlib import Path

import pandas as pd
import pytest
from matplotlib import cbook
from statsmodels.stats.proportion import proportion_confint

from clipbench import tables
from clipbench.core import paths
from clipbench.core.errors import UserError
from clipbench.reporting.tables import axis_figures, figures, frozen_rows, sweep_tables, typeset
from clipbench.results import evidence, frames, store, sweep_log
from clipbench.results import record as record_module


def record(key, model="clip_tiny", lr=1e-5, acc=0.5, n=306, sha="ab" * 32):
    """A record as a run leaves it, of which the tables read these parts."""
    return {
        "schema": record_module.SCHEMA,
        **{"key": key, "status": "completed", "error": None, "model": model, "lr": lr},
        **{"dataset": "flowers102", "strategy": "finetune", "batch_size": 64, "epochs": 2},
        **{"freeze_depth": "all", "seed": 0, "config": {"dataset": {"shots": None}}},
        "data": {"test": {"n": n, "expected": 6149, "sha256": sha, "rule": None}},
        "steps": {"total": 32, "warmup": 3, "peak_lr": lr},
        "parameters": {"total": 10, "trainable": 5, "groups": {}},
        "curve": [{"epoch": 0, "val/acc": None}, {"epoch": 1, "val/acc": acc}],
        "final": {"val/acc": acc, "test/acc": acc / 3, "test/loss": 1.0, "test/acc@alpha=0.5": 0.4},
        "selection": {"metric": "val/acc", "epoch": 1},
        "cost": {"seconds": 61.23, "images_per_second": 100.4, "peak_memory_bytes": 1.5e9}
        | {"device": "cpu"},
    }


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPBENCH_OUTPUTS", str(tmp_path))
    folder = tmp_path / "sweeps" / "one"
    folder.mkdir(parents=True)

    def make(*records, failed=()):
        lines = []
        for i, entry in enumerate(records):
            run = tmp_path / "runs" / "flowers102" / f"run-{entry['key']}"
            run.mkdir(parents=True, exist_ok=True)
            store.write(run, entry)
            lines.append({"overrides": [f"lr={i}"], "status": "completed", "folder": str(run)})
        lines += [{"overrides": [w], "status": "failed", "error": "e"} for w in failed]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "jobs.jsonl").write_text(text)
        return folder

    return make


def test_what_a_row_says(sweep):
    folder = sweep(record("aaaaaaaa"), record("bbbbbbbb", lr=1e-4, acc=0.123456))
    stem = Path(str(sweep_tables.sweep(folder)[0])).with_suffix("")
    text = stem.with_suffix(".md").read_text()
    header, _, first, second = text.strip().splitlines()
    names = [name.strip() for name in header.strip("|").split("|")]
    assert names == [
        *("model", "dataset", "lr", "epoch 0", "chosen", "val/acc", "test/acc"),
        *("test/acc@alpha=0.5", "data", "key"),
    ]
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in (first, second)]
    assert cells[0][2:7] == ["1e-05", "", "1", "0.5000", "0.1667"]
    assert cells[1][5] == "0.1235"
    assert cells[0][8] == "abababab n=306 of 6149"
    assert pd.read_csv(stem.with_suffix(".csv"))["val/acc"].tolist() == [0.5, 0.123456]
    cost = stem.with_name("sweep_one_cost").with_suffix(".md").read_text()
    assert "61.2" in cost
    assert "seconds" not in text  # two machines share the results, not the cost


def test_results_do_not_depend_on_the_order_in_which_jobs_ran(sweep):
    one, two = record("aaaaaaaa"), record("bbbbbbbb", lr=1e-4)
    texts = [
        Path(str(sweep_tables.sweep(sweep(*order))[0])).read_text()
        for order in ((one, two), (two, one))
    ]
    assert texts[0] == texts[1]


def test_a_job_listed_twice_is_one_row_and_failed_ones_are_said(sweep, capsys):
    one = record("aaaaaaaa")
    folder = sweep(one, one, failed=["lr=9"])
    frame = pd.read_csv(Path(str(sweep_tables.sweep(folder)[0])).with_suffix(".csv"))
    assert len(frame) == 1
    assert "lr=9" in capsys.readouterr().out


def test_a_job_that_was_completed_when_retried_has_not_failed(sweep):
    folder = sweep(record("aaaaaaaa"), failed=["lr=3"])
    lines = [json.loads(line) for line in (folder / "jobs.jsonl").read_text().splitlines()]
    before = {**lines[0], "overrides": ["lr=0"], "status": "failed", "error": "e"}
    lines[0]["overrides"] = ["lr=0", "retry=failed"]
    text = "".join(json.dumps(line) + "\n" for line in (before, *lines))
    (folder / "jobs.jsonl").write_text(text)
    runs, failed = sweep_log.sweep_runs(folder)
    assert [found.key for _, found in runs] == ["aaaaaaaa"]
    assert [job["overrides"] for job in failed] == [["lr=3"]]


def test_a_sweep_in_which_nothing_completed_has_no_table(sweep):
    assert sweep_tables.sweep(sweep(failed=["lr=9"])) == []


def test_what_only_this_sweep_typed_has_a_column(sweep):
    folder = sweep(record("aaaaaaaa"), record("bbbbbbbb", acc=0.7))
    lines = [json.loads(line) for line in (folder / "jobs.jsonl").read_text().splitlines()]
    for line, mode in zip(lines, ("crop", "pad"), strict=True):
        line["overrides"] = [f"dataset.resize_mode={mode}", "prompts=simple", "seed=0"]
    (folder / "jobs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    table = pd.read_csv(Path(sweep_tables.sweep(folder)[0]).with_suffix(".csv"))
    assert table["dataset.resize_mode"].tolist() == ["crop", "pad"]
    assert "prompts" not in table
    assert table["val/acc"].tolist() == [0.5, 0.7]


def means(folder):
    return pd.read_csv(sweep_tables.sweep(folder)[0].with_name("sweep_one_means.csv"))


def test_runs_that_differ_by_their_seed_alone_are_one_mean_with_its_interval(sweep):
    entries = [record(f"a{s}", acc=a) | {"seed": s} for s, a in enumerate((0.5, 0.6, 0.76))]
    other = record("bb", lr=1e-4, acc=0.9)
    table = means(sweep(*entries, other))
    assert table["seeds"].tolist() == [3, 1]
    half = 4.302653 * 0.13114877 / 3**0.5  # Student's t of two degrees, the sample's deviation
    assert table["val/acc"].tolist() == [f"0.6200 ± {half:.4f}", "0.9000"]
    assert table["data"].tolist() == ["abababab n=306 of 6149"] * 2


def test_seeds_are_averaged_only_where_all_else_is_equal(sweep):
    """What no column shows, such as the images of two folders, is in the hash of the setting."""
    entries = [
        record(f"a{s}", acc=a) | {"seed": s, "setting": setting}
        for s, (a, setting) in enumerate([(0.5, "one"), (0.7, "one"), (0.9, "other")])
    ]
    table = means(sweep(*entries))
    assert table["seeds"].tolist() == [2, 1]
    assert [text.split()[0] for text in table["val/acc"]] == ["0.6000", "0.9000"]


def test_seeds_that_agree_have_the_interval_of_the_images(sweep):
    entries = [record(f"a{s}") | {"seed": s} for s in range(3)]
    table = means(sweep(*entries))
    acc = entries[0]["final"]["test/acc"]
    low, high = proportion_confint(round(acc * 306), 306, method="wilson")
    assert table["test/acc"].tolist() == [f"{acc:.4f} [{low:.4f}, {high:.4f}]"]


def test_no_mean_is_taken_over_two_test_splits(sweep):
    entries = [record(f"a{s}", sha=sha * 32) | {"seed": s} for s, sha in enumerate(("ab", "cd"))]
    assert means(sweep(*entries))["seeds"].tolist() == [1, 1]


def test_of_the_costs_the_least_is_kept_and_of_memory_the_most(sweep):
    entries = [record(f"a{s}") | {"seed": s} for s in range(2)]
    entries[1]["cost"] = entries[1]["cost"] | {"seconds": 40.0, "peak_memory_bytes": 2e9}
    stem = sweep_tables.sweep(sweep(*entries))[0]
    least = pd.read_csv(stem.with_name("sweep_one_cost_least.csv"))
    assert (least["seconds"][0], least["peak memory MB"][0], least["trainable"][0]) == (40, 2000, 5)


def test_depths_stand_in_their_order_and_all_comes_last(sweep):
    depths = ["all", 10, 2, 0]
    entries = [record(f"a{i}") | {"freeze_depth": d} for i, d in enumerate(depths)]
    written = sweep_tables.sweep(sweep(*entries))
    assert pd.read_csv(written[0].with_suffix(".csv"))["freeze_depth"].tolist() == [
        *("0", "2", "10", "all")
    ]
    assert "sweep_one_by_freeze_depth.png" in {path.name for path in written}
    axis = axis_figures.Axis.of(pd.Series(depths, name="freeze_depth"))
    assert axis.ticks == {"0": 0, "2": 2, "10": 10, "all": 18}
    assert not axis.words
    assert axis_figures.Axis.of(pd.Series(["ema", "plain"], name="rung")).words
    assert axis_figures.Axis.of(pd.Series([1e-4, 3e-3], name="lr")).doubles


def test_a_cost_that_was_not_measured_has_no_panel(sweep, monkeypatch):
    """A sweep of probes, none of which has a pace."""
    entries = [record(f"a{d}") | {"freeze_depth": d} for d in range(3)]
    for entry in entries:
        entry["cost"] = entry["cost"] | {"images_per_second": None}
    drawn = []
    monkeypatch.setattr(axis_figures.figures, "save", lambda figure, path: drawn.append(figure))
    sweep_tables.sweep(sweep(*entries))
    (panels,) = [f.axes for f in drawn if len(f.axes) > 2]
    named = [panel.get_title() for panel in panels[1:]]
    assert named == ["whole run, s", "peak memory, GB", "trained parameters, M"]
    assert [bool(panel.lines) for panel in panels[1:]] == [True] * 3


def test_what_is_frozen_gives_the_same_tables_and_names_no_place(sweep, tmp_path):
    entries = [
        record(key, acc=1 / 3, lr=lr) | {"freeze_depth": depth, "seed": seed}
        for key, lr, depth, seed in (
            *(("12345678", 1e-5, 0, 0), ("1e100000", 1e-5, 0, 1)),
            *(("cccccccc", 3e-4, "all", 0), ("dddddddd", 3e-4, "all", 1)),
        )
    ]
    folder = sweep(*entries)
    lines = [json.loads(line) for line in (folder / "jobs.jsonl").read_text().splitlines()]
    for line, mode in zip(lines, ("null", "pad", "null", "pad"), strict=True):
        line["overrides"] = [f"dataset.resize_mode={mode}", "dataset.root=/home/me", "ema=0.10"]
        line["overrides"].append(f"note={line['folder']}")
    (folder / "jobs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    runs, _ = sweep_log.sweep_runs(folder)
    path = tmp_path / "one.csv"
    path.write_text(frozen_rows.frozen(frames.frame(runs)).to_csv(index=False))
    assert str(tmp_path) not in path.read_text()
    assert "/home/me" not in path.read_text()
    typed = ("dataset.resize_mode", "ema")
    assert frames.read(path)[[*typed]].values.tolist()[0] == ["null", "0.10"]
    kept = frames.read(path)
    frame = frames.frame(runs).drop(columns=["dataset.root", "note"])
    for table in (sweep_tables.result_table, sweep_tables.cost_table):
        assert sweep_tables.as_text(table(kept)).equals(sweep_tables.as_text(table(frame)))


def test_every_experiment_that_was_run_is_frozen(sweep, tmp_path, monkeypatch):
    folder = sweep(record("bbbbbbbb"), record("aaaaaaaa", lr=1e-4))
    folder.rename(folder.with_name("demo"))
    (path,) = frozen_rows.freeze(tmp_path / "results")
    assert path.name == "demo.csv"
    assert frames.read(path)["key"].tolist() == ["aaaaaaaa", "bbbbbbbb"]
    before = path.read_bytes()
    assert frozen_rows.freeze(tmp_path / "results") == [path]
    assert path.read_bytes() == before


def test_alphas_are_drawn_as_a_mean_over_seeds(sweep):
    entries = [record(f"a{s}") | {"seed": s} for s in range(2)]
    for entry in entries:
        entry["final"].pop("test/acc@alpha=0.5")
        entry["final"] |= {f"{split}/acc@alpha=1": 0.6 for split in ("val", "test", "test_ood")}
        entry["final"] |= {f"{split}/acc@alpha=0": 0.5 for split in ("val", "test", "test_ood")}
        entry["selection"] = entry["selection"] | {"alpha": 1.0}
    written = sweep_tables.sweep(sweep(*entries))
    assert "sweep_one_by_alpha.png" in {path.name for path in written}


def test_a_learning_rate_that_follows_from_the_model_sets_nothing_apart():
    rows = [
        *({"model": "clip_tiny", "lr": 3e-4, "freeze_depth": d, "seed": 0} for d in (0, 1)),
        *({"model": "resnet_tiny", "lr": 1e-3, "freeze_depth": d, "seed": 1} for d in (0, 1)),
    ]
    frame = pd.DataFrame([{**dict.fromkeys(frames.AXES), **row} for row in rows])
    assert frames.seedless(frame) == ["model", "freeze_depth"]
    assert frames.seedless(frame[:2].assign(lr=[1e-4, 1e-3], freeze_depth=0)) == ["lr"]
    grid = frame.assign(lr=[1e-4, 1e-3, 1e-4, 1e-3], freeze_depth=0)
    assert frames.seedless(grid) == ["model", "lr"]


def test_the_door_makes_tables_of_what_is_frozen(sweep, tmp_path, monkeypatch):
    runs, _ = sweep_log.sweep_runs(sweep(record("aaaaaaaa"), record("bbbbbbbb", lr=1e-4)))
    monkeypatch.setattr(paths, "EXPERIMENTS", tmp_path)
    (tmp_path / "results").mkdir()
    text = frozen_rows.frozen(frames.frame(runs)).to_csv(index=False)
    (tmp_path / "results" / "some.csv").write_text(text)
    assert tables.make(["results=frozen"]) == 0
    written = pd.read_csv(tmp_path / "tables" / "sweep_some.csv")
    assert written["key"].tolist() == ["aaaaaaaa", "bbbbbbbb"]
    for wrong in (["results=forzen"], ["table=nobodys"]):
        with pytest.raises(UserError, match=r"frozen|there are"):
            tables.make(wrong)


def test_frozen_rows_have_their_curves_and_every_splits_fingerprint(sweep, tmp_path):
    entries = [record("aaaaaaaa"), record("bbbbbbbb", lr=1e-4, acc=0.7)]
    for entry in entries:
        entry["curve"][0]["val/acc"] = 0.25
        entry["data"] |= {"train": {"n": 9, "expected": 9, "sha256": "ee" * 32}}
        entry["data"] |= {"val": {"n": 20, "expected": 20, "sha256": "cd" * 32, "rule": None}}
    runs, _ = sweep_log.sweep_runs(sweep(*entries))
    path = tmp_path / "one.csv"
    path.write_text(frozen_rows.frozen(frames.frame(runs)).to_csv(index=False))
    kept = frames.read(path)
    assert frames.curves(kept).to_numpy().tolist() == [[0.25, 0.5], [0.25, 0.7]]
    assert kept["data/val/sha256"].tolist() == ["cd" * 32] * 2
    assert kept["data/val/n"].tolist() == [20, 20]
    assert not any(name.startswith("data/train") for name in kept)
    assert figures.curves(kept, tmp_path / "curve.png")
    assert not figures.curves(kept.drop(columns=["curve/0", "curve/1"]), tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_of_many_lines_the_best_are_drawn_and_the_others_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "MOST", 2)
    told = []
    monkeypatch.setattr(figures, "save", lambda figure, path: told.append(figure.axes[0]))
    rows = [
        {**dict.fromkeys(frames.AXES), "model": "m", "lr": 10.0**-i, "curve/1": i / 10}
        for i in range(1, 5)
    ]
    frame = pd.DataFrame(rows).assign(**{"selection/metric": "val/acc"})
    assert figures.curves(frame, tmp_path / "c.png")
    legend = told[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["m lr=0.0001", "m lr=0.001"]
    assert legend.get_title().get_text() == "the best 2; 2 are left out"


def test_what_was_typed_is_drawn_and_is_no_maths(tmp_path, monkeypatch):
    drawn = []

    def save(figure, path):
        figure.canvas.draw()
        drawn.append(figure.axes[0])

    monkeypatch.setattr(figures, "save", save)
    roots = [r"$5 \to $9", r"a\$b", "$_{x}$"]
    frame = pd.DataFrame(
        [{**dict.fromkeys(frames.AXES), "model": "m", "dataset.root": root} for root in roots]
    ).assign(**{"selection/metric": "val/acc", "test/acc": 0.5, "epoch0": 0.1, "curve/1": 0.5})
    frame = frame.assign(**{column: 1.0 for column, _ in axis_figures.COSTS.values()})
    assert figures.curves(frame, tmp_path / "c.png")
    assert axis_figures.by_axis(frame, tmp_path / "c")
    legend = [text.get_text() for text in drawn[0].get_legend().get_texts()]
    ticks = [text.get_text() for text in drawn[1].get_xticklabels()]
    for texts, before in ((legend, "m dataset.root="), (ticks, "")):
        shown = {cbook.is_math_text(text) or text.replace(r"\$", "$") for text in texts}
        assert shown == {before + root for root in roots}


def test_an_own_sweep_stands_before_a_frozen_one_of_its_name(sweep, tmp_path, monkeypatch):
    folder = sweep(record("aaaaaaaa"))
    monkeypatch.setattr(paths, "EXPERIMENTS", tmp_path)
    (tmp_path / "results").mkdir()
    runs, _ = sweep_log.sweep_runs(folder)
    for name, key in (("one", "cccccccc"), ("other", "dddddddd")):
        text = frozen_rows.frozen(frames.frame(runs).assign(key=key)).to_csv(index=False)
        (tmp_path / "results" / f"{name}.csv").write_text(text)
    lone = tmp_path / "runs" / "flowers102" / "run-bbbbbbbb"
    lone.mkdir(parents=True)
    store.write(lone, record("bbbbbbbb"))

    def keys(source):
        return {name: part["key"].tolist() for name, part in evidence.gather(source).items()}

    assert keys(None) == {"one": ["aaaaaaaa"], "other": ["dddddddd"], "": ["bbbbbbbb"]}
    assert keys("outputs") == {"one": ["aaaaaaaa"], "": ["bbbbbbbb"]}
    assert keys("frozen") == {"one": ["cccccccc"], "other": ["dddddddd"]}


def test_a_name_that_a_spreadsheet_would_run_is_frozen_safe_and_read_as_it_was(tmp_path):
    rows = [{**dict.fromkeys(frames.AXES), "key": "a", "model": "=cmd()", "note": "-1+2"}]
    path = tmp_path / "one.csv"
    path.write_text(typeset.csv(pd.DataFrame(rows)))
    assert "'=cmd()" in path.read_text()
    kept = frames.read(path)
    assert (kept["model"][0], kept["note"][0]) == ("=cmd()", "-1+2")
