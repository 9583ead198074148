"""Overrides to try: each can be pasted behind a run's own command, and fits its model."""

from clipbench.reporting.doctor import options
from clipbench.reporting.doctor.case import Case
from clipbench.strategies import published_ranges

Lines = tuple[str, ...]  # the one to try first is first


def times(value: float, factor: float) -> str:
    """Return a product in two digits, as one would type it."""
    return f"{value * factor:.2g}"


def slower(case: Case, factor: float = 0.1) -> str:
    """Return a smaller learning rate."""
    return f"lr={times(case.lr, factor)}"


def with_warmup(case: Case, share: float) -> str:
    """Return a warm-up that is a share of the run, whatever it is now."""
    literal = case.config.get("warmup_steps") is not None
    return f"warmup_steps=null warmup={share}" if literal else f"warmup={share}"


def calmer(case: Case) -> Lines:
    """Return what brings a run back to finite, falling losses."""
    return (slower(case), f"{slower(case)} {with_warmup(case, 0.2)}")


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
    """Return a deeper freezing than this run's, if there is one: half of the blocks, or all."""
    now = case.config["strategy"].get("freeze_depth", "all")
    blocks = [n for n in case.record.parameters.groups if n.startswith("block ")]
    half = max(1, len(blocks) // 2)
    if now == "all":
        return ()
    return (f"freeze_depth={half if int(now or 0) < half else 'all'}",)


def averaged(case: Case) -> Lines:
    """Return WiSE-FT's line, where there is a start to average with and this run has none."""
    scratch = (
        published_ranges.row(case.config["model"], case.config["strategy"])
        == published_ranges.SCRATCH
    )
    return ("alphas=10",) if case.clip and case.trains and not scratch and not case.between else ()


def mixed(case: Case) -> Lines:
    """Return batches mixed with the dataset that is forgotten, where the strategy can take them."""
    kept, busy = case.config.get("retention"), case.config.get("mix")
    able = {"image", "head"} <= {*case.about.trains} and case.clip
    told = options.words("dataset", kept, "mix") if kept and able and not busy else None
    return (f"{told} mix_fraction=0.25",) if told else ()


def regularized(case: Case) -> str:
    """Return more weight decay, and more augmentation than this run has."""
    usual = case.config["augment"].get("hflip")
    decay = times(case.config["weight_decay"] or 0.05, 2)
    return f"weight_decay={decay} augment={'randaugment' if usual else 'crop_flip'}"


def more(case: Case) -> Lines:
    """Return what makes a run learn more: the guide's remedies for underfitting, in its order."""
    usual = published_ranges.own_lr(case.config["model"], case.config["strategy"]) or case.lr
    total, size, smaller = case.record.steps.total, case.record.batch_size, []
    if total / max(1, case.epochs) < 8 and size > 16:
        smaller = [f"batch_size={max(16, size // 4)}"]
    higher = usual if case.cautious else 3 * case.lr
    faster = [f"lr={higher:.2g}"] if higher > case.lr else []  # else it is the warm-up's fault
    thawed = ["freeze_depth=0"] if case.record.freeze_depth else []
    return (*smaller, *faster, longer(case, 3), *thawed, *_freer(case))


def _freer(case: Case) -> Lines:
    """Return less regularization, where there is any."""
    decay, smoothing = case.config["weight_decay"], case.config.get("label_smoothing")
    lines = [f"weight_decay={times(decay, 0.1)}"] if decay else []
    lines += ["label_smoothing=0"] if smoothing and not case.of_pairs else []
    return (" ".join(lines),) if lines else ()


def balanced(case: Case) -> Lines:
    """Return ways to give rare classes their share, those that the loss can take."""
    now = (case.config.get("dataset") or {}).get("balance")
    ways = ["sampler"] if case.of_pairs else ["weights", "sampler"]
    return tuple(f"dataset.balance={way}" for way in ways if way != now)


def renamed(case: Case, symptom: str) -> Lines:
    """Return other names of the classes, or a head that reads none."""
    own = (case.config.get("dataset") or {}).get("class_names") is not None
    return (
        *(("dataset.class_names=null",) if own else ()),
        "prompts=openai",
        *options.by_strategy(case.config["strategy"], symptom),
    )


def larger_splits(case: Case) -> Lines:
    """Return larger val and test splits where they are carved from train, and more seeds."""
    dataset = case.config.get("dataset") or {}
    lines = [f"dataset.{key}=0.3" for key in ("val_fraction", "test_fraction") if key in dataset]
    whole = ["dataset.subset=null"] if dataset.get("subset") is not None else []
    return (*whole, *((" ".join(lines),) if lines else ()), "-m seed=0,1,2,3,4")
