"""The OpenCLIP guide's checklist, read off a config before anything starts."""

from collections.abc import Iterator

from clipbench.core.config import option_files
from clipbench.core.config.option_files import Node
from clipbench.models.about import of as about_model
from clipbench.reporting.doctor import options
from clipbench.reporting.tables import published
from clipbench.strategies import about, published_ranges

Check = tuple[bool, str, str]  # whether it passes, what was looked at, the override to try
LONGEST = 0.3  # of a run that is warm-up. Ours.


def checks(config: Node) -> Iterator[Check]:
    """Yield each point of the checklist that applies, in its order.

    Every point passes or warns by the value that it prints; a point that means nothing for the
    model or the strategy is left out. No data and no weights are looked at.

    Args:
        config: composed, not yet filled in: null lr, epochs and so on are chosen by rule later.
    """
    model, strategy = config["model"], config["strategy"]
    name = published_ranges.row(model, strategy)
    clip, known = about_model(model).text, about.of(strategy)
    steps = known.steps
    yield _weights(config, name)
    if steps and clip:
        yield _learning_rate(config, name)
    if steps and config["steps"] is None:
        yield _epochs(config, name)
    if steps:
        yield _warmup(config, name)
    forgets = clip and name != published_ranges.SCRATCH and known.trains_encoder
    if forgets:
        yield _retention(config)
    if steps and name in (published_ranges.FULL, published_ranges.PARTIAL):
        yield _depth(config, name, clip=clip)
    if steps:
        yield _validation(config)
    if forgets:
        averaged = config["alphas"] is not None
        yield averaged, f"alphas={config['alphas']} (WiSE-FT)", "alphas=10"
    if steps:
        kept = f"keep={config['keep']}"
        yield True, f"{kept} beside best.ckpt and last.ckpt (checkpoints)", "keep=all"


def _weights(config: Node, name: str) -> Check:
    weights, lr = config["model"].get("pretrained", "its own"), config["lr"]
    remedy = options.pretrained(config["model"])
    if weights is not None:
        return True, f"model.pretrained={weights}", remedy
    low, high = published_ranges.GUIDE[name].lr
    about = f"model.pretrained=None, lr={lr} ({low:g} to {high:g} in the guide for {name})"
    return lr is not None and low <= lr <= high, about, remedy


def _learning_rate(config: Node, name: str) -> Check:
    model, strategy, lr = config["model"], config["strategy"], config["lr"]
    low, high = published_ranges.GUIDE[name].lr
    remedy = f"lr={published_ranges.GUIDE[name].middle:.2g}"
    if lr is None:
        return True, "lr=None (chosen by rule, for what is trained)", remedy
    if lr == published_ranges.recommended(model, strategy) and not low <= lr <= high:
        return True, f"lr={lr} (recommended in the option's own file)", remedy
    about = f"lr={lr} ({low:g} to {high:g} in the guide for {name})"
    return published_ranges.fits(model, strategy, lr), about, remedy


def _epochs(config: Node, name: str) -> Check:
    epochs = config["epochs"]
    if epochs is None:
        return True, "epochs=None (chosen by rule, 5 to 20)", "epochs=10"
    if name == published_ranges.SCRATCH:
        low = int(published_ranges.GUIDE[name].epochs[0])
        return epochs >= low, f"epochs={epochs} ({low} or more from scratch)", f"epochs={low}"
    return 5 <= epochs <= 20, f"epochs={epochs} (5 to 20)", "epochs=10"


def _warmup(config: Node, name: str) -> Check:
    literal, share, remedy = (
        config["warmup_steps"],
        config["warmup"],
        "warmup_steps=null warmup=0.1",
    )
    if literal is None:
        if share is None:
            return True, "warmup=None (chosen by rule, 0.1 or 0.2 of the run)", remedy
        return share <= LONGEST, f"warmup={share} (a share of the run, at most {LONGEST})", remedy
    total = _steps(config)
    if total:
        share = literal / total
        about = f"warmup_steps={literal} of {total:,} steps ({share:.2g} of the run, at most"
        return share <= LONGEST, f"{about} {LONGEST})", remedy
    if name == published_ranges.SCRATCH:
        low, high = published_ranges.GUIDE[name].warmup_steps
        about = f"warmup_steps={literal} ({low:g} in the guide for {name})"
        return low <= literal <= high, about, remedy
    about = f"warmup_steps={literal} (a share of the run, at most {LONGEST}, is safe; how many "
    return False, f"{about}steps this run has is not known before its data are read)", remedy


def _steps(config: Node) -> int | None:
    """Return the steps of a run whose dataset has a published size; None if it is not known."""
    if config["steps"] is not None:
        return int(config["steps"])
    dataset, epochs, batch = config["dataset"], config["epochs"], config["batch_size"]
    name = option_files.option("dataset", dataset)
    cut = [key for key in ("shots", "subset") if dataset.get(key) is not None]
    pairs = about.of(config["strategy"]).every_pair
    if name is None or epochs is None or batch is None or cut or pairs:
        return None
    images = published.images(name, "train", dataset.get("scheme"))
    return images and -(-images // batch) * int(epochs)


def _retention(config: Node) -> Check:
    node, dataset = config["retention"], option_files.option("dataset", config["dataset"])
    named = option_files.option("dataset", node) if node else None
    remedy = f"retention={'dtd' if dataset == 'cifar10' else 'cifar10'}"
    if str(config["model"].get("pretrained")).startswith("assets:"):
        remedy = "retention=shapes retention.scene=pretrain"  # what the embedded models have seen
    return node is not None, f"retention={named} (what is forgotten)", remedy


def _depth(config: Node, name: str, *, clip: bool) -> Check:
    """Check the freezing depth; the guide's learning rate differs for partial fine-tuning."""
    remedy, lr = options.half(config["model"]), config["lr"]
    low, high = published_ranges.GUIDE[published_ranges.PARTIAL].lr
    if clip and lr is not None and not low <= lr <= high:
        remedy = f"{remedy} lr={published_ranges.GUIDE[published_ranges.PARTIAL].middle:.2g}"
    return name != published_ranges.FULL, f"freeze_depth={config['freeze_depth']}: {name}", remedy


def _validation(config: Node) -> Check:
    by = config["monitor"] or "the dataset's own metric"
    return True, f"epochs are chosen on val, by {by}", ""
