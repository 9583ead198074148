"""Make the runs of ``runs.yaml`` and keep their records: ``python -m tests.doctor [NAME ...]``."""

import json
import os
import sys
import tempfile
from pathlib import Path

import yaml

from clipbench.core import paths
from clipbench.core.config import compose, schema
from clipbench.core.config.instantiate import build
from clipbench.core.jobs import Job
from clipbench.metrics import confusion
from clipbench.reporting.doctor import case, symptoms
from clipbench.results.record import RunRecord
from clipbench.sweeps.launcher import launch

HERE = Path(__file__).parent
# What the doctor reads of a config; the rest would be most of the file.
KEPT = ("strategy", "model", "augment", "label_smoothing", "weight_decay")


def shortened(record):
    """A record without what the doctor does not read."""
    kept = {k: v for k, v in record.items() if k not in ("versions", "git", "cost", "advice")}
    kept["config"] = {k: record["config"][k] for k in KEPT}
    kept["final"] = {k: v for k, v in record["final"].items() if "@alpha" not in k}
    return kept


def rotated(folder):
    """The classes' names, each given to another class."""
    names = build(compose.compose("dataset=shapes")["dataset"])
    names.prepare(0)
    path = folder / "names.json"
    path.write_text(json.dumps(names.classes[7:] + names.classes[:7]))
    return str(path)


def make(name, common, words):
    """One run, and its record under its name."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["CLIPBENCH_OUTPUTS"] = home
        overrides = [*common, *words]
        if any("NAMES" in word for word in overrides):
            overrides = [w.replace("NAMES", rotated(Path(home))) for w in overrides]
        typed = dict(word.partition("=")[::2] for word in overrides)
        choices = {"model": typed["model"], "dataset": "shapes"}
        choices["strategy"] = typed.get("strategy", "finetune")
        outcome = launch(Job(compose.compose(*overrides), choices, overrides))
        found = case.read(Path(outcome.folder))
    text = json.dumps(shortened(found.record), separators=(",", ":"))
    (HERE / f"{name}.json").write_text(text + "\n")
    confusion.write(HERE / f"{name}.npz", found.confusion)


def main():
    paths.register()
    schema.register()
    runs = yaml.safe_load((HERE / "runs.yaml").read_text())
    common = runs.pop("common")
    for name in sys.argv[1:] or runs:
        make(name, common, runs[name]["words"])
        said = symptoms.diagnose(read(name))
        print(f"== {name}: {', '.join(f.name for f in said) or 'nothing'}", flush=True)
        for finding in said:
            print(f"     {finding.name}: {finding.evidence}")


def read(name):
    """A kept case."""
    record = RunRecord.from_json(json.loads((HERE / f"{name}.json").read_text()))
    return case.Case(record, confusion.read(HERE / f"{name}.npz"))


if __name__ == "__main__":
    main()
