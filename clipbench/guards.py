"""Checks that stop a run which could only give a wrong number, and say why."""

from collections.abc import Mapping
from typing import Any

from clipbench.errors import Refused
from clipbench.optim import Schedule


def warmup(schedule: Schedule, *, lr: float, epochs: int, allowed: bool) -> None:
    """Refuse a run of no steps, and one whose warm-up never ends.

    WiSE-FT's 500 steps of warm-up on Flowers102's 20-step run reach 4 % of the learning rate that
    was asked for, with no error: the cause of the source blog's flat curve.

    Raises:
        Refused: unless ``allowed``.
    """
    if schedule.total < 1:
        raise Refused(f"epochs={epochs} makes no training step; use epochs=1 or more")
    if schedule.warmup >= schedule.total and not allowed:
        raise Refused(
            f"warm-up of {schedule.warmup} steps never ends in a run of {schedule.total} steps: "
            f"the learning rate would peak at {lr * schedule.peak:.2g}, {schedule.peak:.0%} of "
            f"lr={lr:g}; use warmup_steps=null warmup=0.1, or allow_unfinished_warmup=true"
        )


def published_zero_shot(arch: str, pretrained: str | None, dataset: str | None) -> float | None:
    """The published zero-shot accuracy of a checkpoint on a dataset, as a fraction.

    Args:
        arch: open_clip's model name.
        pretrained: open_clip's tag.
        dataset: the dataset's name in ``experiments/published/*.csv``; None if it has none.

    Returns:
        The value, or None where no row read in its source (``verified`` yes) is for this pair.
    """
    import pandas as pd

    from clipbench import paths

    if pretrained is None or dataset is None:
        return None
    for path in sorted((paths.EXPERIMENTS / "published").glob("*.csv")):
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
        # CLIP_benchmark writes OpenAI's QuickGELU models without the suffix.
        rows = rows[
            rows["model"].isin([arch, arch.removesuffix("-quickgelu")])
            & (rows["pretrained"] == pretrained)
            & (rows["dataset"] == dataset)
            & (rows["split"] == "test")
            & (rows["metric"] == "acc1")
            & (rows["protocol"] == "zero-shot")
            & (rows["verified"] == "yes")
        ]
        if len(rows):
            return float(rows["value"].iloc[0]) / 100
    return None


def zero_shot(
    row: Mapping[str, Any], *, classes: int, reference: float | None, gate: bool
) -> str | None:
    """Look at epoch 0: far below the published number means that names and labels disagree.

    Args:
        row: the curve's row of epoch 0, with ``val/acc``.
        classes: how many there are.
        reference: published accuracy of the loaded checkpoint on this dataset, if there is one.
        gate: False lets the run go on.

    Returns:
        A warning for the record, or None.

    Raises:
        Refused: if accuracy is below half of the reference and the gate is on.
    """
    acc, chance = row["val/acc"], 1 / classes
    if reference is not None and acc < reference / 2:
        cause = (
            f"zero-shot accuracy is {acc:.1%} where {reference:.1%} is published: class names and "
            "labels disagree; check the order of dataset.classes, or use gate=off"
        )
        if gate:
            raise Refused(cause)
        return cause
    if reference is None and acc < 1.5 * chance:
        return f"zero-shot accuracy {acc:.1%} is at chance ({chance:.1%}); do names fit the labels?"
    return None
