"""Overrides to try: each can be pasted behind a run's own command, and fits its model."""

from clipbench.reporting.doctor import options
from clipbench.reporting.doctor.case import Case
from clipbench.strategies import published_ranges

Lines = tuple[str, ...]  # the one to try first is first


def slower(case: Case, factor: float = 0.1) -> str:
    """Return a smaller learning rate."""
    return f"lr={factor * case.lr:.2g}"


def calmer(case: Case) -> Lines:
    """Return what brings a run back to finite, falling losses."""
    literal = "" if case.config.get("warmup_steps") is None else "warmup_steps=null "
    return (slower(case), f"{slower(case)} {literal}warmup=0.2")


def longer(case: Case, factor: float) -> str:
    """Return a length that is a multiple of this run's, in the key that sets it."""
    if steps := case.config.get("steps"):
        return f"steps={round(factor * steps)}"
    return f"epochs={round(factor * max(1, case.epochs))}"


def until(case: Case, epoch: int) -> str:
    """Return the length of a run that ends with an epoch of this one."""
    if steps := case.config.get("steps"):
        return f"steps={max(1, round(steps * epoch / max(1, case.epochs)))}"
    return f"epochs={epoch}"


def deeper(case: Case) -> Lines:
    """Return a deeper freezing than this run's, if possible: half of the blocks, or all."""
    depth = case.config["strategy"].get("freeze_depth", "all")
    if depth == "all":
        return ()
    blocks = [name for name in case.record.parameters.groups if name.startswith("block ")]
    half = max(1, len(blocks) // 2)
    return (f"freeze_depth={half if int(depth or 0) < half else 'all'}",)


def averaged(case: Case) -> Lines:
    """Return WiSE-FT's line, if the run has a start to average with and has not done it yet."""
    row = published_ranges.row(case.config["model"], case.config["strategy"])
    starts = case.clip and case.trains and row != published_ranges.SCRATCH
    return ("alphas=10",) if starts and not case.between else ()


def mixed(case: Case) -> Lines:
    """Return batches mixed with the forgotten dataset, if the strategy can take them."""
    retention = case.config.get("retention")
    able = {"image", "head"} <= {*case.about.trains} and case.clip
    if not retention or not able or case.config.get("mix"):
        return ()
    words = options.words("dataset", retention, "mix")
    return (f"{words} mix_fraction=0.25",) if words else ()


def regularized(case: Case) -> str:
    """Return more weight decay, and more augmentation than this run has."""
    decay = 2 * (case.config["weight_decay"] or 0.05)
    augment = "randaugment" if case.config["augment"].get("hflip") else "crop_flip"
    return f"weight_decay={decay:.2g} augment={augment}"


def more(case: Case) -> Lines:
    """Return what makes a run learn more: the guide's remedies for underfitting, in its order."""
    usual = published_ranges.own_lr(case.config["model"], case.config["strategy"]) or case.lr
    decay, size, lines = case.config["weight_decay"], case.record.batch_size, []
    if case.record.steps.total / max(1, case.epochs) < 8 and size > 16:
        lines.append(f"batch_size={max(16, size // 4)}")
    higher = usual if case.cautious else 3 * case.lr
    if higher > case.lr:  # else it is the warm-up's fault
        lines.append(f"lr={higher:.2g}")
    lines.append(longer(case, 3))
    if case.record.freeze_depth:
        lines.append("freeze_depth=0")
    freer = [f"weight_decay={0.1 * decay:.2g}"] if decay else []
    if case.config.get("label_smoothing") and not case.of_pairs:
        freer.append("label_smoothing=0")
    return (*lines, *([" ".join(freer)] if freer else []))


def balanced(case: Case) -> Lines:
    """Return ways to give rare classes their share, those that the loss can take."""
    now = (case.config.get("dataset") or {}).get("balance")
    ways = ["sampler"] if case.of_pairs else ["weights", "sampler"]
    return tuple(f"dataset.balance={way}" for way in ways if way != now)


def renamed(case: Case, symptom: str) -> Lines:
    """Return other names of the classes, or a head that reads none."""
    typed = (case.config.get("dataset") or {}).get("class_names") is not None
    names = ("dataset.class_names=null",) if typed else ()
    return (*names, "prompts=openai", *options.by_strategy(case.config["strategy"], symptom))


def larger_splits(case: Case) -> Lines:
    """Return larger val and test splits where they are carved from train, and more seeds."""
    dataset = case.config.get("dataset") or {}
    whole = ["dataset.subset=null"] if dataset.get("subset") is not None else []
    cut = [f"dataset.{key}=0.3" for key in ("val_fraction", "test_fraction") if key in dataset]
    return (*whole, *([" ".join(cut)] if cut else []), "-m seed=0,1,2,3,4")
