"""The documents' tables: to the letter, only of one split, bold where it is sure, safe to open."""

import csv
import io
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from markdown_it import MarkdownIt
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from clipbench import tables
from clipbench.core import paths
from clipbench.core.errors import UserError
from clipbench.metrics.intervals import Interval, over_seeds
from clipbench.reporting.tables import all_tables, documents, layouts, significance, typeset
from clipbench.reporting.tables import published as references
from clipbench.reporting.tables.cells import Cell, Measured, Split, measure
from clipbench.reporting.tables.published import Published
from clipbench.results import evidence, store
from clipbench.results import record as record_module
from clipbench.results.evidence import Evidence

HERE = Path(__file__).parent / "tables"
NASTY = ["a|b", "$x_1$", "<script>alert(1)</script>", "=cmd()", "50 %", "&amp;", "#1", "_x_"]
NASTY += ["*a*", "`a`", r"\n", "[a](b)", "~~a~~", "{}^", "-1+2", "@a", "clip_tiny", '"q"']
NASTY += ["![a](b)", "[a]", "a__b", "_", "<", "a\\b"]


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The fixture's experiments in the place of the project's."""
    monkeypatch.setattr(paths, "EXPERIMENTS", HERE / "experiments")
    monkeypatch.setenv("CLIPBENCH_OUTPUTS", str(tmp_path))
    return tmp_path / "tables"


def test_the_table_of_frozen_rows_is_this_to_the_letter(small):
    assert tables.make(["table=golden", "results=frozen"]) == 0
    for ending in ("md", "tex", "csv"):
        name = f"golden.{ending}"
        assert (small / name).read_text() == (HERE / name).read_text(), name


def test_its_numbers_are_the_libraries(small):
    runs = Evidence(evidence.gather("frozen"))
    where = {"experiment": "one", "model": "clip_vitb32", "lr": 3e-5}
    found = measure(runs, where, "test/acc")
    mean, error = 0.911, stats.sem([0.91, 0.912, 0.911])
    low, high = stats.t.interval(0.95, 2, mean, error)
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high))
    single = measure(runs, {"model": "resnet50"}, "test/acc")
    theirs = proportion_confint(round(0.88 * 6149), 6149, method="wilson")
    assert (single.interval.low, single.interval.high) == pytest.approx(theirs)
    published = Published("90.0", "", "", True)
    difference = Cell(found, published, "test", stand_in=False).difference()
    ends = (difference.estimate, difference.low, difference.high)
    assert ends == pytest.approx((1.1, 100 * low - 90, 100 * high - 90))


def test_where_settings_differ_the_best_on_val_is_taken_and_test_is_not_looked_at(small):
    runs = Evidence(evidence.gather("frozen"))
    found = measure(runs, {"experiment": "one", "model": "clip_vitb32"}, "test/acc")
    assert found.interval.estimate == pytest.approx(0.911)  # not 0.951, whose val is lower
    assert found.tried == 2
    assert len(runs.select({"lr": "0.00003"})) == 7
    assert len(runs.select({"model": ["resnet50", "clip_tiny"]})) == 4
    frame = evidence.gather("frozen")["one"].assign(seed=0)
    with pytest.raises(UserError, match="a0000000, a0000001, a0000002 share a seed"):
        measure(Evidence({"one": frame}), {"model": "clip_vitb32", "lr": 3e-5}, "test/acc")


def split(**changed):
    own = {"name": "test", "dataset": "flowers102", "n": 6149, "expected": 6149}
    return Split(**{**own, "sha256": "ab" * 32, "scheme": None, **changed})


@pytest.mark.parametrize(
    ("own", "published", "why"),
    [
        (split(), "test", None),
        (split(), None, "the published split is not known"),
        (split(), "val", "published is val, measured is test"),
        (split(n=306), "test", "measured on 306 of 6,149 images"),
        (split(n=9, expected=9), "test", "measured on 9 images, the published split has 6,149"),
        (split(dataset="elpv"), "test", "the published split is not known"),
    ],
)
def test_no_difference_is_taken_across_splits(small, own, published, why):
    found = own.unlike(published)
    assert found is None if why is None else why in found.replace("split is not", "split is not")
    measured = Measured(over_seeds([0.9, 0.91]), {0: 0.9, 1: 0.91}, own, (), 1, share=True)
    cell = Cell(measured, Published("90.0", "", "", True), published, stand_in=False)
    assert (cell.difference() is None) == (why is not None)
    stand_in = Cell(measured, cell.published, "test", stand_in=True)
    assert stand_in.difference() is None


def test_a_table_over_two_fingerprints_refuses_and_the_others_are_made(small, capsys, monkeypatch):
    frame = evidence.gather("frozen")["one"]
    frame.loc[frame["model"] == "resnet50", "data/sha256"] = "ef" * 32
    monkeypatch.setattr(evidence, "gather", lambda source: {"one": frame})
    specs = {name: HERE / "experiments/table/golden.yaml" for name in ("first", "second")}
    assert all_tables.of_documents(specs, "frozen") == 1
    said = capsys.readouterr().out.replace("\n", " ")
    assert "table first, column after: rows were measured on different images" in said
    assert "abababab n=6149" in said
    assert "efefefef n=6149" in said
    assert not [*small.glob("first.*")]
    seeds = frame.assign(**{"data/sha256": [f"{i:064}" for i in range(len(frame))]})
    with pytest.raises(UserError, match="differ by more than their seed"):
        measure(Evidence({"one": seeds}), {"model": "clip_vitb32", "lr": 3e-5}, "test/acc")


def column(*rows, metric="test/acc", varies=True, **more):
    found = [
        Measured(
            over_seeds(row),
            dict(enumerate(row)),
            split(),
            (),
            1,
            share=True,
            column=metric,
            metric=metric,
            varies=varies,
            **more,
        )
        for row in rows
    ]
    return significance.best(found)


def test_bold_is_what_is_significant_and_not_what_is_larger():
    best, near, far = [0.90, 0.91, 0.92, 0.905], [0.899, 0.911, 0.915, 0.90], [0.5, 0.52, 0.51, 0.5]
    assert not column(best, near, far).claimed
    assert not column(best, near, far).of_these_runs
    for metric, test in (
        ("test/acc", "Welch's t over seeds and images, unpaired"),
        ("test/macro_f1", "Welch's t over seeds"),
    ):
        found = column(best, far, metric=metric)
        assert (found.place, found.tests, found.claimed) == (0, [test], True)
    found = column(best, far, metric="test/loss")
    assert (found.place, found.tests, found.claimed) == (1, ["Welch's t over seeds"], True)
    one, other = column([0.9], [0.5]), column([0.9], [0.5], varies=False)
    assert (one.claimed, one.of_these_runs) == (False, True)
    assert (other.claimed, other.of_these_runs) == (True, False)
    assert other.tests == ["t over images, unpaired"]
    assert column([0.9], [0.5], metric="test/macro_f1").tests == ["none"]  # nothing is known
    assert not column([0.9], [0.5], metric="test/macro_f1").of_these_runs


def test_the_test_over_seeds_is_welchs():
    best, far = [0.90, 0.91, 0.92], [0.88, 0.86, 0.89, 0.885]
    rows = [
        Measured(
            over_seeds(row), dict(enumerate(row)), None, (), 1, share=True, column="test/macro_f1"
        )
        for row in (far, best)
    ]
    found = significance.compare(*rows)
    welch = stats.ttest_ind(best, far, equal_var=False)
    assert found.p == pytest.approx(welch.pvalue)
    assert (found.low, found.high) == pytest.approx([*welch.confidence_interval()])
    assert found.test == "Welch's t over seeds"


def predicted(folder, right, alpha=None, merged=None):
    """A run's record, and predictions of 100 images of which the first so many are right."""
    folder.mkdir()
    rows = {"split": "test", "id": [f"{i:03}" for i in range(100)], "label": 0, "probability": 1.0}
    for name, count in (("predictions", right), ("merged_predictions", merged)):
        if count is not None:
            table = pd.DataFrame({**rows, "prediction": [int(i >= count) for i in range(100)]})
            table.to_parquet(folder / f"{name}.parquet")
    record = {"data": {"test": {"sha256": "ab" * 32}}, "selection": {"alpha": alpha}}
    store.write(folder, {"schema": record_module.SCHEMA, **record, "varies": False})
    return folder


