"""Sweeps that go wrong: what dies, hangs, or is at work twice, through the real command line."""

import json
import multiprocessing
import signal
import time
from pathlib import Path

import pytest

from clipbench.core.devices import devices
from clipbench.core.jobs import Job, Outcome
from clipbench.core.locking import Held, Lock
from clipbench.results import store
from clipbench.sweeps import launcher as launching
from clipbench.sweeps.estimate import headline
from clipbench.sweeps.worker import from_exit_code
from clipbench.training.resume import newest
from clipbench.training.run import execute
from tests.conftest import FEW, TINY, composed, result_jsons
from tests.faults import CAUSES, Sweep, alive, descendants
from tests.test_run import CHOICES, run_here

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads /proc")


@pytest.fixture
def sweep(tmp_path):
    """Starts a sweep, whose launcher is gone after the test, whatever becomes of that."""
    begun = []

    def begin(*words, **options):
        begun.append(Sweep(tmp_path, *words, **options))
        return begun[-1]

    yield begin
    for one in begun:
        one.process.kill()


def by_seed(outputs):
    return {record["seed"]: (folder, record) for folder, record in result_jsons(outputs)}


def test_whatever_becomes_of_a_job_the_others_complete_and_it_has_its_cause(tmp_path, sweep):
    kinds = {1: "raise", 3: "exit", 4: "memory", 6: "segfault", 7: "term"}
    faults = {seed: (kind, 0, "training") for seed, kind in kinds.items()}
    faults[9] = ("hang", 0, "training")
    seeds = ",".join(map(str, range(1, 11)))
    sweep = sweep(f"seed={seeds}", faults=faults, CLIPBENCH_KEEPING="2")
    while sweep.process.poll() is None and not any(n.get("fault") == "hang" for n in sweep.notes()):
        time.sleep(0.1)
    family = descendants(sweep.process.pid)
    assert len(family) >= 4
    sweep.process.send_signal(signal.SIGTERM)
    code, said = sweep.wait()
    assert code == 128 + signal.SIGTERM, said
    assert not any(map(alive, family))
    found = by_seed(tmp_path)
    assert "10 jobs, 0 of them done" in said
    assert 10 not in found  # what came after the signal
    for seed in (2, 5, 8):
        assert found[seed][1]["status"] == "completed"
    for seed, kind in kinds.items():
        folder, record = found[seed]
        assert record["status"] == ("interrupted" if kind == "term" else "failed")
        assert CAUSES[kind] in record["error"]
        assert CAUSES[kind] in (folder / record["log"]).read_text()
        assert f"{folder / record['log']}" in said
    assert found[9][1]["status"] == "interrupted"
    assert "SIGTERM" in found[9][1]["error"]
    assert "Traceback" in (found[1][0] / "log.txt").read_text()
    (listed,) = tmp_path.glob("sweeps/*/jobs.jsonl")
    codes = [json.loads(line)["code"] for line in listed.read_text().splitlines()]
    assert codes == [1, 0, 1, 1, 0, 1, 143, 0, 143]


@pytest.mark.slow  # make faults-jobs
@pytest.mark.parametrize("kind", [*CAUSES, "hang"])
def test_the_first_the_middle_and_the_last_job_go_wrong(tmp_path, sweep, kind):
    wrong = (1, 3, 5)
    sweep = sweep(
        "seed=1,2,3,4,5",
        *(["timeout=90"] if kind == "hang" else []),
        faults={seed: (kind, 0, "training") for seed in wrong},
    )
    code, said = sweep.wait()
    assert code == {"kill": 128 + signal.SIGKILL, "term": 128 + signal.SIGTERM}.get(kind, 1), said
    assert [note["seed"] for note in sweep.notes() if "fault" in note] == [*wrong]
    found = by_seed(tmp_path)
    assert {seed for seed, (_, record) in found.items() if record["status"] == "completed"} == {
        2,
        4,
    }
    for seed in wrong:
        folder, record = found[seed]
        assert record["status"] == ("interrupted" if kind in ("kill", "term") else "failed")
        cause = CAUSES.get(kind, "no end after timeout=90.0 s")
        assert cause in record["error"]
        assert cause in (folder / record["log"]).read_text()
        assert f"{folder / record['log']}" in said
    assert not any(alive(note["pid"]) for note in sweep.notes())


