"""A real Ray on this machine runs a small sweep: ``make test-ray``."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.clusters.test_slurm import table
from tests.conftest import FEW, TINY, clipbench, result_jsons
from tests.faults import alive, descendants

pytestmark = pytest.mark.slow


def test_a_sweep_on_ray_ends_as_one_on_this_machine(tmp_path):
    words = ("-m", *TINY, *FEW, "freeze_depth=0,1,99")
    found = {}
    for launcher in ("local", "ray"):
        env = {"CLIPBENCH_OUTPUTS": str(tmp_path / launcher)}
        done = clipbench(*words, f"hydra/launcher={launcher}", env=env, timeout=900, fresh=True)
        assert done.returncode == 1, done.stderr
        found[launcher] = [
            (record["key"], record["status"], record["final"])
            for _, record in result_jsons(tmp_path / launcher)
        ]
    assert found["local"] == found["ray"]
    assert table(tmp_path / "local") == table(tmp_path / "ray")


def test_a_signal_ends_the_jobs_on_ray_too(tmp_path):
    words = ("-m", *TINY, *FEW, "epochs=500", "seed=0,1", "hydra/launcher=ray")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CLIPBENCH_OUTPUTS": str(tmp_path)}
    command = [sys.executable, "-m", "clipbench.run", *words]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if "epoch  1" in line:
                break
        family = descendants(process.pid)
        assert len(family) > 4
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    deadline = time.monotonic() + 30
    while any(map(alive, family)) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not any(map(alive, family))
    assert {record["status"] for _, record in result_jsons(tmp_path)} == {"interrupted"}
