"""A run that was stopped goes on to the bit, from what is whole and its own, or says why not."""

import dataclasses
import errno
import gc
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from clipbench.core import distributed, files
from clipbench.core.errors import UserError
from clipbench.loading.samplers import KeyedSampler, RankSampler, UniqueSampler
from clipbench.results import store
from clipbench.training import checkpoint_io, resume
from clipbench.training.callbacks import Recorder
from clipbench.training.resume import ResumePoint, newest
from clipbench.training.robustness.replay import Zipped
from tests.conftest import FEW, clipbench, result_jsons
from tests.faults import resume as campaign
from tests.faults.resume import Killed, left, same, stop
from tests.training.test_retrieval_run import photos  # noqa: F401

WORDS = (*campaign.WORDS, "steps=7")  # an epoch of four, and of another three


def _killed():
    for found in gc.get_objects():  # as if a run took longer than they keep things to themselves
        if type(found) is SummaryWriter:
            found.flush()
    raise Killed


def cut(outputs, step, place, *words, base=WORDS):
    """Begin, or go on, and be killed in this process; the checkpoints that are left."""
    with pytest.MonkeyPatch.context() as patch:
        stop(patch.setattr, step, place, _killed)
        with pytest.raises(Killed):
            campaign.here(outputs, (*base, *words))
    return sorted(p.name for p in outputs.glob("runs/*/*/checkpoints/*"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that was never stopped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIPBENCH_OUTPUTS", "")  # to be put back
        outputs = tmp_path_factory.mktemp("whole")
        assert campaign.here(outputs, WORDS).status == "completed"
        return left(outputs)


@pytest.fixture
def terminated(tmp_path, monkeypatch):
    """An outputs root with the run ended by SIGTERM in the midst of its second step."""
    plain = Recorder.on_train_batch_end

    def sends(self, trainer, *rest):
        plain(self, trainer, *rest)
        if trainer.global_step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setenv("CLIPBENCH_OUTPUTS", "")
    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "on_train_batch_end", sends)
        ended = campaign.here(tmp_path / "first", WORDS)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert (ended.status, ended.code) == ("interrupted", 128 + signal.SIGTERM)
    assert ended.error == "SIGTERM after step 2; the same command goes on from there"
    return tmp_path / "first"


def test_a_run_whose_loader_was_ended_first_is_interrupted_and_not_failed(tmp_path, monkeypatch):
    """A cluster tells every process of a job, at once."""

    def ended(self, trainer, *rest):
        if trainer.global_step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Terminated.")

    monkeypatch.setenv("CLIPBENCH_OUTPUTS", "")
    monkeypatch.setattr(Recorder, "on_train_batch_end", ended)
    found = campaign.here(tmp_path, WORDS)
    assert (found.status, found.code) == ("interrupted", 128 + signal.SIGTERM)
    assert found.error.startswith("SIGTERM in the step after step 2; the same command goes on from")


def test_a_run_stopped_again_and_again_is_the_run_that_never_was(whole, terminated, tmp_path):
    """By SIGTERM, between epochs, while it saves, after the last; once it goes on elsewhere."""
    (run,) = terminated.glob("runs/*/*")
    moved = tmp_path / "second"
    went_on = f"ckpt.resume={run}"
    other = campaign.here(moved, (*WORDS, "lr=1e-3", went_on))
    assert other.status == "failed"
    assert f"ckpt.resume={run} is another run: lr=0.01 there and 0.001 here" in other.error
    assert "model.pretrained= for its weights alone" in other.error
    shutil.rmtree(moved)
    kept = cut(moved, 4, "step", went_on)
    assert kept == ["best.ckpt", "last.ckpt", "resume-00000003.ckpt", "resume-00000004.ckpt"]
    kept = cut(moved, 6, "saving", went_on)
    assert kept[0].startswith(files.TEMPORARY)
    assert kept[-1] == "resume-00000005.ckpt"
    assert cut(moved, 7, "step", went_on)[-1] == "resume-00000007.ckpt"
    done = campaign.here(moved, (*WORDS, went_on))
    assert done.status == "completed", done.error
    found = left(moved)
    assert found["files"] == ["best.ckpt", "last.ckpt"]
    asked = found["record"].replace(f'"resume": "{run}"', '"resume": "auto"')
    assert same(whole, {**found, "record": asked})


def test_what_lightning_alone_would_do_is_seen(whole, terminated, monkeypatch):
    campaign.stock(monkeypatch.setattr)
    assert campaign.here(terminated, WORDS).status == "completed"
    assert not same(whole["weights"], left(terminated)["weights"])


MIXED = (
    *("model=clip_tiny", *FEW, "dataset.subset=4", "dataset.shots=null", "batch_size=16"),
    *("mix=shapes", "mix.subset=4", "mix.shots=2", "mix.world_seed=1", "epochs=9", "lr=1e-2"),
    *("warmup=0", "patience=2", "monitor=loss", "ckpt.every_steps=4"),
    "trainer.log_every_n_steps=1",
)


def told(outputs):
    """What TensorBoard shows of the only run: of each curve its points."""
    ((folder, _),) = result_jsons(outputs)
    events = EventAccumulator(str(folder)).Reload()
    names = events.Tags()["scalars"]
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in names}


