"""What goes to a cluster and comes back, without one; tests/clusters/ has real ones."""

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hydra.errors import HydraException

from clipbench.core.jobs import Job, Outcome
from clipbench.core.locking import Lock
from clipbench.results import record, store
from clipbench.sweeps import launcher as launching
from clipbench.sweeps.estimate import expected
from clipbench.sweeps.session import Session
from hydra_plugins.clipbench_clusters import OnSlurm, Ray, Slurm, on_ray
from tests.conftest import FEW, TINY, composed
from tests.test_run import CHOICES


@pytest.fixture
def job(outputs):
    words = (*TINY, *FEW, "logger=none")
    return Job(composed(*words), {**CHOICES, "model": "timm"}, list(words))


def test_a_sweep_elsewhere_is_announced_noted_and_scored(outputs, tmp_path, job, capsys):
    folder = outputs / "runs" / "shapes" / "timm-finetune-12345678"
    folder.mkdir(parents=True)
    store.write(
        folder,
        {
            **{"schema": record.SCHEMA, "key": "12345678", "status": "completed"},
            **{"model": "timm", "dataset": "shapes", "strategy": "finetune", "config": job.config},
            **{"curve": [{"epoch": 1, "val/acc": 0.625}], "final": {"val/acc": 0.625}},
            **{"selection": {"metric": "val/acc", "epoch": 1, "alpha": None}},
            **{"parameters": {"total": 3, "trainable": 2}, "steps": {"total": 1, "peak_lr": 1e-3}},
            "cost": {"seconds": 7.0, "peak_memory_bytes": 1},
        },
    )
    done = Outcome("completed", key="12345678", folder=str(folder))
    jobs = [job, replace(job, config=composed(*TINY, *FEW, "logger=none", "seed=1"))]
    failed = Outcome("failed", error="it went wrong")
    session = Session()
    session.sweep = tmp_path
    (score, none) = session.cluster(jobs, lambda own: iter([done, failed][: len(own)]))
    said = capsys.readouterr()
    assert "2 jobs, 1 of them done" in said.out
    assert "; 7 s for each of the others, if it takes as long" in said.out
    assert (score, none) == (0.625, None)
    assert "failed: it went wrong" in said.err
    lines = [json.loads(line) for line in (tmp_path / "jobs.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["completed", "failed"]
    assert [outcome.code for outcome in session.outcomes] == [0, 1]


def test_nothing_that_came_back_is_no_table(tmp_path):
    session = Session()
    session.sweep = tmp_path
    assert session.close() == 0


def test_a_run_that_is_at_work_is_waited_for_and_asked_for_again(outputs, tmp_path, job):
    lock, asked = Lock(tmp_path / "run"), []

    def run(jobs):
        asked.append(len(jobs))
        if len(asked) == 1:
            lock.release()
            yield Outcome("elsewhere", folder=str(tmp_path / "run"), error="process 1 on node")
        else:
            yield Outcome("failed", error="then it was ours")

    session = Session()
    session.cluster([job], run, announce=False)
    assert asked == [1, 1]
    assert [outcome.error for outcome in session.outcomes] == ["then it was ours"]


def test_a_preempted_job_keeps_its_state_and_is_queued_again(job, monkeypatch):
    pytest.importorskip("submitit")
    told = []
    process = SimpleNamespace(join=lambda seconds: told.append(("waited", seconds)))
    running = SimpleNamespace(end=lambda: told.append("ended"), process=process)
    monkeypatch.setattr(launching.stop, "working", {running.end: running}.values())
    again = OnSlurm().checkpoint(job)
    assert told == ["ended", ("waited", launching.KEEPING)]
    assert isinstance(again.function, OnSlurm)
    assert again.args == (job,)


def test_the_servers_children_let_a_preemptions_signal_pass():
    """In a process of its own: this one's server may be there already."""
    code = (
        "import os, signal, time\n"
        "from multiprocessing import context, get_context\n"
        "from hydra_plugins import clipbench_clusters as c\n"
        "context.BaseContext.set_forkserver_preload = lambda *names: None\n"
        "signal.signal(signal.SIGUSR2, lambda *_: print('told'))\n"
        "c._start_server()\n"
        "child = get_context('forkserver').Process(target=time.sleep, args=(1,))\n"
        "child.start()\n"
        "time.sleep(0.3)\n"
        "os.kill(child.pid, signal.SIGUSR2)\n"
        "os.kill(os.getpid(), signal.SIGUSR2)\n"
        "child.join()\n"
        "print(child.exitcode)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["told", "0"], done.stderr


def test_a_job_on_ray_has_the_gpus_that_ray_gives(job, monkeypatch):
    monkeypatch.setattr(launching, "launch", lambda own: own)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    given = replace(job, environment={"CLIPBENCH_OUTPUTS": "here"})
    environment = on_ray(pickle.loads(pickle.dumps(given))).environment
    assert environment["CUDA_VISIBLE_DEVICES"] == "3"
    assert environment["CLIPBENCH_OUTPUTS"] == "here"


@pytest.mark.parametrize(("launcher", "name"), [("slurm", "submitit"), ("ray", "ray")])
def test_a_missing_library_is_named_with_its_extra(job, monkeypatch, launcher, name):
    monkeypatch.setitem(sys.modules, name, None)
    own = Slurm("folder", 1) if launcher == "slurm" else Ray({}, {})
    with pytest.raises(HydraException, match=rf'{name} is not installed; .*"clipbench\[{launcher}'):
        next(own.outcomes([job]))


def test_what_is_left_is_told_by_what_is_done():
    assert expected("jobs", 5, [], 1) == "5 jobs, 0 of them done"
    assert expected("jobs", 2, [3.0, 5.0], 1) == "2 jobs, 2 of them done"
    assert expected("jobs", 5, [60.0, 120.0], 2).startswith("5 jobs, 2 of them done; 3 min for the")
    assert "; 2 min for each of the others" in expected("jobs", 5, [60.0, 180.0], None)
