"""Counts of who is taken for whom: equal to sklearn's, small in memory, read as written."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from clipbench.datamodules.base_classification import ClassificationDataModule
from clipbench.loading.split import Split
from clipbench.metrics import confusion
from clipbench.reporting.doctor import case, symptoms
from clipbench.reporting.page import disagreements
from clipbench.results.record import RunRecord
from clipbench.training import predictions, tensorboard_summary
from tests import limits


class Many(ClassificationDataModule):
    """As many classes as asked for; images in memory, three of each class that occurs."""

    def __init__(self, classes, n):
        super().__init__()
        self.classes, self.templates = [f"class {k}" for k in range(classes)], ["{}"]
        labels = np.arange(n) // 3 % classes
        ids = [f"{i}.jpg" for i in range(n)]
        shades = (np.arange(n) % 250).astype(np.uint8)
        images = np.broadcast_to(shades[:, None, None, None], (n, 4, 4, 3))
        self.splits = {"val": Split(ids, labels, images, n), "test": Split(ids, labels, images, n)}

    def read_splits(self):
        return self.splits


@pytest.mark.parametrize("classes", [5, 1000, 1001, 4321])
def test_a_file_gives_back_what_was_counted(tmp_path, classes):
    rng = np.random.default_rng(classes)
    labels, said = rng.integers(0, classes, (2, 700))
    labels[:300] = said[:300]
    counts = confusion.count(labels, said, classes)
    none = confusion.count([], [], classes)
    confusion.write(tmp_path / "c.npz", {"val": counts, "test_few": none})
    back = confusion.read(tmp_path / "c.npz")
    assert list(back) == ["val", "test_few"]
    for name, matrix in (("val", counts), ("test_few", none)):
        assert back[name].shape == (classes, classes)
        assert back[name].dtype == np.int64
        assert (back[name] != matrix).nnz == 0
    theirs = confusion_matrix(labels, said, labels=range(classes))
    np.testing.assert_array_equal(counts.toarray(), theirs)
    with np.load(tmp_path / "c.npz") as file:  # as older readers have it, where it is small
        assert ("val" in file.files) == (classes <= confusion.DENSE)


def test_the_most_confused_classes_are_those_with_the_most_errors():
    counts = confusion.count([0, 0, 0, 1, 1, 2, 3, 3], [0, 0, 2, 2, 1, 2, 3, 3], 5)
    assert confusion.most_confused(counts, 1) == [2]
    assert confusion.most_confused(counts, 3) == [0, 1, 2]
    assert confusion.most_confused(counts, 9) == [0, 1, 2, 3, 4]


def test_a_run_of_10_000_classes_is_written_drawn_and_read_in_little_memory(tmp_path):
    data, rng = Many(10_000, 1500), np.random.default_rng(0)
    labels = torch.tensor(data.splits["test"].labels)
    scores = torch.tensor(rng.normal(size=(len(labels), 10_000)).astype(np.float32))
    scores[torch.arange(0, len(labels), 2), labels[::2]] += 20
    (tmp_path / "events.out.tfevents.1").write_bytes(b"")
    record = RunRecord.from_json(
        {
            **{"key": "abc", "model": "m", "dataset": "d", "strategy": "s", "lr": 1, "curve": []},
            **{"config": {"dataset": {}}, "steps": {"total": 0}, "final": {}, "seed": 0},
            **{"selection": {"epoch": 1, "metric": "val/acc"}, "parameters": {"groups": {}}},
        }
    )
    outputs = {name: {"logits": scores, "label": labels} for name in data.splits}
    with limits.memory(200):
        predictions.write(tmp_path, data, outputs)
        assert tensorboard_summary.add(tmp_path, record, data) is None
        rows = disagreements.predictions(tmp_path, "test")
        by_class = disagreements.by_class(rows, rows)
        found = case.Case(record, confusion.read(tmp_path / "confusion.npz"))
        assert list(symptoms.class_collapse(found)) == []
    assert len(by_class) == 500
    whole = np.load(tmp_path / "logits.npy", mmap_mode="r")
    np.testing.assert_array_equal(whole[1500:], scores)
    assert (rows["prediction"] == scores.argmax(1).numpy()).all()
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0}).Reload()
    title, _ = sorted(events.Tags()["images"])
    assert title == "confusion, test, 40 of 10,000 classes with the most errors"
    (event,) = events.Images(title)
    with Image.open(io.BytesIO(event.encoded_image_string)) as drawn:
        assert max(drawn.size) < 1000
