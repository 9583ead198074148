"""Checks that stop a run which could only give a wrong number, and say why."""

import copy
from collections.abc import Callable, Mapping, Sequence

import torch

from clipbench.core.config import ranges
from clipbench.core.config.option_files import Node
from clipbench.core.devices import devices
from clipbench.core.errors import UserError
from clipbench.datamodules.base import DataModule
from clipbench.datamodules.base_captions import CaptionDataModule
from clipbench.models import about as about_models
from clipbench.models.base import Classifier, ImageTower, freeze_statistics
from clipbench.models.two_towers import TwoTowers
from clipbench.results.record import Row
from clipbench.strategies import about
from clipbench.strategies.base import Strategy
from clipbench.training.schedule import Schedule


def config(root: Node) -> None:
    """Refuse numbers out of range and devices that are not there, before any data is looked at.

    Raises:
        UserError: naming the key, its value and what to type.
    """
    ranges.check(root)
    name = root["trainer"]["accelerator"]
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    there = {"auto": True, "cpu": True, "gpu": cuda or mps, "cuda": cuda, "mps": mps}
    if name not in there:
        raise UserError(f"trainer.accelerator={name}: is not known. Use one of {', '.join(there)}")
    if not there[name]:
        raise UserError(f"trainer.accelerator={name}: there is none here. Use trainer=auto or cpu")
    wanted, count = devices(root["trainer"]), torch.cuda.device_count()
    if cuda and name in ("auto", "gpu", "cuda") and wanted > count:
        asked = root["trainer"]["devices"]
        raise UserError(f"trainer.devices={asked}: there are {count} here. Use {count} or fewer")


def pairs(strategy: Strategy, batch_size: int, rows: int) -> None:
    """Refuse batches in which there is nothing to tell a pair from.

    Args:
        strategy: of the run.
        batch_size: global.
        rows: of an epoch.

    Raises:
        UserError: for one pair at a time, whose contrastive loss is 0 whatever the model says.
    """
    if strategy.trains and strategy.pairs and min(batch_size, rows) < 2:
        few = f"batch_size={batch_size}" if batch_size < 2 else "train has one image and caption"
        raise UserError(
            f"{few}: the loss compares pairs, and of one pair it is 0 whatever the model says. Use "
            "two or more"
        )


def captions(
    config: Node,
    strategy: Strategy,
    data: DataModule,
    choices: Mapping[str, str],
) -> None:
    """Refuse, where there are captions and no classes, what needs classes or cannot read.

    Args:
        config: the root.
        strategy: as it asks for.
        data: likewise.
        choices: the options typed, to be named.

    Raises:
        UserError: for a strategy, a model or a kind of average that means nothing here.
    """
    if not isinstance(data, CaptionDataModule):
        return
    name, model = choices["dataset"], choices["model"]
    able = sorted(about.proposed("captions"), key=lambda option: not about.named(option).trains)
    if not strategy.retrieves:
        raise UserError(
            f"{name} has captions and no classes, which strategy={choices['strategy']} needs; use "
            f"strategy={able[0]} (or {', '.join(able[1:])})"
        )
    if not about_models.of(config["model"]).text and about.of(config["strategy"]).text:
        enough = [option for option in able if not about.named(option).text]
        raise UserError(
            f"model={model} has no text tower to read the captions of {name} with; use "
            f"strategy={' or '.join(enough)}, or a model that has one: "
            f"{', '.join(about_models.with_text())}"
        )
    if config["alphas"] is not None and config["merge"] == "fisher":
        raise UserError(f"merge=fisher is of classes, and {name} has none; use merge=wise_ft")


Task = tuple[Sequence[str], Sequence[Sequence[str]]]  # classes, and the prompts of each


def texts(tower: ImageTower, captions: Sequence[str], tasks: Mapping[str, Task]) -> list[str]:
    """Return warnings of texts that a model does not read to their end.

    open_clip cuts them off without a word, and two classes may be left with one text.

    Args:
        tower: of the run.
        captions: of all splits.
        tasks: of each set of classes what a warning of it begins with.
    """
    if not isinstance(tower, TwoTowers) or tower.mean_pooled:
        return []
    found = []
    if cut := len(tower.cut(captions)):
        what = f"{cut:,} of {len(captions):,} captions are longer than this model reads"
        found.append(f"{what}: their ends are cut off")
    for name, (classes, prompts) in tasks.items():
        whole = [text for own in prompts for text in own]
        if cut := len(tower.cut(whole)):
            what = f"{name}{cut:,} of {len(whole):,} class prompts are longer than this model reads"
            found.append(f"{what}: their ends are cut off")
        if alike := tower.alike(prompts):
            first = " and ".join(classes[label] for label in alike[0][:2])
            rest = sum(map(len, alike)) - 2
            more = f" (and {rest} more)" if rest else ""
            found.append(
                f"{name}this model reads the prompts of {first}{more} as the same: no head made of "
                "text tells them apart"
            )
    return found


