"""The floors of the house, what a laptop may not need, and what must answer at once."""

import ast
import os
import resource
import subprocess
import sys
from pathlib import Path

import grimp
import networkx as nx
import pytest

from clipbench.core import paths
from tests import house

FILES = sorted((paths.ROOT / "clipbench").rglob("*.py"))


def test_floors():
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=paths.ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_file_at_the_top_is_a_command_and_a_folder_is_a_room():
    rows, commands = house.floors()
    rooms = {room for row in rows[1:] for room in row}
    assert {path.stem for path in paths.PACKAGE.glob("*.py")} == {"__init__", *commands}
    assert len(commands) == 14
    folders = {path.parent.name for path in paths.PACKAGE.glob("*/__init__.py")}
    assert folders == rooms
    assert len(rooms) == 12
    assert paths.ASSETS.is_dir()


def test_each_room_says_what_it_is_for_and_imports_nothing():
    for file in paths.PACKAGE.glob("*/__init__.py"):
        tree = ast.parse(file.read_text())
        text = ast.get_docstring(tree)
        assert text, file
        assert text.endswith("."), file
        assert "\n" not in text, file
        # clipbench.transforms.Augment is an address in records; it is imported when it is used.
        assert len(tree.body) == 1 or file.parent.name == "transforms", file


def test_no_circle_of_imports():
    graph = grimp.build_graph("clipbench", cache_dir=None)
    files = nx.DiGraph(
        (module, imported)
        for module in graph.modules - {"clipbench"}
        for imported in graph.find_modules_directly_imported_by(module)
    )
    assert not [part for part in nx.strongly_connected_components(files) if len(part) > 1]


def test_the_floor_plan_is_current():
    assert house.FILE.read_text() == house.draw(), "run make house"


TORCH_FREE = ["run", "tables", "dashboard", "sweeps.summary", "sweeps.launcher", "results.store"]


@pytest.mark.parametrize("module", TORCH_FREE)
def test_no_torch_where_a_laptop_rebuilds_tables_or_completes_a_word(module):
    code = f"import sys, clipbench.{module}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("flags", [["--help"], ["--cfg", "job"]])
def test_answers_in_under_a_second_of_cpu(flags):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "clipbench.run", *flags],
        check=True,
        capture_output=True,
        env=os.environ,
        cwd=paths.ROOT,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime - before.ru_utime < 1.0


def test_files_are_short_and_none_is_a_drawer():
    lengths = {path: len(path.read_text().splitlines()) for path in FILES}
    assert max(lengths.values()) <= 350, max(lengths, key=lengths.get)
    assert sorted(lengths.values())[len(lengths) // 2] <= 120
    drawers = {"utils", "helpers", "common", "misc", "manager", "factory"}
    assert not [path for path in FILES if path.stem in drawers]


def test_nothing_unpickles():
    """No call that would execute what a file says; the one torch.load says weights_only=True."""
    forbidden = {"load_state_dict_from_url", "read_pickle", "unsafe_load", "load_from_checkpoint"}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not names & {"pickle", "dill", "joblib"}, path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                assert node.func.attr not in forbidden, path
                keywords = {k.arg: k.value for k in node.keywords}
                assert "allow_pickle" not in keywords, path
                owner = ast.unparse(node.func.value)
                if node.func.attr == "load" and owner == "torch":
                    assert ast.unparse(keywords["weights_only"]) == "True", path
                if node.func.attr == "load" and owner == "yaml":
                    raise AssertionError(path)
