"""A run as the doctor sees it: its record, and what of it is worked out more than once."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipbench import results
from clipbench.diagnosis import guide
from clipbench.errors import Refused
from clipbench.statistics import wilson


@dataclass
class Case:
    """A run as the symptoms see it.

    Attributes:
        record: its ``result.json``.
        confusion: of each split, (C, C) counts, the true class by row; empty if it was cut short.
    """

    record: Mapping[str, Any]
    confusion: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)

    @property
    def config(self) -> Mapping[str, Any]:
        """The resolved config."""
        config: Mapping[str, Any] = self.record["config"]
        return config

    def series(self, key: str) -> list[tuple[int, float]]:
        """Epoch and value, where there is one."""
        rows = self.record["curve"]
        return [(row["epoch"], row[key]) for row in rows if row.get(key) is not None]

    @property
    def metric(self) -> str:
        """What the best epoch was chosen by."""
        found: str = self.record["selection"]["metric"]
        return found

    @property
    def clip(self) -> bool:
        """Whether there is a text side."""
        return "logit scale" in self.record["parameters"]["groups"]

    @property
    def trains(self) -> bool:
        """Whether there was an optimiser that stepped."""
        return bool(self.record["steps"]["total"]) and bool(self.series("train/loss"))

    @property
    def lr(self) -> float:
        """The learning rate asked for."""
        return float(self.record["lr"])

    @property
    def cautious(self) -> bool:
        """Whether the learning rate that was reached is far below the one recommended."""
        usual = guide.own_lr(self.config["model"], self.config["strategy"])
        return usual is not None and min(self.lr, self.record["steps"]["peak_lr"]) < usual / 3

    @property
    def epochs(self) -> int:
        """Epochs that were trained."""
        return max((int(row["epoch"]) for row in self.record["curve"]), default=0)

    @cached_property
    def guessing(self) -> float | None:
        """The loss of guessing: ln of the classes, or of the batch where pairs are told apart."""
        told = ("Contrastive", "FLYP", "LiT")
        if str(self.config["strategy"]["_target_"]).rpartition(".")[2] in told:
            return math.log(min(self.record["batch_size"], self.record["data"]["train"]["n"]))
        return math.log(len(self.confusion["val"])) if "val" in self.confusion else None

    @cached_property
    def floor(self) -> float:
        """The least that a loss with smoothed labels can be: their entropy."""
        share = self.config.get("label_smoothing") or 0.0
        if not share or "val" not in self.confusion:
            return 0.0
        classes = len(self.confusion["val"])
        rest = share / classes
        top = 1 - share + rest
        return -top * math.log(top) - (classes - 1) * rest * math.log(rest)

    @cached_property
    def noise(self) -> float:
        """Half of Wilson's interval of the best accuracy on val: less is no difference."""
        n = self.record["data"]["val"]["n"]
        best = max((value for _, value in self.series(self.metric)), default=0.5)
        found = wilson(min(1.0, max(0.0, best)), n)
        return (found.high - found.low) / 2

    def deeper(self) -> tuple[str, ...]:
        """A deeper freezing than this run's, if there is one: half of the blocks, or all."""
        blocks = [n for n in self.record["parameters"]["groups"] if n.startswith("block ")]
        half, now = max(1, len(blocks) // 2), self.record["freeze_depth"]
        if now == "all":
            return ()
        return (f"freeze_depth={half if int(now or 0) < half else 'all'}",)

    @property
    def between(self) -> list[Mapping[str, Any]]:
        """The points of WiSE-FT's line that are neither its start nor its end."""
        return [p for p in self.record.get("alpha_curve") or () if 0 < p["alpha"] < 1]

    def averaged(self) -> tuple[str, ...]:
        """WiSE-FT's line, where this run has none."""
        return () if self.between else ("alphas=10",)


def read(folder: Path) -> Case:
    """The case of a run's folder, of one that failed as well.

    Raises:
        Refused: if there is no record in it.
    """
    record = results.read(folder)
    if record is None:
        raise Refused(f"run={folder} has no result.json; give the folder of a run")
    confusion = {}
    if (folder / "confusion.npz").is_file():
        with np.load(folder / "confusion.npz") as file:
            confusion = {name: file[name] for name in file.files}
    return Case(record, confusion)