def test_a_mix_patience_and_tensorboard_go_on_as_if_nothing_had_been(tmp_path, monkeypatch):
    """Killed in the epochs after the best one, which patience counts, and after steps told of."""
    monkeypatch.setenv("CLIPBENCH_OUTPUTS", "")
    # A job is a process of its own; here the tenth file of one would be read before the ninth.
    writers = event_file_writer.AtomicCounter(0)
    monkeypatch.setattr(event_file_writer, "_global_uid", writers)
    assert campaign.here(tmp_path / "whole", MIXED).status == "completed"
    whole = left(tmp_path / "whole")
    taken = json.loads(whole["record"])["steps"]["taken"]
    for step in (taken - 4, taken - 1):
        cut(tmp_path / "cut", step, "before", base=MIXED)
    assert campaign.here(tmp_path / "cut", MIXED).status == "completed"
    assert same(whole, left(tmp_path / "cut"))
    curves = told(tmp_path / "cut")
    assert len(curves["train/loss_step"]) == taken
    assert curves == told(tmp_path / "whole")


def test_a_run_on_captions_goes_on_to_the_bit(tmp_path, photos, monkeypatch):  # noqa: F811
    monkeypatch.setenv("CLIPBENCH_OUTPUTS", "")
    words = (
        *("dataset=captions", f"dataset.file={photos}", "model=clip_tiny", "strategy=contrastive"),
        *("trainer=cpu", "logger=none", "callbacks=none", "batch_size=10", "ema=0.5"),
        *("epochs=4", "augment=crop_flip", "ckpt.every_steps=3"),
    )
    assert campaign.here(tmp_path / "whole", words).status == "completed"
    whole = left(tmp_path / "whole")
    cut(tmp_path / "cut", 6, "before", base=words)
    assert campaign.here(tmp_path / "cut", words).status == "completed"
    assert same(whole, left(tmp_path / "cut"))


@pytest.fixture
def points(tmp_path):
    """A run's folder with two checkpoints."""
    for step in (3, 4):
        point = ResumePoint("abc", step, 0, step, False, 1.0)
        content = {"weights": torch.full((3000,), step)}
        checkpoint_io.write(point.path(tmp_path), content, dataclasses.asdict(point))
    return tmp_path


def test_a_checkpoint_that_is_not_what_was_written_is_passed_over(points, capsys):
    assert newest(points, "abc").step == 4
    last = points / "checkpoints" / "resume-00000004.ckpt"
    content = last.read_bytes()
    assert torch.load(last, weights_only=True)["weights"][0] == 4, "torch reads it as any"
    for place in range(0, len(content), 101):
        rotted = bytearray(content)
        rotted[place] ^= 1
        for bad in (rotted, content[:place]):
            last.write_bytes(bad)
            assert newest(points, "abc").step == 3
    said = " ".join(capsys.readouterr().out.split())
    assert "resume-00000004.ckpt is passed over: it is not" in said
    last.write_bytes(content)
    assert newest(points, "another") is None
    said = " ".join(capsys.readouterr().out.split())
    assert "it is of another run, abc" in said
    assert "no checkpoint is left to go on from; the run begins anew" in said


def _full(*args):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_no_room_and_no_writing_are_said_and_leave_what_was(points, monkeypatch):
    path = points / "checkpoints" / "resume-00000004.ckpt"
    before = path.read_bytes()

    def refused():
        with pytest.raises(UserError) as caught:
            checkpoint_io.write(path, {"weights": torch.zeros(10**6)}, {"key": "abc"})
        assert str(path) in str(caught.value)
        assert caught.value.status == "interrupted", "so that it is gone on with"
        assert path.read_bytes() == before
        assert not list(path.parent.glob(f"{files.TEMPORARY}*"))
        return str(caught.value)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda p: shutil._ntuple_diskusage(9, 9, 5 * 10**6))
        assert "needs 8 MB, and 5 MB are free" in refused()
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", _full)
        assert "could not be written: No space left on device" in refused()
    monkeypatch.setattr(files.tempfile, "NamedTemporaryFile", _denied)
    assert "could not be written: Permission denied" in refused()


def _denied(*args, **kwargs):
    raise PermissionError(errno.EACCES, "Permission denied")


