"""How long tables take: all of them from what is frozen, and one of ten thousand run records."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from clipbench.results import store

TITLE = "Tables: seconds from the command to its end, imports included"
RUNS = 10_000


def record(number):
    """A record as large as a run's own, of a grid of rates, depths and seeds."""
    epochs = [{"epoch": e, "val/acc": e / 10, "val/loss": 1 - e / 10} for e in range(9)]
    names = [
        f"{split}/{m}" for split in ("val", "test") for m in ("acc", "loss", "ece", "macro_f1")
    ]
    split = {"n": 960, "expected": 960, "sha256": "ab" * 32, "rule": None}
    config = {"dataset": {"shots": None, "classes": [f"class {i}" for i in range(24)]}}
    config |= {f"key_{i}": {"_target_": "clipbench.a.B", "value": i} for i in range(120)}
    return {
        **{"schema": 1, "key": f"{number:08x}", "status": "completed", "error": None},
        **{"model": "clip_tiny", "dataset": "shapes", "strategy": "finetune", "batch_size": 64},
        **{"lr": 10 ** -(1 + number % 20 / 5), "freeze_depth": number // 20 % 10, "epochs": 8},
        **{"seed": number // 200, "config": config, "data": {"test": split, "val": split}},
        "parameters": {"total": 2_000_000, "trainable": 1_000_000},
        "steps": {"total": 240, "warmup": 24, "peak_lr": 1e-3},
        "curve": epochs,
        "final": {name: (number * 7919 % 997) / 997 for name in names},
        "selection": {"metric": "val/acc", "epoch": 8, "alpha": None},
        "cost": {"seconds": 20.0, "images_per_second": 500.0, "peak_memory_bytes": 8e8}
        | {"device": "cpu"},
        "versions": {"torch": "2.10"},
    }


def many(outputs):
    """A sweep of records under an outputs root."""
    sweep = outputs / "sweeps" / "many"
    sweep.mkdir(parents=True)
    with (sweep / "jobs.jsonl").open("w") as jobs:
        for number in range(RUNS):
            folder = outputs / "runs" / "shapes" / f"clip_tiny-finetune-{number:08x}"
            folder.mkdir(parents=True)
            store.write(folder, record(number))
            typed = [f"lr={number % 20}", f"seed={number // 200}"]
            line = {"overrides": [*typed, f"freeze_depth={number // 20 % 10}"]}
            jobs.write(json.dumps({**line, "status": "completed", "folder": str(folder)}) + "\n")


def timed(outputs, *words):
    """Wall and CPU seconds of the door, and the files it wrote."""
    env = {**os.environ, "CLIPBENCH_OUTPUTS": str(outputs)}
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    run = [sys.executable, "-m", "clipbench.tables", *words]
    subprocess.run(run, env=env, check=True, capture_output=True)
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    written = len([*(Path(outputs) / "tables").iterdir()])
    return {
        "wall s": f"{wall:.1f}",
        "CPU s": f"{after.ru_utime - before.ru_utime:.1f}",
        "files": written,
    }


def run():
    rows = []
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            rows.append({"what": "all, frozen", **timed(folder, "results=frozen")})
    with tempfile.TemporaryDirectory() as folder:
        many(Path(folder))
        rows.append({"what": f"{RUNS:,} records", **timed(folder, "table=sweep_many")})
    load = f"{os.getloadavg()[0]:.1f}, {os.cpu_count()}"
    return pd.DataFrame(rows).assign(**{"load, cores": load})
