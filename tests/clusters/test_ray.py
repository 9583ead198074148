"""A real Ray on this machine runs a small sweep: ``make test-ray``."""

import pytest

from clipbench import results
from tests.clusters.test_slurm import table
from tests.conftest import FEW, TINY, clipbench

pytestmark = pytest.mark.slow


def test_a_sweep_on_ray_ends_as_one_on_this_machine(tmp_path):
    words = ("-m", *TINY, *FEW, "freeze_depth=0,1,99")
    found = {}
    for launcher in ("local", "ray"):
        env = {"CLIPBENCH_OUTPUTS": str(tmp_path / launcher)}
        done = clipbench(*words, f"hydra/launcher={launcher}", env=env, timeout=900)
        assert done.returncode == 1, done.stderr
        found[launcher] = [
            (record["key"], record["status"], record["final"])
            for _, record in results.records(tmp_path / launcher)
        ]
    assert found["local"] == found["ray"]
    assert table(tmp_path / "local") == table(tmp_path / "ray")