@pytest.fixture
def disk(tmp_path):
    """A folder that is a small disk, and what makes that read-only."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*words):
        command = ["mount", *words, str(folder)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    if os.geteuid() or not mount("-t", "tmpfs", "-o", "size=1m", "tmpfs"):
        pytest.skip("only root mounts a small disk")
    yield folder, lambda: mount("-o", "remount,ro")
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_fills_while_it_is_written_to(disk, monkeypatch):
    folder, _ = disk
    monkeypatch.setattr(checkpoint_io, "_room", lambda *args: None)
    path = folder / "x.ckpt"
    checkpoint_io.write(path, {"weights": torch.zeros(1000)}, {})
    with pytest.raises(UserError, match="could not be written: No space left on device"):
        checkpoint_io.write(path, {"weights": torch.zeros(10**6)}, {})
    assert checkpoint_io.verified(path) == {}
    store.write(folder, {"schema": 1, "status": "interrupted"})
    with pytest.raises(UserError, match="could not be written: No space left on device"):
        store.write(folder, {"schema": 1, "status": "completed", "log": "x" * 10**7})
    assert store.read(folder).status == "interrupted"
    assert sorted(p.name for p in folder.iterdir()) == ["result.json", "x.ckpt"]


def test_a_disk_that_is_read_only_is_said_in_a_line_with_its_path(disk):
    folder, made_read_only = disk
    path = folder / "x.ckpt"
    checkpoint_io.write(path, {"weights": torch.zeros(1000)}, {})
    store.write(folder, {"schema": 1, "status": "interrupted"})
    assert made_read_only()
    writes = (
        lambda: checkpoint_io.write(path, {"weights": torch.zeros(10)}, {}),
        lambda: store.write(folder, {"schema": 1, "status": "completed"}),
    )
    for name, write in zip(("x.ckpt", "result.json"), writes, strict=True):
        with pytest.raises(
            UserError, match=f"{folder}/{name} could not be written: Read-only"
        ) as no:
            write()
        assert no.value.status == "interrupted"
    assert checkpoint_io.verified(path) == {}
    assert store.read(folder).status == "interrupted"
    refused = campaign.here(folder, WORDS)
    assert refused.status == "failed"
    assert refused.error.startswith(f"{folder}/runs/shapes/timm-finetune-")
    assert "is not writable: Read-only file system. Make it writable, or set" in refused.error
    door = clipbench("-m", *WORDS, "seed=1,2", env={"CLIPBENCH_OUTPUTS": str(folder)})
    assert door.returncode == 1
    said = door.stderr.splitlines()[-1]
    assert said.startswith("error: [Errno 30] Read-only file system: ")
    assert f"{folder}/sweeps" in said
    assert "Traceback" not in door.stderr


def test_a_place_to_go_on_from_that_is_none(tmp_path):
    with pytest.raises(UserError, match="has no checkpoints/resume-"):
        resume.bring(str(tmp_path / "nowhere"), Path(tmp_path), "abc", {})


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_goes_on_at_a_batch_whoever_draws_it(monkeypatch, workers):
    """Evenly, weighted, of unlike classes, one rank's share, with another dataset mixed in."""
    monkeypatch.setattr(distributed.here, "world", 2)
    monkeypatch.setattr(distributed.here, "rank", 1)
    labels = np.arange(22) % 5
    orders = [
        lambda: KeyedSampler(22, 3, kept=20),
        lambda: KeyedSampler(22, 3, weights=labels + 1.0),
        lambda: UniqueSampler(labels, 3, batch_size=4),
    ]

    def loader(order, size=4):
        share = RankSampler(order, size)
        return DataLoader(
            Rows(), size // 2, sampler=share, num_workers=workers, collate_fn=lambda rows: rows
        )

    def mixed():
        """The other dataset has three batches: one is in the midst of the second pass."""
        return Zipped(
            DataLoader(Rows(), 2, sampler=RankSampler(KeyedSampler(22, 3), 4), collate_fn=_named),
            loader(KeyedSampler(6, 5), 2),
        )

    for make in [*(lambda o=order: loader(o()) for order in orders), mixed]:
        whole = make()
        whole.sampler.set_epoch(2)
        expected = list(whole)
        for batch in (1, 4):
            part = make()
            part.sampler.begin(2, 4 * batch)
            assert len(part) == len(expected), "the Trainer counts the epoch's batches"
            part.sampler.set_epoch(2)  # as Lightning does, late
            assert list(part) == expected[batch:]
            part.sampler.set_epoch(3)
            whole.sampler.set_epoch(3)
            assert list(part) == list(whole)
            whole.sampler.set_epoch(2)


def _named(rows):
    return {"own": rows}


class Rows:
    """Rows that are their own keys."""

    def __len__(self):
        return 22

    def __getitem__(self, key):
        return key
