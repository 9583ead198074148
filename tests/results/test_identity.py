"""What a run is, from outside: two folders are two runs, by any launcher, and what reuse says."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from pytorch_lightning import Trainer

from clipbench.core import environment
from clipbench.core.errors import UserError
from clipbench.core.jobs import Job
from clipbench.loading import leaks
from clipbench.loading.split import Split
from clipbench.loading.validation import seen
from clipbench.results import identity, store
from clipbench.results.record import RunRecord
from clipbench.sweeps.launcher import launch
from clipbench.training import resume
from tests.conftest import FEW, TINY, clipbench, composed, result_json, result_jsons
from tests.faults.planted import QUICK, image_folder
from tests.test_run import CHOICES, run_here


def test_two_folders_of_equal_names_are_two_runs_in_a_sweep_and_by_any_launcher(tmp_path):
    for name, seed in (("one", 1), ("other", 2)):
        image_folder(tmp_path / name, seed=seed)
    roots = ",".join(str(tmp_path / name) for name in ("one", "other"))
    words = ("-m", *QUICK, "dataset=imagefolder", f"dataset.root={roots}", "epochs=2", "lr=1e-2")
    parallel = ("hydra/launcher=parallel", "hydra.launcher.at_once=2")
    found = []
    for number, more in enumerate(((), parallel)):
        outputs = tmp_path / f"outputs-{number}"
        env = {"CLIPBENCH_OUTPUTS": str(outputs), "OMP_NUM_THREADS": "2"}
        done = clipbench(*words, *more, env=env, fresh=True)
        assert done.returncode == 0, done.stderr
        records = {record["key"]: record for _, record in result_jsons(outputs)}
        assert len(records) == 2
        (path,) = (p for p in outputs.glob("tables/sweep_*.csv") if "cost" not in p.name)
        table = pd.read_csv(path, dtype={"key": str}).set_index("key")
        for key, record in records.items():
            assert table.loc[key, "test/acc"] == record["final"]["test/acc"]
            assert record["environment"]["threads"] == min(2, environment.cores())
        assert table["data"].nunique() == 2
        found.append({key: (r["final"], r["curve"], r["data"]) for key, r in records.items()})
    assert found[0] == found[1]


@pytest.mark.parametrize("accelerator", ["cpu", "auto"])
def test_what_a_run_is_on_is_what_lightning_comes_to(accelerator):
    words = ("32", 32, "32-true", "16", "16-mixed", "bf16", "bf16-mixed", "64", "bf16-true")
    for precision in words:
        node = {"accelerator": accelerator, "precision": precision, "num_nodes": 1}
        plain = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        built = Trainer(accelerator=accelerator, devices=1, precision=precision, **plain)
        assert environment.resolved(node, 1) == {
            "accelerator": built.strategy.root_device.type,
            "devices": built.num_devices,
            "precision": built.precision,
        }
    assert environment.resolved({**node, "num_nodes": 2}, 8)["devices"] == 4


def test_a_rank_has_its_part_of_the_cores_however_many_jobs_there_are(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(environment, "cores", lambda: 8)
    try:
        for ranks, threads in ((1, 8), (3, 2), (9, 1)):
            torch.set_num_threads(16)
            environment.share_threads(ranks)
            assert environment.threads() == threads
    finally:
        torch.set_num_threads(before)


def test_a_reused_record_says_how_it_was_made_and_may_be_made_again(outputs):
    words = (*TINY, *FEW, "dataset.subset=3", "logger=none", "callbacks=none")
    first = run_here(*words)
    assert (first.before, first.note) == (False, None)
    again = run_here(*words)
    assert (again.before, again.note) == (True, None)
    folder = Path(first.folder)
    record = result_json(folder)
    record["versions"]["pillow"] = "1.0"
    record["environment"]["threads"] = 64
    store.write(folder, record)
    reused = run_here(*words)
    here = environment.versions()["pillow"]
    assert reused.before
    assert reused.note == (
        f"made with pillow 1.0 ({here} here), 64 threads (1 here); retry=versions runs it again"
    )
    # What trained the same is reused in part, and says so in the record of the other.
    other = result_json(Path(run_here(*words, "alphas=[0.5]").folder))
    assert other["weights_from"] is None or any("pillow 1.0" in w for w in other["warnings"])
    anew = run_here(*words, "retry=versions")
    assert (anew.before, anew.key) == (False, first.key)
    assert result_json(folder)["versions"]["pillow"] == here
    assert run_here(*words, "retry=versions").before
    # The help says of null: begin anew, a completed one too; twice in one command is once.
    job = Job(composed(*words, "ckpt.resume=null"), CHOICES, list(words))
    assert not launch(job).before
    assert launch(job).before
    assert not launch(replace(job, asked=job.asked + 1e6)).before
    wrong = run_here(*words, "retry=version")
    assert wrong.error == "retry=version: is not one of failed, versions. Use one, or null."


def test_an_older_record_is_read_and_is_the_same_as_none_that_knows_its_images(runs):
    _, written = runs["timm"]
    record, older = RunRecord.from_json(written), json.loads(json.dumps(written))
    assert identity.current(record)
    for split in older["data"].values():
        del split["content"]
    older = RunRecord.from_json(older)
    assert not identity.current(older)
    new, old = record.data["test"], older.data["test"]
    assert identity.seen(old) == identity.seen(replace(old)) != identity.seen(new)
    assert identity.alike(old, new)
    assert not identity.alike(new, replace(new, content="0" * 64))


def test_another_run_s_checkpoint_is_refused_by_what_differs(runs):
    _, record = runs["timm"]
    config = record["config"]
    other = {
        "config": identity.identity(config)["config"],
        "data": {name: split["sha256"] for name, split in record["data"].items()},
        "content": {name: split["content"] for name, split in record["data"].items()} | {"val": ""},
    }
    other["config"]["trainer"] |= record["environment"]
    assert list(resume._differing(RunRecord.from_json(record), other)) == [
        "the images of val are not those here"
    ]


def _split(files: dict[str, bytes], root: Path) -> Split:
    root.mkdir()
    for name, content in files.items():
        (root / name).write_bytes(content)
    labels = np.zeros(len(files), np.int64)
    return Split([*files], labels, [root / name for name in files], len(files))


def test_leaks_are_of_all_bytes_and_of_every_split_that_is_evaluated(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (160, 160, 3), np.uint8)
    image = tmp_path / "image.jpg"
    Image.fromarray(pixels).save(image, quality=95)
    whole = image.read_bytes()
    assert len(whole) > 3 * 8192
    amid = bytearray(whole)
    amid[len(whole) // 2] ^= 1  # size and both ends are as they were
    plain = {name: whole[:-2] + bytes([n]) + whole[-2:] for n, name in enumerate("abcdef")}
    splits = {
        "train": _split({"0": plain["a"], "1": whole, "bad": b""}, tmp_path / "train"),
        "val": _split({"0": plain["b"], "2": bytes(amid), "bad": b""}, tmp_path / "val"),
        "test": _split({"0": plain["c"], "3": plain["b"]}, tmp_path / "test"),
        "test_ood": _split({"0": plain["c"]}, tmp_path / "ood"),
        "mix": _split({"0": plain["a"], "1": plain["d"]}, tmp_path / "mix"),
        "retention": _split({"0": plain["d"], "1": plain["b"]}, tmp_path / "retention"),
    }
    looked, bad = seen(splits, tmp_path, None)
    assert len(bad) == 2
    assert np.array_equal(looked["train"].digests[1], looked["val"].digests[1])
    assert leaks.leaks(looked) == {
        ("mix", "retention"): [("1", "0")],
        ("val", "test"): [("0", "3")],
    }
    said = "1 image of retention is byte for byte in mix too"
    with pytest.raises(UserError, match=said) as refusal:
        leaks.check(looked, "stop")
    assert refusal.value.details == ["mix: 1 = retention: 0", "val: 0 = test: 3"]
    assert leaks.check(looked, "allow")[0] == f"leaks=allow: {said}"
    with pytest.raises(UserError, match="leaks=yes: is not one of stop, allow"):
        leaks.check(looked, "yes")


def test_the_content_of_a_split_is_of_its_images_wherever_and_in_whatever_order(tmp_path):
    root = image_folder(tmp_path / "a")
    files = sorted(p.relative_to(root).as_posix() for p in root.rglob("*.png"))

    def split(root, names, **more):
        labels = np.array([name.split("/")[1] == "light" for name in names]).astype(np.int64)
        made = Split(names, labels, [root / name for name in names], len(names), **more)
        return seen({"train": made}, root, None)[0]["train"]

    content = split(root, files).content()
    root = root.rename(tmp_path / "b")
    assert split(root, files).content() == content
    assert split(root, files[::-1]).content() == content
    captions = [["a caption"] for _ in files]
    others = [
        split(root, files, captions=captions),
        split(root, files, captions=[["another"], *captions[1:]]),
        split(root, files, groups={"place": np.arange(len(files))}),
        split(root, files[1:]),
    ]
    assert len({content, *(other.content() for other in others)}) == 5
    # A run's own prompts are none of the dataset's captions.
    assert split(root, files, captions=captions, prompted=True).content() == content
    for one, other in itertools.pairwise(others):
        assert one.take(np.array([3, 1])).content() != other.take(np.array([1])).content()
