"""The path of one run in CONTRIBUTING.md is the one that a run takes."""

import ast
import json
import os
import re
import sys
import threading
from pathlib import Path

from clipbench.core import paths
from tests.conftest import FEW, clipbench

MOST = 14  # files to open


def trace():
    """Note each call of the functions listed, in the command, its fork server and all they fork."""
    wanted = {tuple(step) for step in json.loads(os.environ["TRACED_STEPS"])}

    def note(frame, event, argument):
        code = frame.f_code
        if event == "call" and (code.co_filename, code.co_qualname) in wanted:
            with Path(os.environ["TRACED_CALLS"]).open("a") as file:
                file.write(json.dumps([code.co_filename, code.co_qualname]) + "\n")

    threading.setprofile(note)
    sys.setprofile(note)


def listed():
    """Files and the functions in them, in the order of CONTRIBUTING.md."""
    text = (paths.ROOT / "CONTRIBUTING.md").read_text()
    section = text.partition("## The path of one run\n")[2].partition("\n## ")[0]
    steps, file = [], None
    for word in re.findall(r"`([^`]+)`", section):
        if word.endswith(".py"):
            file = word
        else:
            steps.append((file, word))
    assert len(re.findall(r"^\d+\. ", section, re.MULTILINE)) == 12
    return steps


def imported(file):
    """The modules that a file imports, at its top or in a function."""
    names = set()
    for node in ast.walk(ast.parse((paths.ROOT / file).read_text())):
        if isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_every_file_is_there_and_reached_from_one_before_it():
    files = list(dict.fromkeys(file for file, _ in listed()))
    assert 10 < len(files) <= MOST
    assert files[0] == "clipbench/run.py"
    reached = imported(files[0])
    for file in files[1:]:
        assert (paths.ROOT / file).is_file()
        assert file.removesuffix(".py").replace("/", ".") in reached, file
        reached |= imported(file)


def test_a_run_calls_the_functions_in_this_order(tmp_path, outputs):
    steps = [(str(paths.ROOT / file), name) for file, name in listed()]
    calls = tmp_path / "calls.jsonl"
    places = {"TRACED_STEPS": json.dumps(steps), "TRACED_CALLS": str(calls)}
    done = clipbench("model=clip_tiny", "logger=none", *FEW, env=places, prepare=trace)
    assert done.returncode == 0, done.stdout + done.stderr
    called = [tuple(json.loads(line)) for line in calls.read_text().splitlines()]
    assert list(dict.fromkeys(called)) == steps
