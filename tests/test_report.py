"""The page that answers: its tests are statsmodels', its rules are kept, its text is escaped."""

import json
import os
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from clipbench import report
from clipbench.core.errors import UserError
from clipbench.metrics.intervals import Interval
from clipbench.reporting.page import answers, disagreements, page, untried, verdict
from clipbench.results import store
from clipbench.results.record import RunRecord

NASTY = "<script>alert('1')</script> & $x_1$ {{ 7 * 7 }}"
N = 300


class Page(HTMLParser):
    """Tags with their attributes, and the text between them in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self._within = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("style", "title"):
            self._within.append(tag)

    def handle_endtag(self, tag):
        if self._within and self._within[-1] == tag:
            self._within.pop()

    def handle_data(self, data):
        if data.strip() and not self._within:
            self.text.append(data.strip())


def made(
    home, model, strategy, accuracy, *, val, seed=0, seconds=60.0, names=("cat", "dog"), **more
):
    """A run's folder and record, with predictions that are right as often as asked."""
    folder = home / f"{model}-{strategy}-{seed}"
    folder.mkdir()
    rng = np.random.default_rng([seed, len(model), len(strategy)])
    labels = np.arange(N) % 2
    wrong = np.isin(np.arange(N), rng.permutation(N)[: round(N * (1 - accuracy))])
    said = np.where(wrong, 1 - labels, labels)
    rows = {"split": "test", "id": [f"{i}{NASTY}.png" for i in range(N)], "label": labels}
    rows |= {"prediction": said, "probability": rng.uniform(0.5, 1, N)}
    pd.DataFrame(rows).to_parquet(folder / "predictions.parquet")
    table = {"split": "test", "label": [0, 1], "class": names, "n": N // 2}
    pd.DataFrame(table).to_csv(folder / "per_class.csv", index=False)
    split = {"n": N, "expected": N, "sha256": "0" * 64}
    trains = strategy == "finetune"
    groups = {"logit scale": {}} if model.startswith("clip") else {}
    record = {
        **{"schema": 1, "key": f"{seed:08}", "status": "completed", "model": model},
        **{"dataset": "shapes", "strategy": strategy, "lr": 1e-3, "batch_size": 8, "epochs": 1},
        **{"freeze_depth": 0, "seed": seed, "versions": {"clipbench": "0"}, "git": None},
        "config": {"dataset": {"_target_": "NoSuch", "shots": None}, "alphas": None},
        "data": {"test": split, "val": split},
        "steps": {"total": 10 * trains},
        "parameters": {"total": 2_000_000, "trainable": 10, "groups": groups},
        "varies": trains,
        "curve": [{"epoch": 0, "val/acc": None}, {"epoch": 1, "val/acc": val}],
        "selection": {"metric": "val/acc", "epoch": 1, "alpha": None},
        "final": {"val/acc": val, "test/acc": float((said == labels).mean()), "test/ece": 0.1},
        "cost": {"seconds": seconds, "peak_memory_bytes": 1e9, "images_per_second": None},
        **more,
    }
    store.write(folder, record)
    return folder, store.read(folder)


@pytest.fixture
def three(tmp_path):
    """Two that do not differ, of which one is quick, and one that is clearly worse."""
    return [
        made(tmp_path, "resnet50", "finetune", 0.95, val=0.96, seconds=600.0),
        made(tmp_path, "clip_vitb32", "linear_probe", 0.94, val=0.95, seconds=30.0),
        made(tmp_path, "clip_vitb32", "zero_shot", 0.7, val=0.7, seconds=20.0),
    ]


def right(run):
    rows = pd.read_parquet(run[0] / "predictions.parquet")
    return (rows["prediction"] == rows["label"]).to_numpy()


def test_the_tests_are_statsmodels(three):
    (answer,) = answers.answers(three)
    names = [one.name for one in answer.candidates]
    assert names == ["resnet50, fine-tuned", "clip_vitb32, linear probe", "clip_vitb32, zero-shot"]
    raw = []
    for first, second in ((0, 1), (0, 2), (1, 2)):
        table = pd.crosstab(right(three[first]), right(three[second]))
        raw.append(mcnemar(table, exact=True).pvalue)
    adjusted = multipletests(raw, method="holm")[1]
    assert [one.p for one in answer.compared.values()] == pytest.approx(adjusted)
    assert [c.name for c in answer.equals] == names[1:2]
    assert [c.name for c in answer.of_these_runs] == names[2:]  # resnet50 has but one seed
    assert not answer.worse
    assert answer.cheaper.name == names[1]
    gap = right(three[0]).mean() - right(three[1]).mean()
    assert answer.against(answer.candidates[1]).estimate == pytest.approx(gap)
    assert answer.guessing() == 0.5


def test_what_val_chose_is_not_hidden_where_test_says_otherwise(tmp_path):
    runs = [
        made(tmp_path, "resnet50", "finetune", 0.75, val=0.99),
        made(tmp_path, "clip_vitb32", "finetune", 0.95, val=0.9),
    ]
    (answer,) = answers.answers(runs)
    assert answer.leader.model == "resnet50"
    assert not answer.better
    assert not answer.equals
    (said,) = verdict.sureness(answer)
    assert said.startswith("resnet50, fine-tuned and clip_vitb32, fine-tuned (\N{MINUS SIGN}")
    assert said.endswith(f"): {verdict.REVERSIBLE}.")
    runs += [
        made(tmp_path, model, "finetune", accuracy, val=val, seed=seed)
        for model, accuracy, val in (("resnet50", 0.76, 0.99), ("clip_vitb32", 0.94, 0.9))
        for seed in (1, 2)
    ]
    (answer,) = answers.answers(runs)
    assert [c.model for c in answer.better] == ["clip_vitb32"]
    (said,) = verdict.sureness(answer)
    assert said.startswith("Val chose it, but on test clip_vitb32, fine-tuned (\N{MINUS SIGN}")


def test_one_seed_a_side_is_neither_better_nor_bold(tmp_path):
    runs = [
        made(tmp_path, "resnet50", "finetune", 0.95, val=0.96),
        made(tmp_path, "clip_vitb32", "finetune", 0.7, val=0.7),
    ]
    text = page.rendered("x", runs, [], {})
    said = " ".join(Page(text).text)
    assert verdict.REVERSIBLE in said
    assert "Better than" not in said
    assert 'class="taken"' not in text
    # Neither of these two is random: the same gap is one of the models.
    fixed = [
        made(tmp_path, model, "zero_shot", accuracy, val=accuracy)
        for model, accuracy in (("clip_rn50", 0.95), ("clip_vitb16", 0.7))
    ]
    text = page.rendered("x", fixed, [], {})
    said = " ".join(Page(text).text)
    assert "Better than clip_vitb16, zero-shot" in said
    assert verdict.REVERSIBLE not in said
    assert 'class="taken"' in text


def test_an_interval_is_read_with_two_ends(tmp_path):
    runs = [
        made(tmp_path, "clip_vitb32", "zero_shot", 0.9, val=0.9, seed=seed) for seed in (0, 1, 2)
    ]
    (answer,) = answers.answers(runs)
    said = verdict.score(answer, answer.leader)
    low, high = (100 * end for end in proportion_confint(270, N, method="wilson"))
    assert said.endswith(f"(95 % interval over images: {low:.1f} to {high:.1f})")
    assert verdict.ends(Interval(0.919, 0.91899, 0.91901, "seeds", 3)) == "91.899 to 91.901"
    assert verdict.ends(Interval(0.919, 0.919, 0.919, "seeds", 3)) == ""


def test_what_training_brought_is_said_where_there_was_a_head_before(three):
    (answer,) = answers.answers(three)
    assert not any("before any training" in line for line in verdict.costs(answer))
    three[0][1].curve[0]["val/acc"] = 0.25
    said = next(verdict.costs(answers.answers(three)[0]))
    assert said == "On val resnet50, fine-tuned has 96.0 %; before any training it had 25.0 %."
    three[0][1].selection.epoch = 0
    said = next(verdict.costs(answers.answers(three)[0]))
    assert said.startswith("No epoch of training was better on val than what resnet50")


def test_who_keeps_more_of_a_shift_is_said(tmp_path):
    runs = [
        made(tmp_path, "resnet50", "finetune", 0.95, val=0.96),
        made(tmp_path, "clip_vitb32", "finetune", 0.95, val=0.9),
    ]
    for (folder, record), accuracy in zip(runs, (0.5, 0.9), strict=True):
        rows = pd.read_parquet(folder / "predictions.parquet")
        shift = rows.assign(split="test_new", prediction=rows["label"])
        shift.loc[shift.index[: round(N * (1 - accuracy))], "prediction"] += 2
        pd.concat([rows, shift]).to_parquet(folder / "predictions.parquet")
        record.data["test_new"] = replace(record.data["test"], sha256="2" * 64)
        record.final["test_new/acc"] = accuracy
        store.write(folder, record)
    (answer,) = answers.answers(runs)
    assert not answer.better
    assert answer.sturdier("test_new").model == "clip_vitb32"
    said = list(verdict.sureness(answer))[-1]
    assert said.startswith("If images like those of test_new matter: clip_vitb32, fine-tuned has")
    assert "90.0 % there, resnet50, fine-tuned 50.0 % (\N{MINUS SIGN}40.0 points" in said
    assert said.endswith(f"; {verdict.REVERSIBLE}.")


def test_settings_and_seeds_are_told_apart(tmp_path):
    runs = [
        made(tmp_path, "resnet50", "finetune", 0.9, val=0.9, seed=seed, lr=lr)
        for lr, seeds in ((1e-3, (0, 1)), (1e-2, (2, 3)))
        for seed in seeds
    ]
    runs.append(made(tmp_path, "clip_vitb32", "zero_shot", 0.8, val=0.8))
    runs[3][1].final["val/acc"] = 0.99  # the mean of lr=1e-2 is the higher one
    (answer,) = answers.answers(runs)
    leader, other = answer.candidates
    assert leader.name == "resnet50, fine-tuned lr=0.01"
    assert (len(leader.records), leader.tried, leader.tried_seconds) == (2, 4, 240.0)
    assert answer.against(other).test == "t over images"  # both seeds have 0.9
    (alone,) = answers.answers(runs[:4])  # of one model and strategy, the settings
    assert [c.name.split()[-1] for c in alone.candidates] == ["lr=0.01", "lr=0.001"]


def test_splits_that_differ_are_never_compared(three):
    three[0][1].data["test"].sha256 = "1" * 64
    assert [len(one.candidates) for one in answers.answers(three)] == [1, 2]


def test_the_page_is_whole_by_itself_and_escapes_every_name(tmp_path):
    names = (NASTY, "dog")
    runs = [
        made(tmp_path, "resnet50", "finetune", 0.95, val=0.96, names=names, dataset=NASTY),
        made(tmp_path, "clip_vitb32", "linear_probe", 0.8, val=0.8, names=names, dataset=NASTY),
    ]
    failed = [{"overrides": [f"lr={NASTY}"], "status": "failed", "error": NASTY}]
    text = page.rendered(NASTY, runs, failed, {"dropped": {"x": NASTY}})
    found = Page(text)
    assert "<script" not in text
    assert "49" not in " ".join(found.text).split()  # no template in a name is evaluated
    assert ("html", {"lang": "en"}) in found.tags
    for tag, told in found.tags:
        assert tag not in ("script", "iframe", "object")
        for name, value in told.items():
            fragment = value is not None and value.startswith(("data:", "#"))
            assert name not in ("src", "href", "xlink:href") or fragment, (tag, told)
            assert not name.startswith("on")
        assert tag != "svg" or told["aria-label"]
    said = " ".join(found.text)
    assert said.count(NASTY) >= 4  # dataset, class, job, error
    assert "What was not tried" in said
    assert "is not shown" not in said
    ids = [told["id"] for _, told in found.tags if "id" in told]
    assert len(ids) == len(set(ids))


def test_images_are_shown_where_they_are(runs):
    """Of real runs, whose images are drawn again."""
    text = page.rendered("real", [(f, RunRecord.from_json(r)) for f, r in runs.values()], [], {})
    images = [told for tag, told in Page(text).tags if tag == "img"]
    assert 6 <= len(images) <= 3 * disagreements.SHOWN
    for told in images:
        assert told["src"].startswith("data:image/jpeg;base64,")
        assert told["alt"].startswith("an image of ")
    assert len(text) < 400_000


def test_the_first_line_says_who_stands_in(three):
    found = answers.answers(three)
    assert verdict.stand_ins({}, found) is None
    said = verdict.stand_ins({"stand_ins": "Stand-ins: x."}, found)
    assert said == "Stand-ins: x."
    first = Page(page.rendered("x", three, [], {"stand_ins": NASTY})).text[0]
    assert first == NASTY
    for _, record in three[1:]:
        record.model = "clip_tiny"
    told = Page(page.rendered("x", three, [], {})).text[0]
    assert told.startswith("Stand-ins: clip_tiny is a small CLIP")
    assert told.endswith("says nothing about CLIP or ResNet50.")


def test_what_was_not_tried_follows_from_the_runs(three):
    told = list(untried.untried(three, answers.answers(three), [], {}))
    assert any("Other seeds" in line for line in told)
    assert any("Other learning rates than 0.001" in line for line in told)
    assert any("fine-tuned, lp_ft, flyp" in line for line in told)
    three[0][1].data["test"].expected = 999
    told = list(untried.untried(three, answers.answers(three), [], {}))
    assert "test of shapes has 300 of its 999 images here." in told
    seeds = [
        (folder, replace(record, seed=n, lr=10.0**-n))
        for n, (folder, record) in enumerate(three * 2)
    ]
    told = " ".join(untried.untried(seeds, answers.answers(three), [], {}))
    assert "Other seeds" not in told
    assert "learning rates" not in told
    for _, record in three:
        record.final = {"val/mean_recall": 0.1}  # of captions
    told = " ".join(untried.untried(three, [], [], {}))
    assert "tune a CLIP: contrastive, image_only, text_only, lit (strategy=)" in told


def test_classes_and_images_that_differ_are_counted_by_hand():
    columns = {"label": [0, 0, 1, 1, 1], "label_name": ["a", "a", "b", "b", "b"]}
    index = pd.Index(list("vwxyz"), name="id")
    sure = {"probability": [0.9, 0.8, 0.7, 0.6, 0.5]}
    first = pd.DataFrame({**columns, "prediction": [0, 1, 1, 1, 0], **sure}, index=index)
    second = pd.DataFrame({**columns, "prediction": [1, 1, 1, 0, 1], **sure}, index=index)
    table = disagreements.by_class(first, second.iloc[::-1])
    assert table["name"].tolist() == ["a", "b"]
    assert table["n"].tolist() == [2, 3]
    assert table["difference"].tolist() == [0.5, 0.0]
    assert table["first"].tolist() == pytest.approx([1 / 2, 2 / 3])
    found = disagreements.by_image(first, second)
    assert {kind: one.ids for kind, one in found.items()} == {
        **{"first": ("z",), "second": ("v", "y"), "both": ("w",)},
    }


def test_the_door_takes_the_latest_sweep(three, outputs, capsys):
    with pytest.raises(UserError, match="no sweeps under"):
        report.report([])
    for number, name in enumerate(("old", "new")):
        sweep = outputs / "sweeps" / name
        sweep.mkdir(parents=True)
        lines = [
            {"key": r.key, "status": "completed", "folder": str(f), "overrides": [f"n={n}"]}
            for n, (f, r) in enumerate(three)
        ]
        (sweep / "jobs.jsonl").write_text("\n".join(map(json.dumps, lines)))
        os.utime(sweep / "jobs.jsonl", (number, number))
    assert report.report([]) == 0
    place = capsys.readouterr().out.strip()
    assert place == str(outputs / "reports" / "new.html")
    assert report.report(["sweep=old", f"out={outputs}/a.html"]) == 0
    with pytest.raises(UserError, match=r"sweep=none has no jobs\.jsonl"):
        report.report(["sweep=none"])
    with pytest.raises(UserError, match=r"is not a \.html"):
        report.report([f"out={outputs}/a.pdf"])
