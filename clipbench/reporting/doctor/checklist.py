"""The OpenCLIP guide's checklist, read off a config before anything starts."""

from collections.abc import Iterator

from clipbench.core.config import option_files
from clipbench.core.config.option_files import Node
from clipbench.models.about import of as about_model
from clipbench.reporting.doctor import options
from clipbench.reporting.tables import published
from clipbench.strategies import about, published_ranges
from clipbench.strategies.published_ranges import FULL, GUIDE, PARTIAL, SCRATCH

Check = tuple[bool, str, str]  # whether it passes, what was looked at, the override to try
LONGEST = 0.3  # share of a run that is warm-up; the guide has no number


def checks(config: Node) -> Iterator[Check]:
    """Yield each point of the checklist that applies, in its order.

    Every point passes or warns by the value that it prints; a point that means nothing for the
    model or the strategy is left out. No data and no weights are read.

    Args:
        config: composed, not yet filled in: null lr, epochs and so on are chosen by rule later.
    """
    name = published_ranges.row(config["model"], config["strategy"])
    clip, strategy = about_model(config["model"]).text, about.of(config["strategy"])
    forgets = clip and name != SCRATCH and strategy.trains_encoder
    yield _weights(config, name)
    if strategy.steps:
        if clip:
            yield _learning_rate(config, name)
        if config["steps"] is None:
            yield _epochs(config["epochs"], name)
        yield _warmup(config, name)
    if forgets:
        yield _retention(config)
    if strategy.steps:
        if name in (FULL, PARTIAL):
            yield _depth(config, name, clip=clip)
        metric = config["monitor"] or "the dataset's own metric"
        yield True, f"epochs are chosen on val, by {metric}", ""
    if forgets:
        averaged = config["alphas"] is not None
        yield averaged, f"alphas={config['alphas']} (WiSE-FT)", "alphas=10"
    if strategy.steps:
        keep = f"keep={config['keep']} beside best.ckpt and last.ckpt (checkpoints)"
        yield True, keep, "keep=all"


def _in_guide(lr: float | None, name: str) -> tuple[bool, str]:
    """Return whether a learning rate is in the guide's range, and both as text."""
    low, high = GUIDE[name].lr
    inside = lr is not None and low <= lr <= high
    return inside, f"lr={lr} ({low:g} to {high:g} in the guide for {name})"


def _weights(config: Node, name: str) -> Check:
    weights = config["model"].get("pretrained", "its own")
    remedy = options.pretrained(config["model"])
    if weights is not None:
        return True, f"model.pretrained={weights}", remedy
    inside, text = _in_guide(config["lr"], name)
    return inside, f"model.pretrained=None, {text}", remedy


def _learning_rate(config: Node, name: str) -> Check:
    lr, remedy = config["lr"], f"lr={GUIDE[name].middle:.2g}"
    if lr is None:
        return True, "lr=None (chosen by rule, for what is trained)", remedy
    inside, text = _in_guide(lr, name)
    if not inside and lr == published_ranges.recommended(config["model"], config["strategy"]):
        return True, f"lr={lr} (recommended in the option's own file)", remedy
    return inside, text, remedy


def _epochs(epochs: int | None, name: str) -> Check:
    if epochs is None:
        return True, "epochs=None (chosen by rule, 5 to 20)", "epochs=10"
    if name == SCRATCH:
        low = int(GUIDE[name].epochs[0])
        return epochs >= low, f"epochs={epochs} ({low} or more from scratch)", f"epochs={low}"
    return 5 <= epochs <= 20, f"epochs={epochs} (5 to 20)", "epochs=10"


def _warmup(config: Node, name: str) -> Check:
    steps, share = config["warmup_steps"], config["warmup"]
    remedy = "warmup_steps=null warmup=0.1"
    if steps is None and share is None:
        return True, "warmup=None (chosen by rule, 0.1 or 0.2 of the run)", remedy
    if steps is None:
        return share <= LONGEST, f"warmup={share} (a share of the run, at most {LONGEST})", remedy
    text = f"warmup_steps={steps}"
    if total := _steps(config):
        share = f"{steps / total:.2g} of the run, at most {LONGEST}"
        return steps / total <= LONGEST, f"{text} of {total:,} steps ({share})", remedy
    if name == SCRATCH:
        low, high = GUIDE[name].warmup_steps
        return low <= steps <= high, f"{text} ({low:g} in the guide for {name})", remedy
    why = "how many steps this run has is not known before its data are read"
    return False, f"{text} (a share of the run, at most {LONGEST}, is safe; {why})", remedy


def _steps(config: Node) -> int | None:
    """Return the steps of a run whose dataset has a published size; None if it is not known."""
    if config["steps"] is not None:
        return int(config["steps"])
    dataset, epochs, batch = config["dataset"], config["epochs"], config["batch_size"]
    name = option_files.option("dataset", dataset)
    cut = any(dataset.get(key) is not None for key in ("shots", "subset"))
    pairs = about.of(config["strategy"]).every_pair
    if name is None or epochs is None or batch is None or cut or pairs:
        return None
    images = published.images(name, "train", dataset.get("scheme"))
    return images and -(-images // batch) * int(epochs)


def _retention(config: Node) -> Check:
    node, dataset = config["retention"], option_files.option("dataset", config["dataset"])
    name = option_files.option("dataset", node) if node else None
    remedy = f"retention={'dtd' if dataset == 'cifar10' else 'cifar10'}"
    if str(config["model"].get("pretrained")).startswith("assets:"):
        remedy = "retention=shapes retention.scene=pretrain"  # what the embedded models have seen
    return node is not None, f"retention={name} (what is forgotten)", remedy


def _depth(config: Node, name: str, *, clip: bool) -> Check:
    """Check the freezing depth; the guide's learning rate differs for partial fine-tuning."""
    remedy, lr = options.half(config["model"]), config["lr"]
    if clip and lr is not None and not _in_guide(lr, PARTIAL)[0]:
        remedy = f"{remedy} lr={GUIDE[PARTIAL].middle:.2g}"
    return name != FULL, f"freeze_depth={config['freeze_depth']}: {name}", remedy