def row_of(folder, value, metric):
    interval = Interval(value, float("nan"), float("nan"), "seeds", 1)
    about = {"share": True, "varies": False, "column": metric, "metric": metric}
    return Measured(interval, {0: value}, split(), (folder,), 1, **about)


def test_saved_predictions_are_compared_where_all_have_them(tmp_path):
    rows = [
        row_of(predicted(tmp_path / name, right), right / 100, "test/acc")
        for name, right in (("one", 90), ("other", 60))
    ]
    found = significance.best(rows)
    assert (found.place, found.tests, found.claimed) == (0, ["exact McNemar"], True)


def test_a_row_at_an_alpha_is_tested_on_that_alphas_predictions(tmp_path):
    """The chosen epoch of both is right of the same images: only the merged weights differ."""
    one = predicted(tmp_path / "one", 60, alpha=0.5, merged=90)
    other = predicted(tmp_path / "other", 60)
    at = row_of(one, 0.9, "test/acc@alpha=0.5")
    found = significance.compare(row_of(other, 0.6, "test/acc"), at)
    assert (found.test, found.estimate) == ("exact McNemar", pytest.approx(0.3))
    assert found.p == pytest.approx(2 / 2**30)
    assert significance.compare(row_of(other, 0.6, "test/acc"), row_of(one, 0.6, "test/acc")).p == 1
    # Of an alpha that was not chosen nothing is kept: its number alone is compared.
    elsewhere = row_of(one, 0.9, "test/acc@alpha=0.3")
    found = significance.compare(row_of(other, 0.6, "test/acc"), elsewhere)
    assert found.test == "t over images, unpaired"


