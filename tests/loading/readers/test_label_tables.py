"""Labels from a table: a row for each image."""

import json
import unicodedata
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from clipbench.core.errors import UserError
from clipbench.datamodules.imagefolder import ImageFolderDataModule
from tests.datamodules.folders import draw

LABELS = ["no", "007", "yes"]
ROWS = [(f"photos/{i:02}.jpg", LABELS[i % 3]) for i in range(30)]


@pytest.fixture
def home(tmp_path):
    for i, (name, _) in enumerate(ROWS):
        draw(tmp_path / name, seed=i)
    return tmp_path


def prepared(file, **options):
    data = ImageFolderDataModule(root=file, **options)
    data.prepare(0)
    data.check()
    return data


def read(data):
    """(id, label) of all splits."""
    return sorted(
        (i, data.keys[label])
        for split in data.splits.values()
        for i, label in zip(split.ids, split.labels, strict=True)
    )


@pytest.mark.parametrize(
    ("name", "head", "cells"),
    [
        ("labels.csv", "path,label\n", ","),
        ("labels.csv", "sep=;\nclass;image\n", ";"),
        ("labels.tsv", "filename\tcategory\n", "\t"),
        ("labels.txt", "", " ,"),
    ],
)
def test_labels_are_text_as_they_are_written(home, name, head, cells):
    swapped = head.startswith("sep")
    rows = [(label, path) if swapped else (path, label) for path, label in ROWS]
    (home / name).write_text(head + "".join(cells.join(row) + "\n" for row in rows))
    data = prepared(home / name)
    assert read(data) == sorted(ROWS)
    assert data.keys == ["007", "no", "yes"]
    assert list(data.splits) == ["train", "val", "test"]
    assert all(
        np.bincount(split.labels).tolist() == [len(split) // 3] * 3
        for split in data.splits.values()
    )


def test_json_lines_have_labels_too(home):
    rows = [json.dumps({"file_name": path, "label": i % 3}) for i, (path, _) in enumerate(ROWS)]
    (home / "labels.jsonl").write_text("\n".join(rows))
    assert prepared(home / "labels.jsonl").keys == ["0", "1", "2"]


def test_a_split_column_in_any_usual_words(home):
    frame = pd.DataFrame(ROWS, columns=["path", "label"])
    frame["split"] = ["Training"] * 15 + ["valid"] * 6 + ["TEST"] * 6 + ["test_night"] * 3
    frame.to_csv(home / "labels.csv")  # with its index, whose column has no name
    data = prepared(home / "labels.csv")
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 15, "val": 6, "test": 6, "test_night": 3,
    }  # fmt: skip
    assert read(data) == sorted(ROWS)


def test_columns_that_are_named(home):
    frame = pd.DataFrame(ROWS, columns=["where", "what"])
    frame["label"], frame["fold"] = "other", ["train"] * 24 + ["test"] * 6
    frame.to_csv(home / "labels.csv", index=False)
    data = prepared(home / "labels.csv", path_key="where", label_key="what", split_key="fold")
    assert read(data) == sorted(ROWS)
    assert len(data.splits["test"]) == 6
    with pytest.raises(UserError, match="is the path in one of where, what"):
        prepared(home / "labels.csv")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            ["photos/00.jpg,no", "photos/00.jpg,yes"],
            "l.csv:3: photos/00.jpg is yes in train, and no",
        ),
        (["photos/00.jpg,"], "l.csv:2: no label of photos/00.jpg"),
        ([",no"], "l.csv:2: no path"),
        (["http://x/a.jpg,no"], "l.csv:2: http://x/a.jpg is not a file"),
        (["photos/00.jpg,no,more"], "l.csv:2: 3 cells, not 2"),
        ([], "has no rows"),
    ],
)
def test_faulty_rows_are_refused(home, rows, message):
    (home / "l.csv").write_text("path,label\n" + "".join(f"{row}\n" for row in rows))
    with pytest.raises(UserError, match=message) as refusal:
        prepared(home / "l.csv")
    assert "\n" not in str(refusal.value)


def test_an_unknown_split_and_a_label_that_train_lacks(home):
    frame = pd.DataFrame(ROWS, columns=["path", "label"])
    frame["split"] = ["train"] * 29 + ["later"]
    frame.to_csv(home / "l.csv", index=False)
    with pytest.raises(UserError, match="split 'later' is none of train, val, test"):
        prepared(home / "l.csv")
    frame["split"], frame.loc[29, "label"] = ["train"] * 29 + ["test"], "Yes"
    frame.to_csv(home / "l.csv", index=False)
    with pytest.raises(UserError, match=r"labels are not in train, first test: Yes; .*mean yes"):
        prepared(home / "l.csv")


def test_a_row_that_is_repeated_is_read_once_and_an_absent_image_is_named(home):
    (home / "l.csv").write_text(
        "path,label\n" + "".join(f"{','.join(r)}\n" for r in ROWS + ROWS[:2])
    )
    data = prepared(home / "l.csv")
    assert Counter(read(data)) == Counter(ROWS)
    assert data.warnings == ["l.csv names 2 images again: each is read once"]
    data.splits["train"].images[0].unlink()
    with pytest.raises(UserError, match=r"1 of the .* are not on disk"):
        prepared(home / "l.csv")


def test_a_name_with_letters_written_either_way(tmp_path):
    names = [f"ä/ö{i}.jpg" for i in range(10)]
    for i, name in enumerate(names):
        draw(tmp_path / unicodedata.normalize("NFD", name), seed=i)
    rows = [f"{name},{'ab'[i % 2]}\n" for i, name in enumerate(names)]
    (tmp_path / "l.csv").write_text("path,label\n" + "".join(rows))
    assert [i for i, _ in read(prepared(tmp_path / "l.csv"))] == names
