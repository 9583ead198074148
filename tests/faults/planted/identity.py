"""What a run is: other data, another device, is another run."""

import shutil

from tests.faults.planted import image_folder, plants, run


@plants(
    "an image with another label",
    blind={"clipbench.datamodules.split.Split.fingerprint": lambda split: "the same"},
)
def relabelled(place):
    root = image_folder(place / "images")
    first = run(place, f"dataset.root={root}")
    for split in ("train", "val", "test"):
        shutil.copytree(root / split, place / "other" / split)
    (place / "other/train/dark/0.png").rename(place / "other/train/light/new.png")
    second = run(place, f"dataset.root={place / 'other'}")
    assert first.key != second.key, "one key for two labels of an image"
    assert not second.outcome.before