def test_what_is_kept_of_frozen_pairs_is_mcnemars(tmp_path):
    counts = {("test", "a", "b"): (500, 40, 12)}
    rows = [
        replace(row_of(tmp_path, value, "test/acc"), folders=(), keys=(key,), counts=counts)
        for key, value in (("a", 0.9), ("b", 0.844))
    ]
    found = significance.compare(*rows)
    assert found.p == pytest.approx(stats.binomtest(12, 52).pvalue)
    assert found.test == "exact McNemar"


def test_every_name_is_read_as_it_is_written():
    """Markdown by another parser, CSV by the csv module; a spreadsheet sees no formula."""
    header, rows = ["name", *NASTY], [[name, *NASTY] for name in NASTY]
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    tokens = parser.parse(typeset.as_markdown(header, rows))
    cells = [token for token in tokens if token.type == "inline"]
    assert [cell.content and cell.children[0].content for cell in cells] == [
        text for row in [header, *rows] for text in row
    ]
    assert all(child.type == "text" for cell in cells for child in cell.children)
    text = typeset.csv(pd.DataFrame(rows, columns=header))
    for row in csv.reader(io.StringIO(text)):
        assert not [cell for cell in row if cell[:1] in "=+-@" and cell]
    bold = typeset.as_markdown(["a"], [[typeset.Bold("1|2")]])
    assert r"**1\|2**" in bold
    assert r"\textbf{1\textbar{}2}" in typeset.as_latex(["a"], [[typeset.Bold("1|2")]])


