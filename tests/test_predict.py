"""A tuned model on pictures: the run's own predictions again, and what goes wrong with files."""

import csv
import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from clipbench import predict
from clipbench.core import spreadsheet
from clipbench.core.config.instantiate import build
from clipbench.core.errors import UserError
from tests.faults import planted
from tests.faults.planted import image_folder


@pytest.fixture
def run(runs):
    """A completed run of a small ResNet: its folder and its record."""
    return runs["timm"]


@pytest.fixture
def photos(run, tmp_path):
    """The run's test pictures as PNG in class folders, the last one's name a formula."""
    data = build(run[1]["config"]["dataset"])
    data.prepare(run[1]["seed"])
    split, home = data.splits["test"], tmp_path / "photos"
    names = {}
    for i, label in enumerate(split.labels.tolist()):
        folder = home / data.classes[label].replace(" ", "_")
        folder.mkdir(parents=True, exist_ok=True)
        names[f"{folder.name}/{i:03}.png"] = i
        split.image(i).save(folder / f"{i:03}.png")
    return home, names


def saved_rows(folder, split="test"):
    rows = pd.read_parquet(folder / "predictions.parquet")
    at = np.flatnonzero(rows["split"] == split)
    return rows.iloc[at].reset_index(drop=True), torch.from_numpy(
        np.load(folder / "logits.npy")[at]
    )


def test_a_split_is_predicted_as_the_run_did(run, outputs, capsys):
    folder, record = run
    words = [f"run={folder}", "split=test_ood", "temperature=1", "top=3"]
    assert predict.predict(words) == 0
    said = capsys.readouterr().err
    (file,) = (outputs / "predictions").glob("*.csv")
    assert f"120 images in {file}" in said
    assert f"accuracy {record['final']['test_ood/acc']:.4f}" in said
    found = pd.read_csv(file)
    rows, logits = saved_rows(folder, "test_ood")
    data = build(record["config"]["dataset"])
    data.prepare(record["seed"])
    assert list(found.columns) == [
        *("file", "prediction", "probability", "prediction_2", "probability_2"),
        *("prediction_3", "probability_3", "label"),
    ]
    assert list(found["file"]) == list(rows["id"])
    names = np.array(data.classes)
    assert list(found["prediction"]) == list(names[rows["prediction"]])
    assert list(found["label"]) == list(names[rows["label"]])
    np.testing.assert_allclose(found["probability"], rows["probability"], atol=1e-5)
    third = logits.softmax(1).topk(3)
    np.testing.assert_allclose(found["probability_3"], third.values[:, 2], atol=1e-5)


