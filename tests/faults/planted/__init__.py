"""Faults that would give a wrong number in silence, one function each, for ``make faults-truth``.

A case is a function in a file of this folder, which plants one fault and asserts what must come of
it: a refusal, a recorded warning, or the right number::

    @plants("a leaked image", blind={"clipbench.loading.leaks.leaks": lambda splits: []})
    def leaked(place):
        root = image_folder(place / "images", test_of_train=True)
        refused(run(place, f"dataset.root={root}"), "byte for byte")

``place`` is an empty folder of the case's own. ``blind`` names what in the project finds the fault,
by its dotted path, and what to put there instead: the case runs a second time so, in a process of
its own, and must fail by one of its assertions. A check that passes blind proves nothing.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clipbench.core.jobs import Job, Outcome
from clipbench.training.run import execute
from tests.conftest import TINY, composed, result_json

# Enough for a number of its own, and no more: a case is a few of these, in two seconds each.
QUICK = (*TINY, "trainer=cpu", "logger=none", "callbacks=none", "epochs=1", "batch_size=8")


@dataclass(frozen=True)
class Case:
    """A planted fault.

    Attributes:
        fault: what is planted, in a few words.
        check: plants it in a folder and asserts what must come of it.
        blind: what finds the fault, by dotted path, with what is put there to see the check fail.
    """

    fault: str
    check: Callable[[Path], None]
    blind: Mapping[str, Any]


CASES: list[Case] = []


def plants(fault: str, blind: Mapping[str, Any]) -> Callable[[Any], Any]:
    """Make a function a case; see above."""
    assert blind, f"{fault}: name what finds it, to show that the check can fail"

    def register(check: Callable[[Path], None]) -> Callable[[Path], None]:
        CASES.append(Case(fault, check, blind))
        return check

    return register


def cases() -> list[Case]:
    """Every case of every file of this folder."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return CASES


@dataclass(frozen=True)
class Ran:
    """What came of a job: its outcome, and the record it left, empty where it left none."""

    outcome: Outcome
    record: dict[str, Any]

    @property
    def key(self) -> str:
        """The run's."""
        assert self.outcome.key is not None, self.outcome.error
        return self.outcome.key


def run(
    place: Path,
    *words: str,
    model: str = "timm",
    dataset: str = "imagefolder",
    strategy: str = "finetune",
) -> Ran:
    """Run one job in this process, with outputs in the case's folder, as a command line would.

    Args:
        place: the case's folder.
        words: of the command line, after :data:`QUICK`.
        model: the option of that group; other than timm, ``QUICK``'s words of a model are left out.
        dataset: likewise.
        strategy: likewise.
    """
    quick = QUICK if model == "timm" else (f"model={model}", *QUICK[len(TINY) :])
    typed = (*quick, f"dataset={dataset}", f"strategy={strategy}", *words)
    choices = {"model": model, "dataset": dataset, "strategy": strategy}
    outcome = execute(Job(composed(*typed), choices, list(typed), outputs=place / "outputs"))
    record = result_json(Path(outcome.folder)) if outcome.folder else None
    return Ran(outcome, record or {})


def refused(ran: Ran, *words: str) -> None:
    """Assert that a run was refused, with these words in what was said of it."""
    assert ran.outcome.status == "failed", f"the run {ran.outcome.status}, it was to be refused"
    lines = "\n".join([ran.outcome.error or "", *ran.outcome.details])
    for word in words:
        assert word in lines, f"{word!r} is not in {lines!r}"


def warned(ran: Ran, *words: str) -> None:
    """Assert that a run completed with a warning in its record that has these words."""
    assert ran.outcome.status == "completed", ran.outcome.error
    found = ran.record["warnings"]
    assert any(all(word in line for word in words) for line in found), f"{words}: only {found}"


def image_folder(
    root: Path, counts: Mapping[str, int] = {"train": 8, "val": 4, "test": 4}, seed: int = 0
) -> Path:
    """Write PNG images of two classes, dark and light, each different, in split and class folders.

    Args:
        root: the folder to make.
        counts: images of each class by split.
        seed: of the noise in them.
    """
    draw = np.random.default_rng(seed)
    for split, n in counts.items():
        for name, level in (("dark", 60), ("light", 190)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(n):
                pixels = draw.normal(level, 20, (32, 32, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root
