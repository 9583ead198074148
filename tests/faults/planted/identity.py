"""What a run is: other images, other labels or another device is another run."""

import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipbench.core.errors import UserError
from clipbench.results import comparison, store
from clipbench.training import soup
from tests.faults.planted import image_folder, plants, refused, run, warned

SAME_CONTENT = {"clipbench.loading.split.Split.content": lambda split: "the same"}


@plants(
    "an image with another label",
    blind={"clipbench.loading.split.Split.fingerprint": lambda split: "the same"} | SAME_CONTENT,
)
def relabelled(place):
    root = image_folder(place / "images")
    first = run(place, f"dataset.root={root}")
    (root / "train/dark/0.png").rename(root / "train/light/new.png")
    second = run(place, f"dataset.root={root}")
    assert first.key != second.key, "one key for two labels of an image"
    assert not second.outcome.before


@plants("two folders of equal names whose images are swapped", blind=SAME_CONTENT)
def swapped_folders(place):
    """The truth of the second is what its own images give: a model is right on one of the two."""
    root, swapped = image_folder(place / "images"), place / "swapped"
    shutil.copytree(root, swapped)
    shutil.rmtree(swapped / "test")
    shutil.copytree(root / "test/dark", swapped / "test/light")
    shutil.copytree(root / "test/light", swapped / "test/dark")
    first = run(place, f"dataset.root={root}", strategy="linear_probe")
    second = run(place, f"dataset.root={swapped}", strategy="linear_probe")
    assert first.key != second.key, "the images of one folder count as those of the other"
    assert first.record["final"]["val/acc"] == second.record["final"]["val/acc"]
    right = first.record["final"]["test/acc"]
    assert abs(second.record["final"]["test/acc"] - (1 - right)) < 1e-6
    assert right > 0.9, "a model that knows nothing would hide the fault"
    moved = root.rename(place / "moved")
    again = run(place, f"dataset.root={moved}", strategy="linear_probe")
    assert again.outcome.before, "a folder under another name is the same data"
    assert again.key == first.key


@plants("two BMPs of equal size that differ in one centre pixel", blind=SAME_CONTENT)
def one_pixel(place):
    keys = set()
    for name, value in (("one", 7), ("other", 8)):
        root = image_folder(place / name)
        with Image.open(root / "test/dark/0.png") as image:
            pixels = np.asarray(image.resize((201, 201))).copy()
        pixels[100, 100] = value
        Image.fromarray(pixels).save(root / "test/dark/0.bmp")
        (root / "test/dark/0.png").unlink()
        keys.add(run(place, f"dataset.root={root}").key)
    assert len(keys) == 2, "one key for images of which one pixel differs"


@plants(
    "an image replaced in place by one of its size and time",
    blind={
        "clipbench.loading.images.contents.Stamp.__eq__": lambda one, other: one[:2] == other[:2]
    },
)
def replaced_image(place):
    root = image_folder(place / "images")
    path = root / "val/dark/0.bmp"
    with Image.open(root / "val/dark/0.png") as image:
        image.save(path)
        other = io.BytesIO()
        Image.fromarray(255 - np.asarray(image)).save(other, "BMP")
    (root / "val/dark/0.png").unlink()
    first, about = run(place, f"dataset.root={root}"), path.stat()
    kept = [(file, file.read_bytes()) for file in place.glob("outputs/runs/*/*/result.json")]
    path.write_bytes(other.getvalue())
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    second = run(place, f"dataset.root={root}")
    assert first.key != second.key, "an image was replaced, and the run is said to be done"
    assert second.outcome.status == "completed"
    assert [(file, file.read_bytes()) for file, _ in kept] == kept, "the old record has changed"


@plants(
    "an image of train that is in test under another name",
    blind={"clipbench.loading.leaks.leaks": lambda splits: {}},
)
def leaked_image(place):
    root = image_folder(place / "images")
    shutil.copyfile(root / "train/light/3.png", root / "test/light/elsewhere.png")
    refused(
        run(place, f"dataset.root={root}"),
        "1 image of test is byte for byte in train too",
        "train: train/light/3.png = test: test/light/elsewhere.png",
        "leaks=allow",
    )
    warned(run(place, f"dataset.root={root}", "leaks=allow"), "leaks=allow", "test", "train")
    # The completed run is no way round the refusal.
    refused(run(place, f"dataset.root={root}"), "byte for byte")


@plants(
    "another device under the word auto",
    blind={
        "clipbench.core.environment.resolved": lambda trainer, world: {
            k: trainer[k] for k in ("accelerator", "devices", "precision")
        },
        "clipbench.training.trainer._check_devices": lambda built, resolved: None,
    },
)
def changed_device(place):
    """Here auto is the CPU, and float16 is bfloat16 there: the key says so; two devices are two."""
    root = f"dataset.root={image_folder(place / 'images')}"
    auto = run(place, root, "trainer.accelerator=auto")
    named = run(place, root, "trainer.accelerator=cpu")
    assert named.outcome.before, "one run has two keys"
    assert auto.key == named.key
    assert auto.record["environment"]["accelerator"] == "cpu"
    half = run(place, root, "trainer.precision=16-mixed")
    assert half.record["environment"]["precision"] == "bf16-mixed"
    assert half.key == run(place, root, "trainer.precision=bf16-mixed").key != auto.key


@plants(
    "a soup of runs whose test images have changed since",
    blind={"clipbench.results.identity.alike": lambda one, other: True},
)
def changed_soup(place):
    root = image_folder(place / "images")
    runs = [run(place, f"dataset.root={root}", f"seed={seed}") for seed in (0, 1)]
    sweep = place / "outputs/sweeps/two"
    sweep.mkdir(parents=True)
    jobs = [
        {"status": "completed", "folder": one.outcome.folder, "overrides": [one.key]}
        for one in runs
    ]
    (sweep / "jobs.jsonl").write_text("\n".join(map(json.dumps, jobs)))
    Image.new("RGB", (32, 32), "red").save(root / "test/dark/1.png")
    with pytest.raises(UserError, match="the images or labels of test have changed"):
        soup.cook(soup.ingredients(sweep), "uniform", "average")


@plants(
    "a record of before the content of images was recorded",
    blind={"clipbench.results.identity.seen": lambda split: split.sha256},
)
def older_record(place):
    """It is read, but no test sets it beside a run that knows what its images held."""
    root = image_folder(place / "images")
    runs = [run(place, f"dataset.root={root}", f"seed={seed}") for seed in (0, 1)]
    folders = [Path(one.outcome.folder) for one in runs]
    assert comparison.compare([folders[0]], [folders[1]]).n == 8
    record = runs[1].record
    for split in record["data"].values():
        del split["content"]
    store.write(folders[1], record)
    with pytest.raises(UserError, match="one is of before content was recorded"):
        comparison.compare([folders[0]], [folders[1]])
