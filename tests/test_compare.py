"""A comparison of one's own pictures: what fits the budget, who stands in, what is kept."""

import html
import json
import re
import shlex
import signal

import pytest

from clipbench import compare
from clipbench.core.config.instantiate import build
from clipbench.core.errors import UserError
from clipbench.reporting.page import page as page_module
from clipbench.sweeps import budget, candidate_models, comparison, launcher
from clipbench.sweeps.budget import Training
from tests.conftest import ODD, composed, result_jsons


def training(model, wanted=10, around=10.0, pace=23.0):
    """100 + 45 / 3 pictures an epoch at 23 a second: 5 s, and a margin."""
    return Training(model, wanted, around, images=100, val_images=45, pace=pace)


def test_epochs_are_those_that_fit():
    one = training("a")
    assert one.epoch == pytest.approx(5 * budget.MARGIN)
    assert one.seconds(10) == pytest.approx(60 * budget.MARGIN)
    assert one.fitting(1e6) == 10
    assert one.fitting(60 * budget.MARGIN - 0.01) == 9
    assert one.fitting(25 * budget.MARGIN + 0.01) == 3
    assert one.fitting(24 * budget.MARGIN) == 0  # two, of which nothing can be said
    assert training("a", wanted=2).fitting(24 * budget.MARGIN) == 2
    assert one.fitting(-5) == 0


def test_what_one_model_does_not_need_is_the_next_ones():
    slow, quick = training("slow", pace=2.3), training("quick", around=1.0, pace=230.0)
    found = budget.shared([slow, quick], 200.0)
    assert found["quick"][0] == 10
    rest = 200.0 - quick.seconds(10)
    assert found["slow"] == (slow.fitting(rest), pytest.approx(rest))
    assert found["slow"][0] > slow.fitting(100.0)
    assert budget.shared([slow, quick], -1.0) == {"quick": (0, 0.0), "slow": (0, 0.0)}


def test_stand_ins_are_named_and_nothing_is_claimed(monkeypatch):
    here = {"resnet50", "clip_vitb32"}
    monkeypatch.setattr(candidate_models, "_there", lambda name: name in here)
    assert candidate_models.of("auto") == candidate_models.Candidates(
        ["clip_vitb32", "resnet50"], None
    )
    here.remove("clip_vitb32")
    found = candidate_models.of("auto")
    assert found.models == ["clip_tiny", "resnet50"]
    assert found.notice.startswith("Stand-ins: clip_tiny (a small CLIP, pretrained on drawings) in")
    assert found.notice.endswith("says nothing about CLIP.")
    here.clear()
    assert candidate_models.of("auto").models == ["clip_tiny", "resnet_tiny"]
    here.add("efficientnet_lite0")
    assert candidate_models.of("auto").models == ["clip_tiny", "efficientnet_lite0"]
    assert candidate_models.of("auto").notice.endswith("says nothing about CLIP or ResNet50.")
    assert candidate_models.of("clip_vitl14,timm").models == ["clip_vitl14", "timm"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["budget=5"], "data=FOLDER is missing"),
        (["data=flowers101"], "is neither a folder nor a dataset; did you mean flowers102"),
        (["data=shapes", "budget=soon"], "budget=soon is not a number of minutes"),
        (["data=flickr8k"], "flickr8k has captions but no classes"),
        (["data=shapes", "dataset.subset=1"], "needs two classes or more"),
    ],
)
def test_what_is_typed_is_looked_at_first(words, said, outputs):
    with pytest.raises(UserError, match=said):
        compare.compare(words)
    assert not outputs.exists()


@pytest.fixture
def photos(tmp_path):
    """Two classes of shapes in a folder with a name that has to be quoted."""
    data = build(composed("dataset.counts={train: 16, val: 1, test: 1, test_ood: 1}")["dataset"])
    data.prepare(0)
    split, home = data.splits["train"], tmp_path / ODD
    for i, label in enumerate(split.labels.tolist()):
        if label < 2:
            folder = home / data.classes[label].replace(" ", "_")
            folder.mkdir(parents=True, exist_ok=True)
            split.image(i).save(folder / f"{i:03}.png")
    return home


def test_a_folder_too_high_is_refused_once_with_the_one_that_is_meant(photos, outputs):
    word = shlex.quote(f"dataset.root={photos}")
    with pytest.raises(UserError, match=f"Use {re.escape(word)}$"):
        compare.compare([f"data={photos.parent}"])
    assert not outputs.exists()


@pytest.fixture
def quiet_signals():
    """Handlers and the launcher's own note as they were."""
    kept = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    launcher.stop.signal = None
    for number, handler in kept.items():
        signal.signal(number, handler)


def test_a_comparison_that_the_budget_ends_goes_on_with_the_same_command(
    photos, outputs, monkeypatch, capsys, quiet_signals
):
    words = [f"data={photos}", "models=clip_tiny,resnet_tiny", "budget=9", "trainer=cpu"]
    words += ["logger=none", "epochs=2"]

    def over(self, model, around):
        self._end()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(comparison.Comparison, "_measured", over)
        assert compare.compare(words) == 0
    assert "the same command again goes on where it was" in capsys.readouterr().out
    (sweep,) = (outputs / "sweeps").iterdir()
    (page,) = (outputs / "reports").iterdir()
    early = page.read_text()
    assert "resnet_tiny, fine-tuned: the end came before it began." in early
    assert f"On {ODD}, take " in html.unescape(early)
    launcher.stop.signal = None

    before = {folder: record for folder, record in result_jsons(outputs)}
    assert len(before) == 3  # zero-shot, and a probe of each
    assert compare.compare(words) == 0
    said = capsys.readouterr().out
    assert said.count("(completed before; nothing was run)") == 3
    plan = page_module.plan(sweep)
    assert plan["epochs"] == {"clip_tiny": None, "resnet_tiny": None}
    assert plan["left"] == plan["dropped"] == plan["shortened"] == {}
    listed = [json.loads(line) for line in (sweep / "jobs.jsonl").read_text().splitlines()]
    done = {(job["overrides"][0], job["overrides"][1]) for job in listed}
    assert len(done) == 5
    after = dict(result_jsons(outputs))
    for folder, record in before.items():
        assert after[folder] == record
    tuned = [r for r in after.values() if r["strategy"] == "finetune" and r["epochs"] == 2]
    assert {r["model"] for r in tuned} == {"clip_tiny", "resnet_tiny"}
    late = page.read_text()
    assert late.index("Stand-ins: clip_tiny is a small CLIP") < late.index("<h1>")
    assert "came before it began" not in late
