"""Checks that stop a run which could only give a wrong number, and say why."""

import copy
from collections.abc import Callable, Mapping, Sequence

import pandas as pd
import torch

from clipbench.core import paths
from clipbench.core.config import ranges
from clipbench.core.config.option_files import Node
from clipbench.core.devices import devices
from clipbench.core.errors import UserError
from clipbench.datamodules.base import DataModule
from clipbench.datamodules.base_captions import CaptionDataModule
from clipbench.models import about as about_models
from clipbench.models.base import Classifier, ImageTower, freeze_statistics
from clipbench.models.two_towers import TwoTowers
from clipbench.strategies import about
from clipbench.strategies.base import Strategy
from clipbench.strategies.recipe import Recipe
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
    count = torch.cuda.device_count()
    if cuda and name in ("auto", "gpu", "cuda") and devices(root["trainer"]) > count:
        number = root["trainer"]["devices"]
        raise UserError(f"trainer.devices={number}: there are {count} here. Use {count} or fewer")


def pairs(strategy: Strategy, batch_size: int, rows: int) -> None:
    """Raise a UserError for a batch or an epoch that holds a single pair."""
    if strategy.trains and strategy.pairs and min(batch_size, rows) < 2:
        few = f"batch_size={batch_size}" if batch_size < 2 else "train has one image and caption"
        zero = "the loss compares pairs, and of one pair it is 0 whatever the model says"
        raise UserError(f"{few}: {zero}. Use two or more")


def captions(
    config: Node, strategy: Strategy, data: DataModule, choices: Mapping[str, str]
) -> None:
    """Refuse, where there are captions and no classes, what needs classes or cannot read.

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
            f"model={model} has no text tower for the captions of {name}; use "
            f"strategy={' or '.join(enough)}, or a model that has one: "
            f"{', '.join(about_models.with_text())}"
        )
    if config["alphas"] is not None and config["merge"] == "fisher":
        raise UserError(f"merge=fisher needs classes, and {name} has none; use merge=wise_ft")


Task = tuple[Sequence[str], Sequence[Sequence[str]]]  # classes, and the prompts of each


def texts(tower: ImageTower, captions: Sequence[str], tasks: Mapping[str, Task]) -> list[str]:
    """Return warnings of texts that a model does not read to their end.

    open_clip cuts them off silently, and two classes may be left with the same text. ``tasks`` are
    by what a warning of each begins with.
    """
    if not isinstance(tower, TwoTowers) or tower.mean_pooled:
        return []
    warnings = _cut_off(tower, captions, "captions")
    for name, (classes, prompts) in tasks.items():
        in_all = [prompt for of_class in prompts for prompt in of_class]
        warnings += [name + line for line in _cut_off(tower, in_all, "class prompts")]
        if alike := tower.alike(prompts):
            first = " and ".join(classes[label] for label in alike[0][:2])
            more = sum(map(len, alike)) - 2
            first += f" (and {more} more)" if more else ""
            warnings.append(
                f"{name}this model reads the prompts of {first} as the same: no head made of text "
                "tells them apart"
            )
    return warnings


def _cut_off(tower: TwoTowers, texts: Sequence[str], what: str) -> list[str]:
    if not (cut := len(tower.cut(texts))):
        return []
    count = f"{cut:,} of {len(texts):,} {what}"
    return [f"{count} are longer than this model reads: their ends are cut off"]


def warmup(schedule: Schedule, recipe: Recipe, *, allowed: bool) -> None:
    """Refuse a run of no steps, and one whose warm-up never ends.

    WiSE-FT's 500 steps of warm-up on Flowers102's 20-step run reach 4 % of the requested learning
    rate, with no error: the cause of the source blog's flat curve.

    Raises:
        UserError: unless ``allowed``.
    """
    if schedule.total < 1:
        raise UserError(f"epochs={recipe.epochs} makes no training step; use epochs=1 or more")
    if schedule.warmup >= schedule.total and not allowed:
        raise UserError(
            f"warm-up of {schedule.warmup} steps never ends in a run of {schedule.total} steps: "
            f"the learning rate would peak at {recipe.lr * schedule.peak:.2g}, {schedule.peak:.0%} "
            f"of lr={recipe.lr:g}; use warmup_steps=null warmup=0.1, or "
            "allow_unfinished_warmup=true"
        )


def lone_image(
    classifier: Classifier, strategy: Strategy, fewest: Callable[[int], int], size: int
) -> None:
    """Refuse an epoch whose last batch is one image where BatchNorm cannot normalise one.

    Where an image has come down to one position, a batch of one has no variance; torch says so,
    at the end of the first epoch. ``fewest`` returns how few images a device takes at once, by
    batch size.

    Raises:
        UserError: if the classifier cannot train on so few.
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
        # The nearest first: one further off may not be a batch at all, as with mix_fraction.
        sizes = sorted(range(2, 2 * size + 2), key=lambda n: abs(n - size))
        near = next((n for n in sizes if fewest(n) > 1), None)
        use = f"batch_size={near}" if near else "strategy.frozen_statistics=true"
        raise UserError(
            f"batch_size={size} leaves a device one image at a time, which the BatchNorm of this "
            f"model cannot train on; use {use}"
        ) from error


def published_zero_shot(
    arch: str, pretrained: str | None, dataset: str | None, metric: str = "acc1"
) -> float | None:
    """Return a published zero-shot metric of ``experiments/published``, as a fraction.

    The checkpoint is named as in open_clip. None where no row that was read in its source
    (``verified`` yes) is for this pair.
    """
    if pretrained is None or dataset is None:
        return None
    sought = {"pretrained": pretrained, "dataset": dataset, "metric": metric}
    sought |= {"split": "test", "protocol": "zero-shot", "verified": "yes"}
    for path in sorted((paths.EXPERIMENTS / "published").glob("*.csv")):
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
        # CLIP_benchmark writes OpenAI's QuickGELU models without the suffix.
        rows = rows[rows["model"].isin([arch, arch.removesuffix("-quickgelu")])]
        rows = rows[(rows[list(sought)] == pd.Series(sought)).all(axis=1)]
        if len(rows):
            return float(rows["value"].iloc[0]) / 100
    return None


def zero_shot(
    what: str, value: float, *, chance: float, reference: float | None, cause: str, gate: bool
) -> str | None:
    """Compare epoch 0 with the published number, or with chance where nothing is published.

    ``reference`` is what the loaded checkpoint reaches on test, ``cause`` the likeliest one of a
    value far below it. With ``gate`` off the error is returned as a warning.

    Raises:
        UserError: if the value is below half of the reference and the gate is on.
    """
    if reference is None:
        doubt = f"at chance ({chance:.1%}): the model knows nothing of such images, or {cause}"
        return f"zero-shot {what} {value:.1%} is {doubt}" if value < 1.5 * chance < 1 else None
    if value >= reference / 2:
        return None
    message = f"zero-shot {what} is {value:.1%} where {reference:.1%} is published: {cause}"
    message += ", or use gate=off"
    if gate:
        raise UserError(message)
    return message