def test_latex_leaves_no_sign_that_means_something():
    plain = re.compile(r"\\(text[a-z]+\{\}|[&%$#_{}]|textbar\{\})|[^\\&%$#_{}~^<>|]")
    for name in NASTY:
        assert plain.sub("", typeset.latex(name)) == "", name
    assert typeset.latex("\u4e2d") == r"\texttt{U+4E2D}"
    assert "{}[a]" in typeset.as_latex(["x"], [["[a]"]])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """All tables of what is frozen, the sweeps' too, by processes that cannot import torch."""
    outputs = tmp_path_factory.mktemp("outputs")
    code = (
        "import sys\n"
        "class No:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name.split('.')[0] in ('torch', 'torchvision', 'pytorch_lightning', 'timm'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, No())\n"
        "from clipbench import tables\n"
        "sys.exit(tables.make(['results=frozen']))"
    )
    env = {**os.environ, "CLIPBENCH_OUTPUTS": str(outputs)}
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, check=False, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return outputs / "tables"


def test_every_table_of_the_documents_is_made_without_torch(made):
    names = {path.stem for path in (paths.EXPERIMENTS / "table").glob("*.yaml")}
    written = {path.stem for path in made.glob("*.md")}
    sweeps = {f"sweep_{path.stem}" for path in (paths.EXPERIMENTS / "results").glob("*.csv")}
    assert names | sweeps <= written
    assert all(name.startswith("sweep_") for name in written - names - {all_tables.CLAIMS})
    assert {path.stem for path in made.glob("sweep_*.png")} >= sweeps
    assert {name.split("_")[0] for name in names} == {"blog", "jina", "ft", "openclip", "reference"}
    for path in made.glob("*.md"):
        figure = re.search(r"\((\w+\.png)\)", path.read_text())
        assert figure is None or (made / figure[1]).is_file()


def test_no_stand_in_and_no_part_of_a_split_is_set_against_a_published_number(made):
    compared = 0
    for path in made.glob("*.csv"):
        frame = pd.read_csv(path, dtype=str)
        if {"row", "difference"} <= {*frame}:  # the table of claims has no published numbers
            rows = frame[frame["difference"].notna()]
            compared += len(rows)
            assert not rows["row"].str.contains("stand-in").any(), path
            assert (rows["n"] == rows["expected"]).all(), path
    assert compared == 0  # nobody has run a published row here yet


def test_jinas_gains_follow_from_one_split_or_there_are_none(made):
    gains = pd.read_csv(made / "jina_gain.csv").query("column == 'gain'")["published"].astype(float)
    before = pd.read_csv(made / "jina_gain.csv").query("column == 'zero-shot'")["published"]
    found = stats.spearmanr(before.astype(float), gains)
    assert (
        f"published: {found.statistic:+.2f} (p = {found.pvalue:.2g}, n = 9)"
        in (made / "jina_gain.md").read_text()
    )
    eight = pd.read_csv(made / "jina_flickr8k.csv")
    across = eight[eight["column"] == "Jina's gain"]
    assert across["published"].isna().all()
    like = eight[eight["column"] == "gain"]["published"].astype(float)
    assert like.tolist() == [7.4, 2.2, 0.5]
    thirty = pd.read_csv(made / "jina_flickr30k.csv")
    assert thirty[thirty["column"] == "Jina's gain"]["published"].tolist() == [8.2, 2.0, 3.1]


def test_the_epoch_at_which_one_curve_reaches_the_best_of_another():
    rows = {"status": "completed", "strategy": "finetune", "seed": 0, "lr": 1, "batch_size": 1}
    rows |= {"dataset": "d", "epochs": 3, "freeze_depth": 0, "shots": None, "experiment": ""}
    runs = pd.DataFrame(
        [
            {**rows, "key": "a", "model": "clip", "curve/0": 0.3, "curve/1": 0.6, "curve/2": 0.9},
            {**rows, "key": "b", "model": "resnet", "curve/1": 0.4, "curve/2": 0.6, "curve/3": 0.5},
        ]
    )
    spec = {"title": "", "columns": [{"name": "c", "reaches": True}], "rows": []}
    for one, other in (("clip", "resnet"), ("resnet", "clip")):
        spec["rows"].append({"name": one, "where": {"model": one}, "rival": {"model": other}})
    found = layouts.fill("lead", spec, Evidence({"one": runs}))
    assert found.column(0) == [
        "1 of 2; the other's best at 2 of 3",
        "not in 3; the other's best at 2 of 2",
    ]


