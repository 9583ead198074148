"""One new thing is added in one place, here in a copy of the tree.

A strategy and a dataset are a file and a YAML, a metric and a root key an entry.
"""

import json
import os
import shutil
import subprocess
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import metadata

from clipbench.core import paths

NEW = {
    "clipbench/datamodules/toy.py": '''
import numpy as np

from clipbench.datamodules.base_classification import ClassificationDataModule
from clipbench.loading.split import Split


class ToyDataModule(ClassificationDataModule):
    """Noise around one of two greys."""

    classes = ["dark square", "light square"]
    templates = ["a {}"]

    def read_splits(self):
        rng = np.random.default_rng(0)
        return {name: self._split(name, rng) for name in ("train", "val", "test")}

    def _split(self, name, rng):
        labels = np.arange(12) % 2
        noise = rng.integers(0, 80, (12, 32, 32, 3))
        images = (noise + 120 * labels[:, None, None, None]).astype(np.uint8)
        return Split([f"{name}/{i}" for i in range(12)], labels, images, expected=12)
''',
    "conf/dataset/toy.yaml": """
defaults:
  - options/images@_here_
  - _self_
_target_: clipbench.datamodules.toy.ToyDataModule
root: .
""",
    "clipbench/metrics/toy.py": '''
def share(logits, labels):
    """Return the share of images that are right, or of the first class."""
    return float(((logits.argmax(1) == labels) | (labels == 0)).float().mean())
''',
    "clipbench/strategies/toy.py": '''
from clipbench.strategies.base import Strategy, start_head
from clipbench.strategies.freezing import freeze


class Toy(Strategy):
    """The head alone, by a loss times a factor."""

    def __init__(self, *, factor):
        self.factor = factor

    def prepare(self, tower, task):
        classifier = start_head(tower, task, "auto")
        freeze(tower, "all")
        return classifier

    def loss(self, *batch, **options):
        return self.factor * super().loss(*batch, **options)
''',
    "conf/strategy/toy.yaml": """
_target_: clipbench.strategies.toy.Toy
factor: 1.0
about:
  label: toy tuning
  trains: [head]
  untried: {classes: 9}
  remedies:
    no gain: {factor: 0.5}
""",
}
# file -> where a line is added, and the line
ADDED = {
    "clipbench/metrics/registry.py": (
        "}\nCOMPUTED =",
        """    "toy_share": Metric(
        "toy share", function="clipbench.metrics.toy:share", compares=True, chart="val"
    ),
""",
    ),
    "clipbench/assets/keys.yaml": (
        "rank_timeout:\n",
        """toy_key:
  type: int
  default: 3
  affects: training
  help: a number of toys
""",
    ),
}
RUN = (
    "model=clip_tiny",
    "dataset=toy",
    "strategy=toy,zero_shot",
    "epochs=2",
    "batch_size=4",
    "trainer=cpu",
    "lr=1e-12",
    "monitor=toy_share",
    "toy_key=4",
)
# What follows a run, in one process: Python and its imports are most of a command's time.
AFTER = """
import sys
from clipbench import dashboard, doctor, plan, report
for run in sys.argv[1:]:
    doctor.examine([f"run={run}"])
doctor.examine(["strategy=toy", "dataset=toy"])
plan.plan(["model=clip_tiny,resnet_tiny", "strategy=toy", "dataset=shapes"])
report.report([])
dashboard.laid_out()
from clipbench.strategies import about
print("proposed:", about.proposed("classes"))
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the tree with the new files in it."""
    root = tmp_path_factory.mktemp("tree")
    for folder in ("clipbench", "conf", "experiments", "hydra_plugins"):
        leave = shutil.ignore_patterns("__pycache__")
        shutil.copytree(paths.ROOT / folder, root / folder, ignore=leave)
    shutil.copy(paths.ROOT / "pyproject.toml", root)
    for name, text in NEW.items():
        (root / name).write_text(text)
    for name, (before, line) in ADDED.items():
        text = (root / name).read_text()
        assert text.count(before) == 1
        (root / name).write_text(text.replace(before, line + before))
    return root


def python(tree, *words):
    """Return what a Python process in the copy prints."""
    env = {"PYTHONPATH": str(tree), "CLIPBENCH_OUTPUTS": str(tree / "outputs")}
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        cwd=tree,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **env},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_what_is_new_is_in_a_run_its_table_the_page_the_doctor_the_dashboard_and_help(tree):
    told = python(tree, "-m", "clipbench.run", "--help")
    lists = dict(line.split(": ", 1) for line in told.splitlines() if ": " in line)
    assert "toy" in lists["strategy"].split(", ")
    assert "toy" in lists["dataset"].split(", ")
    assert lists["toy_key"] == "a number of toys"

    python(tree, "-m", "clipbench.run", "-m", *RUN)
    folders = sorted((tree / "outputs" / "runs" / "toy").iterdir())
    records = [json.loads((folder / "result.json").read_text()) for folder in folders]
    assert [(r["strategy"], r["status"]) for r in records] == [
        ("toy", "completed"),
        ("zero_shot", "completed"),
    ]
    assert "about" not in records[0]["config"]["strategy"]
    for record in records:
        assert record["config"]["toy_key"] == 4
        assert record["selection"]["metric"] == "val/toy_share"
        assert 0.5 <= record["curve"][0]["val/toy_share"] <= 1
        assert 0.5 <= record["final"]["test/toy_share"] <= 1
    found = EventAccumulator(str(folders[0])).Reload()
    content = found.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    start = metadata.parse_session_start_info_plugin_data(content)
    assert start.hparams["strategy"].string_value == "toy"
    assert start.hparams["dataset"].string_value == "toy"

    (table,) = (tree / "outputs" / "tables").glob("sweep_*[0-9].md")
    assert "test/toy_share" in table.read_text().splitlines()[0]
    rows = [[c.strip() for c in row.split("|")[1:4]] for row in table.read_text().splitlines()[2:]]
    assert rows == [["clip_tiny", "toy", "toy"], ["clip_tiny", "toy", "zero_shot"]]

    told = python(tree, "-c", AFTER, *folders)
    assert "clip_tiny on toy, toy, completed" in told
    assert "no gain" in told
    assert "try: strategy.factor=0.5" in told
    assert "proposed: ['zero_shot', 'linear_probe', 'finetune', 'lp_ft', 'flyp', 'toy']" in told
    (page,) = (tree / "outputs" / "reports").glob("*.html")
    assert "clip_tiny, toy tuning" in page.read_text()
    assert "toy_share on 12 test images" in page.read_text()
    board = tree / "outputs" / "dashboard" / "events.out.tfevents.0.clipbench"
    events = EventAccumulator(str(board)).Reload()
    (event,) = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    charts = {chart.title: chart for category in layout.category for chart in category.chart}
    assert list(charts["toy share"].multiline.tag) == ["^val/toy_share$"]
    content = events.SummaryMetadata(metadata.EXPERIMENT_TAG).plugin_data.content
    columns = metadata.parse_experiment_plugin_data(content).metric_infos
    assert "chosen/test/toy_share" in [column.name.tag for column in columns]
    names = [link.name for link in (tree / "outputs" / "dashboard" / "toy").iterdir()]
    assert sorted(name.split()[:2] for name in names) == [
        ["clip_tiny", "toy"],
        ["clip_tiny", "zero_shot"],
    ]