def test_what_is_at_work_when_sigterm_comes_keeps_where_it_is(tmp_path, sweep):
    """Two at a time: one that trains, on two ranks, and one that hangs, until its time is up."""
    words = ("seed=1,2,3", "epochs=500", "dataset.workers=1", "hydra/launcher=parallel")
    two = "hydra.launcher.at_once=2"
    hang = {2: ("hang", 0, "training")}
    sweep = sweep(*words, two, "trainer.devices=2", faults=hang, CLIPBENCH_KEEPING="10")
    while sweep.process.poll() is None:
        notes = sweep.notes()
        epochs = [n["epoch"] for n in notes if n["seed"] == 1 and "index" in n]
        if any(n.get("fault") for n in notes) and epochs and max(epochs) > 1:
            break
        time.sleep(0.1)
    family = descendants(sweep.process.pid)
    sweep.process.send_signal(signal.SIGTERM)
    code, said = sweep.wait()
    assert code == 128 + signal.SIGTERM, said
    assert "SIGTERM: 10 s to keep where the jobs at work are; again, and they end at once" in said
    assert not any(map(alive, family))
    found = by_seed(tmp_path)
    assert {seed: record["status"] for seed, (_, record) in found.items()} == {
        seed: "interrupted" for seed in (1, 2)
    }
    folder, record = found[1]
    step = newest(folder, record["key"]).step
    assert step >= 3
    assert record["error"] == f"SIGTERM after step {step}; the same command goes on from there"
    assert found[2][1]["error"] == "SIGTERM"


def test_ranks_of_a_sweep_train_one_config_together_whatever_came_before(tmp_path, sweep):
    """Two devices then one, one then two, and a job that is done and so skipped."""
    # Without BatchNorm, which sees its rank's rows alone.
    words = ("seed=0,1", "trainer.devices=2,1,2", "epochs=2")
    done = sweep(*words, model=("model=clip_tiny",), forked=True)
    code, said = done.wait()
    assert code == 0, said
    assert said.count("completed before; nothing was run") == 2
    steps = [note for note in done.notes() if "index" in note]
    for seed in (0, 1):
        for epoch in (0, 1):
            for batch in (0, 1, 2):
                here = (seed, epoch, batch)
                mine = [n for n in steps if (n["seed"], n["epoch"], n["batch"]) == here]
                assert (
                    len(mine) == 3
                )  # that of one rank and those of two: what is done is not repeated
                (alone,) = [n["index"] for n in mine if n["world"] == 1]
                both = {n["rank"]: n["index"] for n in mine if n["world"] == 2}
                assert both[0] + both[1] == alone
    # One config, one result, to what the order of a sum can change (and Adam makes more of).
    for seed in (0, 1):
        records = [r for _, r in result_jsons(tmp_path) if r["seed"] == seed]
        one, two = sorted(records, key=lambda r: r["config"]["trainer"]["devices"])
        assert one["key"] != two["key"]
        assert one["data"] == two["data"]
        for name, epochs in (("train/loss", (1, 2)), ("val/loss", (0, 1, 2))):
            values = [[r["curve"][epoch][name] for epoch in epochs] for r in (one, two)]
            assert values[0] == pytest.approx(values[1], rel=2e-3)


def _hang(job, senders, ends):
    multiprocessing.parent_process()
    import os

    os.setpgid(0, 0)
    time.sleep(600)


def test_a_job_that_takes_longer_than_it_may_is_ended(outputs, monkeypatch):
    monkeypatch.setattr(launching, "_work", _hang)
    started = time.monotonic()
    done = run_here(*TINY, *FEW, "timeout=1")
    assert (done.status, done.error) == ("failed", "no end after timeout=1.0 s")
    assert time.monotonic() - started < 120


def test_a_folder_has_one_run_at_a_time_and_a_dead_holder_holds_nothing(tmp_path):
    lock = Lock(tmp_path)
    with pytest.raises(Held, match="process"):
        Lock(tmp_path)
    lock.release()
    Lock(tmp_path).release()
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    holder = context.Process(target=_hold, args=(tmp_path, sender))
    holder.start()
    assert receiver.recv() == "held"
    with pytest.raises(Held, match=f"process {holder.pid} on"):
        Lock(tmp_path)
    holder.kill()
    holder.join()
    Lock(tmp_path).release()


