"""What options' files say of them is true, and nobody else says it."""

import ast
import re

import pytest
import torch
from hydra.utils import get_class

from clipbench.core import paths
from clipbench.core.config import option_files
from clipbench.core.config.instantiate import build
from clipbench.models import about as about_models
from clipbench.strategies import about, published_ranges
from tests.conftest import composed
from tests.strategies.test_finetune import TASK, tower
from tests.strategies.test_trained_sets import CASES, FAMILIES, PLAIN, config_of, image

OPTIONS = sorted(option_files.files("strategy"))
MORE = {
    "contrastive pairs": ("strategy.captions=all",),
    "lit pairs": ("strategy.captions=all",),
    "flyp masked": ("strategy.duplicates=masked",),
}


@pytest.mark.parametrize("case", [*CASES, *MORE])
def test_what_a_strategys_file_says_is_what_its_class_does(case):
    words = CASES[case][0] if case in CASES else MORE[case]
    node = config_of(f"strategy={case.split()[0]}", *words)["strategy"]
    strategy, known = build(node), about.of(node)
    assert known.steps == strategy.trains
    assert known.pairs == strategy.full_batches
    assert known.every_pair == strategy.every_pair
    assert ("captions" in known.untried) <= strategy.retrieves
    assert known.classes_alike == (case == "flyp")
    if case in CASES:
        assert known.text == CASES[case][2]


@pytest.mark.parametrize("option", OPTIONS)
def test_what_a_strategys_file_says_trains_is_what_trains(option):
    words, _, _ = CASES[option]
    strategy = build(config_of(f"strategy={option}", *words)["strategy"])
    torch.manual_seed(0)
    groups = strategy.prepare(tower("clip_tiny"), TASK).counts().groups
    trained = {name for name, told in groups.items() if told["trainable"]} - {"logit scale"}
    parts = {n if n == "head" else "image" if image(n) else "text" for n in trained}
    assert set(about.named(option).trains) == parts


@pytest.mark.parametrize("option", OPTIONS)
def test_the_guides_row_is_that_of_the_strategy_as_built(option):
    for depth in ("0", "2", "all"):
        whole = composed("model=clip_vitb32", f"strategy={option}", f"freeze_depth={depth}")
        strategy = build(whole["strategy"])
        depths = [vars(strategy).get(key, 0) for key in ("freeze_depth", "text_freeze_depth")]
        row = published_ranges.PARTIAL if any(depths) else published_ranges.FULL
        if strategy.reads_features or "all" in depths or option == "zero_shot":
            row = published_ranges.FROZEN
        row = published_ranges.SCRATCH if option == "lit" else row
        assert published_ranges.row(whole["model"], whole["strategy"]) == row
        random = {**whole["model"], "pretrained": None}
        assert published_ranges.row(random, whole["strategy"]) == published_ranges.SCRATCH


@pytest.mark.parametrize("option", sorted(option_files.files("model")))
def test_a_models_file_says_whether_it_reads_text(option):
    for pool in (None, "mean"):
        node = {**composed(f"model={option}")["model"], "pool": pool}
        reads = get_class(node["_target_"]).has_text and pool is None
        assert about_models.of(node).text == reads
    assert (option in about_models.with_text()) == get_class(node["_target_"]).has_text


@pytest.mark.parametrize("family", FAMILIES)
def test_a_models_file_says_whether_it_has_batchnorm(family):
    maker = FAMILIES[family][1]
    node = composed(f"model={maker.args[0]}", *maker.args[1:])["model"]
    norms = torch.nn.modules.batchnorm._BatchNorm
    assert about_models.has_batchnorm(node) == any(isinstance(m, norms) for m in maker().modules())
    assert about_models.of(node).text == (FAMILIES[family][0] != PLAIN)


READERS = (
    *("reporting/doctor", "reporting/tables/costs.py", "reporting/page/untried.py", "plan.py"),
    *("sweeps/cost_plan.py", "training/sanity_checks.py", "training/recommendations.py"),
)


def strings(path):
    """The strings of a file that are no docstrings, and the names that it imports."""
    tree = ast.parse(path.read_text())
    prose = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.value
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names)


def test_no_reader_names_a_strategy_or_a_model():
    files = [f for group in ("strategy", "model") for f in option_files.files(group).items()]
    options = {name for name, _ in files}
    classes = {node["_target_"].rpartition(".")[2] for _, node in files}
    for reader in READERS:
        place = paths.ROOT / "clipbench" / reader
        for path in [place] if place.is_file() else sorted(place.glob("*.py")):
            for text in strings(path):
                assert not options & set(re.findall(r"\w+", text)), (path, text)
                assert text not in classes, (path, text)
