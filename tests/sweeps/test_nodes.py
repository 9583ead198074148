"""One job on several machines: here two on this one, each with an elastic launcher of its own."""

import re
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pandas as pd

from clipbench.core.jobs import Job, Node
from clipbench.sweeps.launcher import launch
from tests.conftest import FEW, TINY, composed, result_jsons
from tests.test_run import CHOICES, run_here


def test_two_machines_train_one_run(outputs):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        meeting = f"localhost:{free.getsockname()[1]}"
    words = (*TINY, *FEW, "trainer.num_nodes=2", "timeout=200", "logger=none", "batch_size=8")
    job = Job(composed(*words), {**CHOICES, "model": "timm"}, list(words))
    with ThreadPoolExecutor(2) as pool:
        places = (replace(job, node=Node(rank, 2, meeting)) for rank in range(2))
        first, second = pool.map(launch, places)
    assert (first.status, first.error) == (second.status, second.error) == ("completed", None)
    ((folder, record),) = result_jsons(outputs)
    assert first.folder == second.folder == str(folder)
    assert record["batch"] == {"devices": 2, "per_device": 4, "accumulation": 1}
    told = pd.read_parquet(folder / "predictions.parquet")
    assert len(told) == len(told.drop_duplicates(["split", "id"])) == 480
    assert len(re.findall(r"^epoch +1", (folder / "log.txt").read_text(), re.M)) == 1


def test_machines_that_nobody_has_brought_together_are_refused(outputs):
    done = run_here(*TINY, *FEW, "trainer.num_nodes=2")
    assert done.status == "failed"
    assert "use hydra/launcher=slurm hydra.launcher.nodes=2, or trainer.num_nodes=1" in done.error
