"""Shared by all tests: outputs in a folder of their own, the real command line, small models."""

import copy
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import hydra
import pytest

from clipbench.core import paths
from clipbench.core.config import compose, schema
from tests.command_server import Command


@pytest.fixture(scope="session", autouse=True)
def _registered():
    paths.register()
    schema.register()


@pytest.fixture(scope="session", autouse=True)
def _composed_once():
    """Let a command line be composed once a process: each takes Hydra 0.1 s, and hundreds recur.

    What is kept is unresolved, so that a test's own folders and variables still count.
    """
    compose, kept = hydra.compose, {}

    def composed_once(name, words, **options):
        key = (name, *words, *sorted(options.items()))
        if key not in kept:
            kept[key] = compose(name, words, **options)
        return copy.deepcopy(kept[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hydra, "compose", composed_once)
        yield


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    """An outputs root of this test's own."""
    monkeypatch.setenv("CLIPBENCH_OUTPUTS", str(tmp_path / "outputs"))
    return tmp_path / "outputs"


composed = compose.compose


def clipbench(*words, module="run", env=None, timeout=300, fresh=False, prepare=None):
    """A command, as a user starts it: ``python -m clipbench.<module> ...`` in processes of its own.

    Unless ``fresh``, they are forked from the server that this test session's jobs come from, which
    has the libraries loaded: to import torch takes longer than most tests. Fresh is what imports
    themselves matter to, as do variables that libraries read when they are imported.
    """
    words = [f"clipbench.{module}", *map(str, words)]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
    if fresh:
        command = [sys.executable, "-m", *words]
        options = {"capture_output": True, "text": True, "env": variables, "cwd": paths.ROOT}
        return subprocess.run(command, timeout=timeout, check=False, **options)
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        code = Command(words, variables, out, err, prepare).wait(timeout)
        return subprocess.CompletedProcess(words, code, out.read_text(), err.read_text())


# A folder's name that Hydra's grammar, a shell, a URL, rich and HTML would each read otherwise.
ODD = "Müller's photos (1), a=b #2 [x] {y}"

# Small enough for a test: two classes' worth of steps, no augmentation, no TensorBoard.
SMALL = ("dataset.shots=2", "epochs=1", "batch_size=16", "trainer=cpu")
# The same of a smaller world of shapes: half of a job's time is the drawing of it.
FEW = ("dataset.counts={train: 8, val: 5, test: 10, test_ood: 5}", *SMALL)
# A real ResNet, random and tiny, for tests that need none of the embedded weights.
TINY = ("model=timm", "model.arch=test_resnet", "model.pretrained=null", "model.image_size=32")


def result_json(folder):
    """What the ``result.json`` of a run's folder holds."""
    return json.loads((Path(folder) / "result.json").read_text())


def result_jsons(outputs):
    """Every run's folder under an outputs root, and what its ``result.json`` holds."""
    files = sorted((Path(outputs) / "runs").glob("*/*/result.json"))
    return [(path.parent, result_json(path.parent)) for path in files]


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """A completed run of a CLIP and one of a ResNet: folder and record by the model's name."""
    from tests.test_run import run_here

    patch = pytest.MonkeyPatch()
    outputs = tmp_path_factory.mktemp("runs")
    patch.setenv("CLIPBENCH_OUTPUTS", str(outputs))
    squashed = (*TINY, "lr=1e-2", "dataset.resize_mode=squash")
    for model, words in (("clip_tiny", ("model=clip_tiny",)), ("timm", squashed)):
        outcome = run_here(*words, *FEW, model=model)
        assert outcome.status == "completed", outcome.error
    patch.undo()
    return {record["model"]: (folder, record) for folder, record in result_jsons(outputs)}
