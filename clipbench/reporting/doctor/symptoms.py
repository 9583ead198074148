"""Symptoms in a run's record of training gone wrong, their evidence, and what to try.

The symptoms and most of the fixes are the OpenCLIP fine-tuning guide's; numbers that it does not
give are ours, chosen on the runs of ``tests/doctor``, and said to be so.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from clipbench.metrics.intervals import wilson
from clipbench.models.about import has_batchnorm
from clipbench.reporting.doctor import options, remedies
from clipbench.reporting.doctor.case import Case
from clipbench.strategies import published_ranges

NOTHING = 0.01  # of the loss of guessing: less is no loss, and no rise of one. Ours.
PERFECT = 0.995  # of a share: nothing is to be gained above it. Ours.
RISE = 0.1  # of val/loss above its lowest, relative: overfitting. Ours.
LEFT = 0.5  # of the loss of guessing: more than that left in train/loss is underfitting. Ours.
FORGOTTEN = 0.05  # of another task's or a shift's accuracy, absolute. Ours.
LONG_WARMUP = 0.35  # of the run; big_vision and FT-CLIP warm up for 0.2 of theirs. Ours.
AT_GUESSING = 0.97  # of the loss of guessing above its floor: nothing is learnt. Ours.
BURST = 1.5  # train/loss over that of guessing, on its way: it has diverged. Ours.
GAP = 1.3  # val/loss over train/loss of the second epoch. Ours.
ONE_CLASS = 0.5  # of the predictions, where it has less than half as many images. Ours.
UNEVEN = 0.15  # of accuracy above the mean over classes. Ours.
WIDE = 0.2  # of Wilson's 95 % interval of an accuracy: under some 100 images. Ours.


@dataclass(frozen=True)
class Finding:
    """A symptom that a run shows.

    Attributes:
        name: of it.
        evidence: the numbers that show it.
        remedies: overrides to try, the first one first, each a line to add to the command.
    """

    name: str
    evidence: str
    remedies: tuple[str, ...]


def diverged(case: Case) -> Iterator[Finding]:
    """Find training that ended in non-finite numbers, or in a loss above that of guessing."""
    losses = case.series("train/loss")
    lower = remedies.calmer(case)
    if case.record.status == "diverged":
        yield Finding("divergence", str(case.record.error).partition(";")[0], lower)
    elif case.guessing and len(losses) > 1 and _above(case, losses[-1][1]):
        highest = max(value for _, value in losses)
        if highest < BURST * case.guessing:
            return  # a random head begins a little above it
        said = f"train/loss came to {highest:.2f} and ends at {losses[-1][1]:.2f}; guessing is "
        yield Finding("divergence", f"{said}{case.guessing:.2f}", lower)


def _above(case: Case, loss: float) -> bool:
    """Return whether a loss is above that of guessing, for no lack of learning rate."""
    return bool(case.guessing) and loss > 1.05 * (case.guessing or 0) and not case.cautious


def nothing_learnt(case: Case) -> Iterator[Finding]:
    """Find a loss that stays that of guessing: ln(classes), or ln(batch) for pairs."""
    losses = [value for _, value in case.series("train/loss")]
    if not case.guessing or len(losses) < 2 or case.record.status == "diverged":
        return
    last = losses[-max(1, len(losses) // 3) :]
    least = case.floor + AT_GUESSING * (case.guessing - case.floor)
    close = all(least <= value <= 1.05 * case.guessing for value in last)
    if not close or case.cautious:
        return
    what = "batch" if case.guessing != _of_classes(case) else "classes"
    yield Finding(
        "collapse",
        f"train/loss stays at {last[-1]:.3f}, ln({what}) is {case.guessing:.3f}",
        remedies.calmer(case),
    )


def _of_classes(case: Case) -> float:
    return math.log(case.confusion["val"].shape[0]) if "val" in case.confusion else 0.0


def overfitting(case: Case) -> Iterator[Finding]:
    """Find overfitting. The guide: training loss decreases, validation loss increases."""
    val, train = case.series("val/loss"), dict(case.series("train/loss"))
    trained = [(epoch, value) for epoch, value in val if epoch > 0]
    if len(trained) < 3:
        return
    best, lowest = min(trained, key=lambda row: row[1])
    last, ends = trained[-1]
    rises = ends - lowest >= max(RISE * lowest, NOTHING * (case.guessing or 0))
    if best == last or not rises or train[last] >= train[best]:
        return
    yield Finding(
        "overfitting",
        f"val/loss {lowest:.3f} at epoch {best}, {ends:.3f} at {last}, while train/loss fell from "
        f"{train[best]:.3f} to {train[last]:.3f}",
        (
            remedies.until(case, best),
            *remedies.deeper(case),
            remedies.slower(case, 0.3),
            remedies.regularized(case),
        ),
    )


def underfitting(case: Case) -> Iterator[Finding]:
    """Find underfitting. The guide: losses remain high, no improvement over the start."""
    losses = [value for _, value in case.series("train/loss")]
    mixes = any((case.config["augment"].get(key) or 0) > 0 for key in ("mixup", "cutmix"))
    if not losses or not case.guessing or mixes or _above(case, losses[-1]):
        return
    if any(True for _ in nothing_learnt(case)):
        return
    first, last, most = (loss - case.floor for loss in (losses[0], losses[-1], case.guessing))
    if most <= 0:
        return  # a batch of one class has nothing to tell apart
    if last < LEFT * most and not _at_a_stand(case, first, last, most):
        return
    yield Finding(
        "underfitting",
        f"train/loss {losses[0]:.3f} in its first epoch, {losses[-1]:.3f} in its last; guessing is "
        f"{case.guessing:.3f}{_least(case)}",
        remedies.more(case),
    )


def _at_a_stand(case: Case, first: float, last: float, most: float) -> bool:
    """Return whether the loss hardly fell though the model is not good already."""
    scores = case.series(case.metric)
    good = last < NOTHING * most or (case.of_share and scores[-1][1] >= 0.9)
    return last > 0.9 * first and not good and len(case.series("train/loss")) > 2


def _least(case: Case) -> str:
    return f", the least it can be {case.floor:.3f}" if case.floor else ""


def forgetting(case: Case) -> Iterator[Finding]:
    """Find forgetting. The guide: good on the tuned task, poor on general ones."""
    ends = case.record.final
    first = case.series("retention/acc")[:1]
    pairs = [("retention/acc", first[0][1])] if first else []
    for point in case.record.alpha_curve:
        if point["alpha"] == 0:
            pairs += [(k, v) for k, v in point.items() if re.match(r"test_\w+/acc$", k)]
    for key, before in pairs:
        after = ends.get(key)
        if after is None or before - after < FORGOTTEN:
            continue
        mix = remedies.mixed(case) if key == "retention/acc" else ()
        told = _on_the_line(case, key, before)
        yield Finding(
            "forgetting",
            f"{key} {before:.3f} before training, {after:.3f} after{told}",
            (
                *remedies.averaged(case),
                remedies.slower(case, 0.3),
                *remedies.deeper(case),
                *mix,
            ),
        )


def _on_the_line(case: Case, key: str, before: float) -> str:
    """Describe the point between start and end that is best on val and forgets nothing."""
    kept = [p for p in case.between if before - p.get(key, -1.0) < FORGOTTEN]
    if not kept:
        return ""
    best = max(kept, key=lambda point: case.good(point[case.metric]))
    told = f"{case.metric} {best[case.metric]:.3f}"
    return f"; {best[key]:.3f} at alpha={best['alpha']:g} of its line, with {told}"


def warmup(case: Case) -> Iterator[Finding]:
    """Find warm-up that never ends, or takes a large share of the run."""
    steps, plan = case.record.steps, "warmup_steps=null warmup=0.1"
    if not steps.total:
        return
    if steps.warmup >= steps.total:
        yield Finding(
            "unfinished warm-up",
            f"{steps.warmup} steps of warm-up in a run of {steps.total}: the learning rate "
            f"peaked at {steps.peak_lr:.2g}, not {case.lr:.2g}",
            (plan,),
        )
    elif steps.warmup > LONG_WARMUP * steps.total and steps.warmup > 1:
        share = steps.warmup / steps.total
        yield Finding(
            "long warm-up",
            f"{steps.warmup} of {steps.total} steps ({share:.0%}) are warm-up",
            (plan, remedies.longer(case, 2)),
        )


def batchnorm(case: Case) -> Iterator[Finding]:
    """Find a model far worse in evaluation than in training, before it could memorize images.

    That is in the second epoch, while train/loss falls, so that its mean overstates it.
    """
    train, val = dict(case.series("train/loss")), dict(case.series("val/loss"))
    kept = options.own_keys(case.config["strategy"], "BatchNorm")
    moved = kept and has_batchnorm(case.config["model"])
    if not moved or not {1, 2} <= train.keys() & val.keys():
        return
    if train[2] > train[1] or val[2] < GAP * train[2]:
        return
    larger = ("batch_size=64",) if case.record.batch_size < 64 else ()
    yield Finding(
        "BatchNorm",
        f"in epoch 2 val/loss is {val[2]:.2f} and train/loss {train[2]:.2f}: its statistics do "
        "not fit weights that moved so fast, or batches so small",
        (remedies.slower(case), *kept, *larger),
    )


def learning_rate(case: Case) -> Iterator[Finding]:
    """Find a learning rate outside the guide's range that the option's file does not recommend."""
    model, strategy = case.config["model"], case.config["strategy"]
    if not case.clip or not case.trains or published_ranges.fits(model, strategy, case.lr):
        return
    name, usual = (
        published_ranges.row(model, strategy),
        published_ranges.recommended(model, strategy),
    )
    low, high = published_ranges.GUIDE[name].lr
    yield Finding(
        "learning rate",
        f"lr={case.lr:g}; the OpenCLIP guide has {low:g} to {high:g} for {name}",
        (f"lr={published_ranges.GUIDE[name].middle:.2g}", *([f"lr={usual:g}"] if usual else [])),
    )


def no_gain(case: Case) -> Iterator[Finding]:
    """Find a run in which no epoch was better than the start."""
    scores = dict(case.series(case.metric))
    if case.record.selection.epoch != 0 or not case.trains or len(scores) < 2:
        return
    after = max((value for epoch, value in scores.items() if epoch > 0), key=case.good)
    if case.gain(scores[0], after) > 0 or (case.of_share and scores[0] >= PERFECT):
        return
    other = options.by_strategy(case.config["strategy"], "no gain")
    other = other if "val" in case.confusion else ()
    yield Finding(
        "no gain",
        f"{case.metric} {scores[0]:.3f} before training and at best {after:.3f} after",
        (remedies.slower(case), *remedies.deeper(case), *other, *remedies.averaged(case)),
    )


def stopped_early(case: Case) -> Iterator[Finding]:
    """Find a run whose last epoch is best, with a curve that improves by more than its noise."""
    scores = case.series(case.metric)
    if case.record.selection.epoch != case.epochs or len(scores) < 4:
        return
    third, last = scores[-1 - max(2, len(scores) // 3)][1], scores[-1][1]
    least = max(0.02, case.noise) if case.of_share else case.noise
    if case.gain(third, last) <= least or (case.of_share and last >= PERFECT):
        return
    way = "rose" if last > third else "fell"
    yield Finding(
        "stopped early",
        f"{case.metric} still {way} from {third:.3f} to {last:.3f}, its last epoch's",
        (remedies.longer(case, 2),),
    )


def class_collapse(case: Case) -> Iterator[Finding]:
    """Find a class that takes most of the predictions."""
    counts = case.confusion.get("val")
    if counts is None or counts.shape[0] < 3:
        return
    said, true = counts.sum(0) / counts.sum(), counts.sum(1) / counts.sum()
    top = int(said.argmax())
    if said[top] < ONE_CLASS or said[top] < 2 * true[top]:
        return
    yield Finding(
        "class collapse",
        f"{said[top]:.0%} of val is taken for class {top}, which has {true[top]:.0%}; "
        f"{int((said > 0).sum())} of {len(said)} classes are ever predicted",
        (remedies.slower(case), *remedies.balanced(case)),
    )


def names(case: Case) -> Iterator[Finding]:
    """Find a zero-shot start no better than guessing."""
    counts, start = case.confusion.get("val"), dict(case.series("val/acc")).get(0)
    if counts is None or start is None or not case.clip:
        return
    guess, n = 1 / counts.shape[0], int(counts.sum())
    if start > guess + 2 * math.sqrt(guess * (1 - guess) / n) + 0.02:
        return
    said = f"val/acc before training is {start:.3f}, guessing {guess:.3f}"
    if case.config["model"].get("pretrained") is None:
        fix = (options.pretrained(case.config["model"]),)
        yield Finding("no pretrained weights", f"{said}; model.pretrained is null", fix)
        return
    name = "names and labels disagree"
    yield Finding(name, said, remedies.renamed(case, name))


def imbalance(case: Case) -> Iterator[Finding]:
    """Find large classes that are learnt beside small ones that are not."""
    acc, mean = (case.record.final.get(f"val/{key}") for key in ("acc", "mean_per_class"))
    if acc is None or mean is None or acc - mean < UNEVEN:
        return
    monitored = () if case.metric == "val/mean_per_class" else ("monitor=mean_per_class",)
    yield Finding(
        "imbalance",
        f"val/acc {acc:.3f}, but the mean over classes is {mean:.3f}",
        (*remedies.balanced(case), *monitored),
    )


def small_splits(case: Case) -> Iterator[Finding]:
    """Find a val or test split too small to tell models apart."""
    for split, told in case.record.data.items():
        acc = case.record.final.get(f"{split}/acc")
        if split == "train" or acc is None or not told.n:
            continue
        found = wilson(acc, told.n)
        if found.high - found.low > WIDE:
            fix = remedies.larger_splits(case)
            said = f"{split} has {told.n} images: {acc:.2f} may be {found.low:.2f} to "
            yield Finding("small split", f"{said}{found.high:.2f}", fix)


SYMPTOMS: tuple[Callable[[Case], Iterator[Finding]], ...] = (
    *(diverged, nothing_learnt, names, warmup, learning_rate, batchnorm, class_collapse),
    *(no_gain, overfitting, underfitting, stopped_early, forgetting, imbalance, small_splits),
)


def diagnose(case: Case) -> list[Finding]:
    """Return every finding, those that explain others first."""
    return [finding for look in SYMPTOMS for finding in look(case)]