def test_a_folder_with_a_broken_picture_goes_on(run, photos, tmp_path, capsys):
    folder, record = run
    home, names = photos
    first = next(iter(names))
    cut = (home / first).read_bytes()
    (home / first).write_bytes(cut[: len(cut) // 2])
    (home / "=cmd()").mkdir()
    (home / "=cmd()" / "odd.png").write_bytes((home / list(names)[1]).read_bytes())
    (home / ".hidden.png").write_bytes(cut)
    (home / "notes.txt").write_text("no picture")
    out = tmp_path / "out.csv"
    assert predict.predict([f"run={folder}", f"images={home}", f"out={out}"]) == 1
    said = capsys.readouterr().err
    assert "1 images could not be read:\n" in said
    assert f"  {first}: cut off" in said
    found = pd.read_csv(out).set_index("file")
    assert len(found) == len(names) + 1
    assert "cut off" in found.loc[first, "error"]
    assert np.isnan(found.loc[first, "probability"])
    _, logits = saved_rows(folder)
    scaled = (logits / record["temperature"]).softmax(1)
    for file, i in names.items():
        if file != first:
            assert found.loc[file, "probability"] == pytest.approx(float(scaled[i].max()), abs=1e-5)
            assert found.loc[file, "label"].replace(" ", "_") == file.split("/")[0]
    twin = found.loc[list(names)[1]]
    assert found.loc["'=cmd()/odd.png", "probability"] == twin["probability"]
    assert pd.isna(found.loc["'=cmd()/odd.png", "label"])


def test_a_file_and_a_tar_are_predicted_too(run, photos, tmp_path, capsys):
    folder, _ = run
    home, names = photos
    some = list(names)[:3]
    with tarfile.open(tmp_path / "some.tar", "w") as tar:
        for name in some:
            tar.add(home / name, name)
    printed = {}
    for images in (home / some[0], tmp_path / "some.tar"):
        assert predict.predict([f"run={folder}", f"images={images}", "out=-", "top=1"]) == 0
        rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        printed |= {row["file"].split("/")[-1]: row["prediction"] for row in rows}
        assert rows[0].keys() == {"file", "prediction", "probability"}
    assert len(printed) == 3
    assert predict.predict([f"run={folder}", f"images={home}", "out=-"]) == 0
    rows = {r["file"]: r for r in csv.DictReader(io.StringIO(capsys.readouterr().out))}
    assert {name.split("/")[-1]: rows[name]["prediction"] for name in some} == printed


@pytest.fixture(scope="module")
def of_folder(tmp_path_factory):
    """A run on class folders, whose names the run has replaced."""
    place = tmp_path_factory.mktemp("folder")
    root = image_folder(place / "images")
    names = "dataset.class_names={dark: night, light: day}"
    ran = planted.run(place, f"dataset.root={root}", names)
    assert ran.outcome.status == "completed", ran.outcome.error
    return Path(ran.outcome.folder), root


def test_a_split_of_another_folder_is_read_as_the_runs_own_dataset(of_folder, tmp_path, capsys):
    """With the run's class names, not with those of the dataset that is the default."""
    run, _ = of_folder
    other = image_folder(tmp_path / "a, (b)", {"train": 3, "val": 2, "test": 5}, seed=4)
    out = tmp_path / "out.csv"
    words = [f"run={run}", "split=test", f"dataset.root={other}", f"out={out}"]
    assert predict.predict(words) == 0
    rows = pd.read_csv(out)
    assert sorted(rows["file"]) == sorted(
        p.relative_to(other).as_posix() for p in other.glob("test/*/*")
    )
    assert sorted(rows["label"]) == ["day"] * 5 + ["night"] * 5
    assert "of 10 whose class is known" in capsys.readouterr().err
    with pytest.raises(UserError, match="these are several values"):
        predict.predict([*words[:2], "dataset.bad_images=stop,skip"])
    with pytest.raises(
        UserError, match=r"dataset\.rooot=x: there is no such key\. Use one of .*root"
    ):
        predict.predict([*words[:2], "dataset.rooot=x"])


def test_a_place_without_labels_is_predicted_and_said_to_have_none(of_folder, tmp_path, capsys):
    run, root = of_folder
    words = [f"run={run}", f"out={tmp_path / 'out.csv'}"]
    assert predict.predict([*words, f"images={root / 'test'}"]) == 0  # called dark and light
    told = capsys.readouterr().err
    assert "no accuracy: the folder that an image lies in is called otherwise than each" in told
    assert "of the run's 2 classes (night, day)" in told
    assert "label" not in pd.read_csv(tmp_path / "out.csv").columns
    nested = tmp_path / "nested"
    shutil.copytree(root / "test" / "dark", nested / "night")
    shutil.copytree(root / "test" / "light", nested / "day" / "monday")
    assert predict.predict([*words, f"images={nested}"]) == 0
    told = capsys.readouterr().err
    assert "of 4 whose class is known" in told
    assert "4 images are not in it: the folder that an image lies in" in told
    assert predict.predict([*words, "split=test", "dataset=shapes", "dataset.subset=2"]) == 0
    assert "no accuracy: a class of test is called otherwise than" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["images=IMAGES"], "run=DIR is missing"),
        (["run=EMPTY", "images=IMAGES"], "holds no completed run: it has no result.json"),
        (["run=RUN"], "either images=PATH, or split=NAME"),
        (["run=RUN", "images=IMAGES", "split=test"], "either images=PATH, or split=NAME"),
        (["run=RUN", "image=IMAGES"], "image=.* not understood; did you mean images"),
        (["run=RUN", "images="], "images= has no value"),
        (["run=RUN", "images=EMPTY/none"], r"none does not exist\. Name an image"),
        (["run=RUN", "images=EMPTY"], r"holds no image.*\. Names must end in one of .*bmp"),
        (["run=RUN", "split=tset"], "split=tset does not exist; there are train, val, test"),
        (["run=RUN", "images=IMAGES", "out=a.xlsx"], "out=a.xlsx is not a .csv"),
        (["run=RUN", "images=IMAGES", "out=none/a.csv"], "the folder none does not exist"),
        (["run=RUN", "images=IMAGES", "top=0"], "top=0 is not a whole number of at least 1"),
        (["run=RUN", "images=IMAGES", "temperature=hot"], "hot is not a number above 0"),
        (["run=RUN", "images=IMAGES", "weights=merge"], "not an option; did you mean merged"),
        (["run=RUN", "images=IMAGES", "weights=merged"], "run it with alphas=10"),
        (["run=RUN", "images=IMAGES", "device=tpu9"], "device=tpu9 is not available. Use cpu"),
    ],
)
def test_what_cannot_be_is_refused_with_its_fix(run, tmp_path, words, said, outputs):
    (tmp_path / "p.png").touch()
    places = {"RUN": run[0], "IMAGES": tmp_path / "p.png", "EMPTY": tmp_path / "empty"}
    (tmp_path / "empty").mkdir()
    for name, place in places.items():
        words = [word.replace(name, str(place)) for word in words]
    with pytest.raises(UserError, match=said):
        predict.predict(words)


def test_a_spreadsheet_takes_nothing_for_a_formula():
    file = io.StringIO()
    odd = ["=cmd()", "+1", "-1", "@x", "\tx", "a=b", "", None, -1.5]
    spreadsheet.write(file, ["=h"], [[cell] for cell in odd])
    rows = [row[0] if row else "" for row in csv.reader(io.StringIO(file.getvalue()))]
    assert rows == ["'=h", "'=cmd()", "'+1", "'-1", "'@x", "'\tx", "a=b", "", "", "-1.5"]
