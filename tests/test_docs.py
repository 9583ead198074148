"""What README, CONTRIBUTING and docs/ name is there: links, commands, targets, options, keys."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from tests.conftest import composed

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLE = "biases"  # the strategy that docs/extending.md adds
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
GROUPS = {path.name: path for path in (ROOT / "conf").iterdir() if path.is_dir()}
# Options of these are of datasets too, whatever the page says about them.
GROUPS |= {"retention": GROUPS["dataset"], "mix": GROUPS["dataset"]}
GROUPS |= {"hydra/launcher": ROOT / "conf" / "hydra" / "launcher"}
GROUPS |= {"experiment": ROOT / "experiments" / "experiment"}

pages = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)


def prose(page):
    """The text of a page without its fenced blocks."""
    return FENCE.sub("", page.read_text())


def code(page):
    """Each line of a page's shell blocks, without comments, and each code span of its text."""
    text = page.read_text()
    shell = [block for language, block in FENCE.findall(text) if language == "bash"]
    lines = [line for block in shell for line in block.splitlines()]
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page))]
    return [line.partition(" #")[0].strip() for line in [*lines, *spans] if line.strip()]


def words(line):
    try:
        return shlex.split(line)
    except ValueError:  # no shell: an apostrophe of the text
        return []


def anchors(page):
    """The addresses that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def options(group):
    return {path.stem for path in GROUPS[group].glob("*.yaml")}


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_index_names_every_page():
    index = (ROOT / "docs" / "README.md").read_text()
    assert all(f"]({page.name})" in index for page in PAGES[2:] if page.name != "README.md")


@pages
def test_links_and_images_are_there(page):
    links = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    assert links or page.name == "extending.md"
    for link in links:
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


@pages
def test_files_that_are_named_are_there(page):
    named = [span for span in code(page) if re.fullmatch(r"[\w.-]+(/[\w.-]+)*/[\w.-]*", span)]
    homes = ("clipbench/", "conf/", "experiments/", "tests/", "docs/", "hydra_plugins/")
    for path in named:
        if path.startswith(homes) and "NAME" not in path and "/local/" not in path:
            assert (ROOT / path).exists() or EXAMPLE in path, f"{page.name}: {path}"


@pages
def test_commands_and_targets_are_there(page):
    makefile = (ROOT / "Makefile").read_text()
    for line in code(page):
        for module in re.findall(r"python -m ((?:clipbench|tests)\.[\w.]+)", line):
            home = ROOT / module.replace(".", "/")
            assert home.with_suffix(".py").exists() or (home / "__main__.py").exists(), module
        if target := re.match(r"make ([a-z][\w-]*)", line):
            assert re.search(rf"^{target[1]}:", makefile, re.MULTILINE), line


def test_the_readme_has_a_row_for_every_command():
    commands = {p.stem for p in (ROOT / "clipbench").glob("*.py") if _is_command(p)}
    rows = re.findall(r"^\| `python -m clipbench\.(\w+)", (ROOT / "README.md").read_text(), re.M)
    assert len(rows) == len(set(rows))
    assert set(rows) == commands


def _is_command(path):
    return any(isinstance(node, ast.If) for node in ast.parse(path.read_text()).body) and (
        "__main__" in path.read_text()
    )


@pages
def test_options_that_are_named_are_there(page):
    for line in code(page):
        for word in words(line):
            group, sign, values = word.partition("=")
            if not sign or group not in GROUPS:
                continue
            for value in filter(None, values.split(",")):
                if value.islower():  # NAME and DATASET are for the reader to fill in
                    known = value in options(group) or value == EXAMPLE
                    assert known, f"{page.name}: {group}={value}"


def test_each_options_table_has_every_option():
    text = "".join(prose(page) for page in PAGES)
    rows = re.findall(r"^\| `([\w/]+)=` \| ([^|]*) \|$", text, re.MULTILINE)
    assert {group for group, _ in rows} >= {"model", "dataset", "strategy", "recipe", "prompts"}
    for group, cell in rows:
        assert set(re.findall(r"`([^`]+)`", cell)) == options(group), group


def test_the_example_of_extending_is_a_strategy():
    blocks = dict(FENCE.findall((ROOT / "docs" / "extending.md").read_text()))
    names = {}
    exec(compile(blocks["python"], "extending.md", "exec"), names)
    (example,) = [v for v in names.values() if getattr(v, "__module__", "") == "builtins"]
    assert f"clipbench.strategies.{EXAMPLE}.{example.__name__}\n" in blocks["yaml"]
    assert {"loss", "param_groups", "prepare"} <= set(dir(example))


def runs():
    """The overrides of each command line that starts a run, the first value of each axis."""
    for page in PAGES:
        for line in code(page):
            if line.startswith("python -m clipbench.run ") and "--" not in line:
                own = [w for w in words(line)[3:] if w != "-m"]
                yield pytest.param(
                    [re.sub(r"^([^={\[(]+=[^,{\[(]+),.*$", r"\1", word) for word in own],
                    id=f"{page.stem}: {' '.join(own)}",
                )


@pytest.mark.parametrize("overrides", list(runs()))
def test_a_run_that_is_named_composes(overrides):
    named = [w for w in overrides if not w.isupper() and not w.endswith("=NAME")]
    assert composed(*named)["model"]


@pages
def test_keys_that_are_named_are_there(page):
    """Each ``group.key=value`` is a key of some option of its group."""
    for line in code(page):
        for group, key in re.findall(r"(?<![\w.])(\w+)\.(\w+)=", line):
            if group in GROUPS and group not in ("hydra", "retention", "mix"):
                found = [p for p in GROUPS[group].rglob("*.yaml") if _has_key(p, key)]
                assert found, f"{page.name}: {group}.{key}"


def _has_key(path, key):
    return re.search(rf"^{key}:", path.read_text(), re.MULTILINE)