def _hold(folder, sender):
    lock = Lock(folder)
    sender.send("held")
    time.sleep(600)
    lock.release()


def test_a_run_at_work_elsewhere_a_failed_one_and_a_torn_record(outputs, monkeypatch):
    words = (*TINY, *FEW, "freeze_depth=99")
    job = Job(composed(*words), CHOICES, list(words), retry=False)
    failed = execute(job)
    assert failed.status == "failed"
    assert not failed.before
    again = execute(job)
    assert (again.before, again.error) == (True, failed.error)
    retried = execute(Job(composed(*words), CHOICES, list(words), retry=True))
    assert (retried.before, retried.error) == (False, failed.error)
    lock = Lock(Path(failed.folder))
    elsewhere = execute(job)
    assert elsewhere.status == "elsewhere"
    assert elsewhere.error.startswith("process ")
    lock.release()
    path = Path(failed.folder) / "result.json"
    path.write_bytes(path.read_bytes()[:-100])
    assert not execute(job).before


def test_a_record_cut_at_any_byte_or_changed_counts_for_nothing_and_is_named(tmp_path, capsys):
    store.write(tmp_path, {"schema": 1, "status": "completed", "final": {"val/acc": 0.5}})
    path = tmp_path / "result.json"
    whole = path.read_bytes()
    assert store.read(tmp_path).final == {"val/acc": 0.5}
    for size in range(len(whole) - 1):  # the last byte ends the line, and is not the record's
        path.write_bytes(whole[:size])
        store._say.cache_clear()
        assert store.read(tmp_path) is None
        assert str(path) in capsys.readouterr().err
    path.write_bytes(whole.replace(b"0.5", b"0.6"))
    assert store.read(tmp_path) is None
    assert "not what was written" in capsys.readouterr().err
    path.write_bytes(whole)
    assert store.read(tmp_path) is not None


@pytest.mark.parametrize(
    ("asked", "accelerator", "count"),
    [(2, "cpu", 2), ("3", "cpu", 3), ([0], "gpu", 1), ("0,1", "gpu", 2), ("auto", "cpu", 1)],
)
def test_devices_are_counted_as_lightning_does(asked, accelerator, count):
    assert devices({"devices": asked, "accelerator": accelerator}) == count


@pytest.mark.parametrize("asked", [0, -3, "two", None])
def test_what_is_no_number_of_devices_is_refused(outputs, asked):
    config = composed(*TINY, *FEW)
    config["trainer"]["devices"] = asked
    done = launching.launch(Job(config, CHOICES, []))
    assert f"trainer.devices={asked} is not a number of devices" in done.error


def test_signals_from_outside_interrupt_and_bugs_fail():
    assert from_exit_code(1, -9) == Outcome(
        *("interrupted", None, None, "the process of rank 1 was ended by SIGKILL; out of memory?"),
        signal=9,
        violent=True,
    )
    assert from_exit_code(0, -15).code == 143
    assert (from_exit_code(0, -11).status, from_exit_code(0, -11).code) == ("failed", 1)
    assert (from_exit_code(0, 5).status, from_exit_code(0, 5).error) == (
        *("failed", "the process of rank 0 ended with exit code 5"),
    )


def test_the_headline_counts_what_is_done_and_estimates_the_rest(outputs):
    configs = [composed(*TINY, *FEW, f"seed={seed}") for seed in range(4)]
    jobs = [Job(config, CHOICES, []) for config in configs]
    assert headline(jobs, 1) == "4 jobs, 0 of them done"
    folder = outputs / "runs" / "shapes" / "timm-finetune-0"
    folder.mkdir(parents=True)
    record = {"schema": 1, "status": "completed", "config": configs[0], "cost": {"seconds": 600.0}}
    store.write(folder, record)
    assert headline(jobs, 1).endswith("1 of them done; 30 min for the others, if they take as long")
    assert headline(jobs, 2).endswith("20 min for the others, if they take as long")
