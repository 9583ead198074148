"""A real SLURM runs a small sweep, one job of which is preempted: ``make test-slurm``.

It needs a SLURM that takes jobs from this machine, and whose nodes see its files.
"""

import json
import os
import subprocess
import sys
import time

import pytest

from tests.conftest import FEW, TINY, clipbench, result_jsons

pytestmark = pytest.mark.slow

SLURM = (
    *("hydra/launcher=slurm", "hydra.launcher.timeout_min=20", "hydra.launcher.cpus_per_task=1"),
)


@pytest.fixture(scope="module", autouse=True)
def answers():
    """Without a controller sbatch would wait, and so would this."""
    try:
        subprocess.run(["sinfo"], check=True, capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        pytest.fail("no SLURM answers: see docs/sweeps_and_clusters.md for what to start")


def preempt(outputs):
    """Send one job the signal of a preemption, once it has trained an epoch: it keeps its state."""
    until(outputs, lambda record: len(record["curve"]) > 1)
    (job,) = outputs.glob("sweeps/*/.submitit/*_1")
    subprocess.run(["scancel", "--signal=USR2", job.name], check=True)
    until(outputs, lambda record: "the same command goes on" in (record["error"] or ""))


def until(outputs, reached):
    """Wait for the second job to come somewhere, by its record."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        if any(r["seed"] == 1 and reached(r) for _, r in result_jsons(outputs)):
            return
        time.sleep(0.5)
    raise TimeoutError("the second job did not come so far")


def test_a_sweep_on_slurm_survives_a_preemption(tmp_path):
    words = ("-m", *TINY, *FEW, "epochs=40", "seed=0,1")
    alone = clipbench(
        *words, env={"CLIPBENCH_OUTPUTS": str(tmp_path / "here")}, timeout=900, fresh=True
    )
    assert alone.returncode == 0, alone.stderr
    outputs = tmp_path / "slurm"
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CLIPBENCH_OUTPUTS": str(outputs)}
    with subprocess.Popen(
        [sys.executable, "-m", "clipbench.run", *words, *SLURM],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        preempt(outputs)
        said, _ = process.communicate(timeout=900, fresh=True)
    assert process.returncode == 0, said
    assert "2 jobs, 0 of them done" in said
    logs = "".join(path.read_text() for path in outputs.glob("sweeps/*/.submitit/*/*_log.*"))
    assert "requeue" in logs.lower()
    assert "going on where it was interrupted" in logs
    assert table(tmp_path / "here") == table(outputs)
    (listed,) = outputs.glob("sweeps/*/jobs.jsonl")
    lines = [json.loads(line) for line in listed.read_text().splitlines()]
    assert [line["status"] for line in lines] == ["completed", "completed"]


def table(outputs):
    """The sweep's tables, cost aside, by what follows its name."""
    paths = [p for p in outputs.glob("tables/sweep_*.csv") if "_cost" not in p.name]
    assert paths
    return {"_".join(p.stem.split("_")[3:]): p.read_bytes() for p in paths}


def test_one_job_is_on_two_machines(tmp_path):
    """Two tasks of one machine stand for them."""
    words = ("-m", *TINY, *FEW, "trainer.num_nodes=2", "batch_size=8")
    place = ("hydra.launcher.nodes=1", "hydra.launcher.tasks_per_node=2")
    done = clipbench(
        *words, *SLURM, *place, env={"CLIPBENCH_OUTPUTS": str(tmp_path)}, timeout=900, fresh=True
    )
    assert done.returncode == 0, done.stderr
    ((_, record),) = result_jsons(tmp_path)
    assert record["batch"] == {"devices": 2, "per_device": 4, "accumulation": 1}