def warmup(schedule: Schedule, *, lr: float, epochs: int, allowed: bool) -> None:
    """Refuse a run of no steps, and one whose warm-up never ends.

    WiSE-FT's 500 steps of warm-up on Flowers102's 20-step run reach 4 % of the learning rate that
    was asked for, with no error: the cause of the source blog's flat curve.

    Raises:
        UserError: unless ``allowed``.
    """
    if schedule.total < 1:
        raise UserError(f"epochs={epochs} makes no training step; use epochs=1 or more")
    if schedule.warmup >= schedule.total and not allowed:
        raise UserError(
            f"warm-up of {schedule.warmup} steps never ends in a run of {schedule.total} steps: "
            f"the learning rate would peak at {lr * schedule.peak:.2g}, {schedule.peak:.0%} of "
            f"lr={lr:g}; use warmup_steps=null warmup=0.1, or allow_unfinished_warmup=true"
        )


def lone_picture(
    classifier: Classifier, strategy: Strategy, fewest: Callable[[int], int], size: int
) -> None:
    """Refuse an epoch whose last batch is one picture where BatchNorm cannot normalise one.

    Where a picture has come down to one position, a batch of one has no variance; torch says so,
    at the end of the first epoch.

    Args:
        classifier: as it begins to train.
        strategy: that trains it.
        fewest: the least pictures a device takes at once, by batch size.
        size: the batch's.

    Raises:
        UserError: if it cannot train on as few as there would be.
    """
    norms = torch.nn.modules.batchnorm._BatchNorm
    if fewest(size) != 1 or not any(isinstance(part, norms) for part in classifier.modules()):
        return
    trained = copy.deepcopy(classifier)
    trained.train()
    freeze_statistics(trained, everywhere=strategy.frozen_statistics)
    side = classifier.tower.preprocess.size
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            trained.tower(torch.zeros(1, 3, side, side))
    except ValueError as error:
        if "more than 1 value" not in str(error):
            raise
        # The nearest first: what lies further off may be no batch at all, as with mix_fraction.
        sizes = sorted(range(2, 2 * size + 2), key=lambda n: abs(n - size))
        near = next((n for n in sizes if fewest(n) > 1), None)
        use = f"batch_size={near}" if near else "strategy.frozen_statistics=true"
        raise UserError(
            f"batch_size={size} leaves a device one picture at a time, which the BatchNorm of "
            f"this model cannot train on; use {use}"
        ) from error


def published_zero_shot(
    arch: str, pretrained: str | None, dataset: str | None, metric: str = "acc1"
) -> float | None:
    """Return a checkpoint's published zero-shot accuracy or recall, as a fraction.

    Args:
        arch: open_clip's model name.
        pretrained: open_clip's tag.
        dataset: the dataset's name in ``experiments/published/*.csv``; None if it has none.
        metric: its name there.

    Returns:
        The value, or None where no row read in its source (``verified`` yes) is for this pair.
    """
    import pandas as pd

    from clipbench.core import paths

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
            & (rows["metric"] == metric)
            & (rows["protocol"] == "zero-shot")
            & (rows["verified"] == "yes")
        ]
        if len(rows):
            return float(rows["value"].iloc[0]) / 100
    return None


def zero_shot(row: Row, *, classes: int, reference: float | None, gate: bool) -> str | None:
    """Look at epoch 0: far below the published number means that names and labels disagree.

    Args:
        row: the curve's row of epoch 0, with ``val/acc``.
        classes: how many there are.
        reference: published accuracy of the loaded checkpoint on this dataset, if there is one.
        gate: False lets the run go on.

    Returns:
        A warning for the record, or None.

    Raises:
        UserError: if accuracy is below half of the reference and the gate is on.
    """
    acc, chance = row["val/acc"], 1 / classes
    if reference is not None:
        cause = "class names and labels disagree; check the order of dataset.classes"
        return _far_below("accuracy", acc, reference, cause, gate)
    if acc < 1.5 * chance:
        return f"zero-shot accuracy {acc:.1%} is at chance ({chance:.1%}); do names fit the labels?"
    return None


def zero_shot_retrieval(
    row: Row, *, pictures: int, reference: float | None, gate: bool
) -> str | None:
    """Look at epoch 0 of captions: far below what is published, they are of other images.

    Args:
        row: with ``val/image_recall@5``.
        pictures: of val: 5 of them are found by chance.
        reference: published image recall@5 on the test split, if there is one.
        gate: False lets the run go on.

    Raises:
        UserError: if recall is below half of the reference and the gate is on.
    """
    recall, chance = row["val/image_recall@5"], 5 / pictures
    if reference is not None:
        cause = "captions and pictures disagree; check which caption is whose"
        return _far_below("image recall@5", recall, reference, cause, gate)
    if recall < 1.5 * chance < 1:
        return (
            f"zero-shot image recall@5 {recall:.1%} is at chance ({chance:.1%}): the model knows "
            "nothing of such pictures and captions, or they disagree"
        )
    return None


def _far_below(what: str, value: float, reference: float, cause: str, gate: bool) -> str | None:
    if value >= reference / 2:
        return None
    message = f"zero-shot {what} is {value:.1%} where {reference:.1%} is published: {cause}"
    message += ", or use gate=off"
    if gate:
        raise UserError(message)
    return message
