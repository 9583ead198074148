"""The tables of the documents against the experiments that fill them, and what the texts say."""

import functools
import re

import pandas as pd
import pytest
import yaml

from clipbench.core import paths
from clipbench.core.config import compose
from clipbench.reporting.tables import costs, layouts, published
from clipbench.results import evidence
from clipbench.results.evidence import Evidence
from clipbench.results.frames import AXES
from clipbench.sweeps import cost_plan

TABLES = sorted((paths.EXPERIMENTS / "table").glob("*.yaml"))
COSTED = ["jina_gain", "jina_flickr8k", "blog_accuracy", "blog_lead", "blog_cost"]
COSTED += ["reference_wise_ft", "ft_clip_length"]
RECIPE = "CLIPLoss, Adam, lr 1e-6, 5 epochs"


def spec_of(name):
    return layouts.read(paths.EXPERIMENTS / "table" / f"{name}.yaml")


def merged(spec, row, column):
    return {**spec.get("where", {}), **column.get("where", {}), **row.get("where", {})}


@functools.cache
def planned(experiment):
    """GPU-hours of a run of an experiment, by model, dataset and epochs."""
    found = {}
    for whole, choices, _ in cost_plan.configs([f"experiment={experiment}"]):
        job, _ = cost_plan.described(whole, choices)
        place = choices["model"], choices["dataset"]
        found[place] = costs.gpu_hours(job) if job else None
    return found


@pytest.mark.parametrize("name", COSTED)
def test_a_tables_gpu_hours_are_those_that_plan_reckons(name):
    """Each run once, in the first row that it fills: of its own length, pairs and evaluations."""
    spec, counted = spec_of(name), set()
    hours = layouts.fill(name, spec, Evidence({})).hours
    for row, shown in zip(spec["rows"], hours, strict=True):
        needed = set()
        for column in spec["columns"]:
            if not {"metric", "reaches"} & column.keys():
                continue
            where = merged(spec, row, column)
            needed.add((where.get("experiment"), where.get("model"), where.get("dataset")))
            if "reaches" in column:
                rival = {**where, **row["rival"]}
                needed.add((rival["experiment"], rival["model"], rival["dataset"]))
        runs = [planned(run[0]).get(run[1:]) for run in needed - counted if run[0]]
        expected = [each for each in runs if each is not None]
        assert (shown or 0) == pytest.approx(sum(expected), rel=1e-6), row["name"]
        counted |= needed


def produced(where):
    """Whether a sweep of the experiment types what a selection of runs names."""
    file = paths.EXPERIMENTS / "experiment" / f"{where['experiment']}.yaml"
    grid = yaml.safe_load(file.read_text())["hydra"]["sweeper"]["params"]
    for key in where.keys() & grid.keys():
        wanted = where[key] if isinstance(where[key], list) else [where[key]]
        typed = {evidence._text(value) for value in str(grid[key]).split(",")}
        if not typed & {evidence._text(value) for value in wanted}:
            return False
    return True


def test_every_row_of_a_table_is_filled_when_its_experiment_is_run_again():
    for path in TABLES:
        spec = layouts.read(path)
        for row in spec["rows"]:
            cells = [merged(spec, row, column) for column in spec["columns"] if "metric" in column]
            asked = [where for where in cells if "experiment" in where]
            assert not asked or any(map(produced, asked)), (path.stem, row["name"])


