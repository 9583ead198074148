"""Rebuild the weights of the embedded models, and measure their zero-shot accuracy.

Run: python -m clipbench.pretrain clip_tiny     (or resnet_tiny; `make pretrain` does both)
     python -m clipbench.pretrain clip_tiny --measure     (the packaged weights, half a minute)
"""

import argparse
import subprocess
import sys

from clipbench.core.config.compose import compose
from clipbench.core.config.instantiate import build
from clipbench.core.console import show
from clipbench.datamodules.shapes import ShapesDataModule
from clipbench.inference.embedded_models import ATTRIBUTES, keep, zero_shot
from clipbench.models.base import ImageTower


def main() -> None:
    """Pretrain, save the weights in the package, measure them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=["clip_tiny", "resnet_tiny"])
    parser.add_argument("--measure", action="store_true", help="only measure the packaged weights")
    options = parser.parse_args()
    if not options.measure:
        command = [sys.executable, "-m", "clipbench.run", f"experiment=pretrain_{options.model}"]
        subprocess.run(command, check=True)
        keep(options.model)
    config = compose(f"model={options.model}", "dataset=shapes")
    tower: ImageTower = build(config["model"])
    if not tower.has_text:
        return
    data: ShapesDataModule = build(config["dataset"])
    data.prepare(0)
    measured = {split: zero_shot(tower, data, split) for split in ("val", "test", "test_ood")}
    chance = {"class": 1 / len(data.classes)}
    chance |= {name: 1 / len(values) for name, (values, _) in ATTRIBUTES.items()}
    rows = [(n, chance[n], *(measured[split][n] for split in measured)) for n in chance]
    show(f"{options.model}, zero-shot on shapes", ("names the", "chance", *measured), rows)


if __name__ == "__main__":
    main()
