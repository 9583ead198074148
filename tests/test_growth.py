"""What small tests never see: many classes, in a process that may not have much memory."""

import os
import resource
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from clipbench.core import paths
from tests.conftest import result_jsons

GIB = 2**30


def folders(root, classes, each, side=32):
    """Class folders of images that are noise around the colours of their class."""
    rng = np.random.default_rng(0)
    for k in range(classes):
        home = root / f"class {k:04d}"
        home.mkdir(parents=True)
        colours = np.kron(rng.integers(0, 255, (2, 2, 3)), np.ones((side // 2, side // 2, 1)))
        for i in range(each):
            noisy = (colours + rng.normal(0, 9, colours.shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(home / f"{i}.png")
    return root


def within(gib, outputs, module, *words):
    """A command in no more address space than so many GiB."""
    return subprocess.run(
        [sys.executable, "-m", f"clipbench.{module}", *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CLIPBENCH_OUTPUTS": str(outputs)},
        cwd=paths.ROOT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (gib * GIB, gib * GIB)),
    )


@pytest.mark.slow
def test_1500_classes_are_trained_evaluated_and_reported_in_12_gib(tmp_path):
    root, outputs = folders(tmp_path / "images", 1500, 5), tmp_path / "outputs"
    models = ("model=clip_tiny,resnet_tiny", "epochs=2")
    done = within(12, outputs, "run", "-m", *models, "dataset=imagefolder", f"dataset.root={root}")
    assert done.returncode == 0, done.stderr
    for folder, record in result_jsons(outputs):
        assert record["status"] == "completed"
        assert record["warnings"] == [w for w in record["warnings"] if "TensorBoard" not in w]
        table = pd.read_csv(folder / "per_class.csv")
        assert (table.groupby("split")["n"].sum() == 1500).all()
        tests = table[table["split"] == "test"]
        assert tests["recall"].mean() == pytest.approx(record["final"]["test/mean_per_class"])
    told = within(12, outputs, "report")
    assert told.returncode == 0, told.stderr
    (page,) = (outputs / "reports").glob("*.html")
    assert page.stat().st_size < 2e6