def test_a_yaml_that_says_what_no_table_has_is_refused(tmp_path):
    (tmp_path / "t.yaml").write_text("title: a\ncolums: []\nrows: []\ncolumns: []\n")
    with pytest.raises(UserError, match=r"t.yaml: no key colums. Choose from"):
        layouts.read(tmp_path / "t.yaml")
    with pytest.raises(UserError, match="2 published rows that differ"):
        references.find({"file": "at_blog", "split": "validation"})
    with pytest.raises(UserError, match="no published row"):
        references.find({"file": "at_blog", "dataset": "nobody's"})
    with pytest.raises(UserError, match="published rows have no colour"):
        references.find({"file": "at_blog", "colour": "red"})


def published():
    files = sorted((paths.EXPERIMENTS / "published").glob("*.csv"))
    return pd.concat([pd.read_csv(f, dtype=str, keep_default_na=False) for f in files])


def test_every_published_number_says_where_it_was_read():
    rows = published()
    assert len(rows) == 1187
    for name in ("source", "model", "dataset", "split", "metric", "protocol", "value", "citation"):
        assert (rows[name].str.strip() != "").all(), name
    assert set(rows["verified"]) == {"yes", "secondhand"}
    for value in rows["value"]:
        assert re.fullmatch(r"[~<+-]?\d+(\.\d+)?( \(\d+(\.\d+)?\))?", value), value


def test_published_numbers_are_the_references_in_every_field():
    home = Path(os.environ.get("CLIPBENCH_DATA", "nowhere")).parent / "reference" / "published.csv"
    if not home.is_file():
        pytest.skip("the reference is beside the photos of CLIPBENCH_DATA")
    theirs = pd.read_csv(home, dtype=str, keep_default_na=False)
    theirs = theirs[theirs["verified"] != "no"]
    # That list was made before Jina's notebook was read, which has its recipe and further numbers.
    recipe = "(CLIPLoss, Adam, lr 1e-6, 5 epochs)"
    theirs["protocol"] = theirs["protocol"].str.replace("(hyperparameters lost)", recipe)
    ours = published()
    ours = ours[ours["source"] != "Jina notebook"]
    fields = [
        sorted(map(tuple, of.drop(columns="citation").to_numpy().tolist())) for of in (ours, theirs)
    ]
    assert fields[0] == fields[1]  # but a page's text has no file name here
    pages = theirs["citation"].str.match(r"\d{3}_\w+\.txt")
    kept = ours[~ours["citation"].str.startswith("text of the page")]
    read = theirs["citation"][~pages].str.replace(r"seed \d+, ", "", regex=True)
    assert sorted(kept["citation"]) == sorted(read)


def test_marks_and_numbers_of_published_texts():
    one = Published("48.8 (2.5)", "", "", firsthand=False)
    assert (one.number, one.shown) == (48.8, f"48.8 (2.5){references.MARK}")
    assert Published("~30", "", "", True).number is None
    assert Published("<5", "", "", True).shown == "<5"


def test_a_document_without_a_figure_or_a_note():
    spec = {"title": "t", "row": "r", "columns": [{"name": "c", "given": "c"}]}
    layout = layouts.fill("t", {**spec, "rows": [{"name": "a", "given": {"c": "b"}}]}, Evidence({}))
    found = documents.document(layout)
    assert found.notes == []
    assert found.markdown(None) == "**t**\n\n| r    | c    |\n| :--- | :--- |\n| a    | b    |\n\n"