def test_each_rung_of_the_ladder_changes_what_it_is_named_for():
    def flat(node, prefix=""):
        for key, value in node.items():
            if isinstance(value, dict):
                yield from flat(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value

    grid = yaml.safe_load((paths.EXPERIMENTS / "experiment/ablation_ladder.yaml").read_text())
    rungs = grid["hydra"]["sweeper"]["params"]["rung"].split(",")
    whole = [dict(flat(compose.compose("experiment=ablation_ladder", f"rung={r}"))) for r in rungs]
    changed = {}
    for rung, before, after in zip(rungs[1:], whole, whole[1:], strict=False):
        keys = {key for key in after if before.get(key) != after[key]}
        # lr is a recipe's end too where there is no schedule, and epochs are the trainer's.
        changed[rung] = {k.partition(".")[0] if k.startswith("augment") else k for k in keys}
    assert changed == {
        "1_small_lr": {"lr", "recipe.min_lr"},
        "2_layer_decay": {"layer_decay"},
        "3_ema": {"ema"},
        "4_warmup_cosine": {"warmup", "recipe.min_lr"},
        "5_shorter": {"epochs", "trainer.max_epochs"},
        "6_augment": {"augment"},
    }
    assert whole[1]["lr"] < whole[0]["lr"]
    assert whole[5]["epochs"] < whole[4]["epochs"]
    for name in ("ft_clip_ladder", "ft_clip_ladder_cost"):
        shown = [row["where"].get("rung") for row in spec_of(name)["rows"]]
        assert [rung for rung in shown if rung] == rungs


def run(experiment, **columns):
    """A frozen row, of one seed."""
    split = {"data/test/n": 1000, "data/test/expected": 1000, "data/test/sha256": "ab" * 32}
    split |= {f"data/val/{key}": split[f"data/test/{key}"] for key in ("n", "expected", "sha256")}
    row = {
        "key": f"{len(str(columns)):08d}",
        "status": "completed",
        **dict.fromkeys(AXES),
        "seed": 0,
    }
    row |= {"run/varies": True, **split, **columns}
    return experiment, row


def filled(name, *rows):
    parts = {}
    for experiment, row in rows:
        parts.setdefault(experiment, []).append(row)
    runs = Evidence({sweep: pd.DataFrame(part) for sweep, part in parts.items()})
    layout = layouts.fill(name, spec_of(name), runs)
    return {
        (row, column): cell
        for row, cells in zip(layout.rows, layout.grid, strict=True)
        for column, cell in zip(layout.columns, cells, strict=True)
    }


def test_what_is_measured_after_is_of_jinas_own_recipe_though_another_rate_is_better():
    common = {"model": "clip_vitb32", "dataset": "flickr8k", "strategy": "contrastive"}
    common |= {"dataset.scheme": "karpathy", "selection/metric": "val/mean_recall"}
    rows = [
        run("jina_full_train", key=key, lr=lr, **common, **scores)
        for key, lr, scores in (
            ("own", 1e-6, {"val/mean_recall": 0.8, "test/image_recall@5": 0.81}),
            ("larger", 1e-5, {"val/mean_recall": 0.9, "test/image_recall@5": 0.92}),
        )
    ]
    for table, row in (("jina_flickr8k", "ViT-B/32, OpenAI"), ("jina_gain", "Flickr8k, ViT-B/32")):
        cell = filled(table, *rows)[row, "after"]
        assert (cell.measured.interval.estimate, cell.measured.tried) == (0.81, 1)


def test_jinas_recipe_and_its_notebooks_own_run_are_published_as_it_prints_them():
    about = {"file": "jina_blog", "model": "ViT-B-32", "dataset": "flickr8k"}
    own = {**about, "protocol": f"Jina Finetuner fine-tuned on 4,376 pairs ({RECIPE})"}
    nine = {**about, "protocol": f"Jina Finetuner fine-tuned ({RECIPE})"}
    for where, image, text in ((own, "85.4", "91.0"), (nine, "86.5", "90.8")):
        metrics = [f"{side}_retrieval_recall@5" for side in ("image", "text")]
        assert [published.find({**where, "metric": m}).text for m in metrics] == [image, text]
    whole = compose.compose("experiment=jina_as_published")
    assert (whole["lr"], whole["epochs"], whole["dataset"]["scheme"]) == (1e-6, 5, "jina")
    assert whole["recipe"]["weight_decay"] == 0  # then AdamW is Adam


def test_an_accuracy_stands_beside_the_time_of_the_run_that_has_it():
    def scores(chosen, tenth):
        return {"val/acc": chosen, "curve/10": tenth}

    common = {"dataset": "fmow", "strategy": "finetune", "selection/metric": "val/acc"}
    rows = [
        run("blog_clip", key="a", model="clip_vitb32", **common, **scores(0.6, 0.6)),
        run("blog_resnet50", key="b", model="resnet50", **common, **scores(0.7, 0.4)),
    ]
    found = filled("blog_cost", *rows)
    shown = [found[row, "val accuracy"].measured for row in ("CLIP ViT-B/32", "ResNet50")]
    assert [cell.interval.estimate for cell in shown] == [0.6, 0.7]


def test_the_docs_claim_no_more_than_there_is():
    pages = [paths.ROOT / "README.md", *sorted((paths.ROOT / "docs").glob("*.md"))]
    text = "".join(page.read_text() for page in pages)
    (recipes,) = re.findall(r"^\| `recipe=`.*$", text, re.M)
    literal = re.findall(r"`(\w+)` \(to the letter", recipes)
    files = sorted((paths.CONF / "recipe").glob("*.yaml"))
    assert literal == [f.stem for f in files if "to the letter" in f.read_text().splitlines()[0]]
    assert {f"`{f.stem}`" for f in files} <= set(re.findall(r"`\w+`", recipes))
    assert "every table and figure of the four documents" not in text
