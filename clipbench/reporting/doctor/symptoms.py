"""Symptoms of training gone wrong in a run's record, their evidence, and what to try.

The symptoms and most of the fixes are the OpenCLIP fine-tuning guide's.
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

# The guide gives no numbers for these; they were chosen on the runs of tests/doctor.
NOTHING = 0.01  # of the loss of guessing: a smaller loss, or rise of one, does not count
PERFECT = 0.995  # of a share: nothing can be gained above it
RISE = 0.1  # of val/loss above its lowest, relative: overfitting
REMAINS = 0.5  # of the loss of guessing: if more remains in train/loss, it is underfitting
FORGOTTEN = 0.05  # of the accuracy on another task or a shift, absolute
LONG_WARMUP = 0.35  # of the run; big_vision and FT-CLIP warm up for 0.2 of theirs
AT_GUESSING = 0.97  # of the loss of guessing above its floor: nothing is learnt
BURST = 1.5  # highest train/loss over that of guessing: it has diverged
GAP = 1.3  # val/loss over train/loss of the second epoch
ONE_CLASS = 0.5  # of the predictions, for a class with less than half as many images
UNEVEN = 0.15  # of accuracy above the mean over classes
WIDE = 0.2  # of Wilson's 95 % interval of an accuracy: fewer than about 100 images


@dataclass(frozen=True)
class Finding:
    """A symptom of a run, the numbers that show it, and overrides to try, the first one first."""

    name: str
    evidence: str
    remedies: tuple[str, ...]


def diverged(case: Case) -> Iterator[Finding]:
    """Find training that ended in non-finite numbers, or in a loss above that of guessing."""
    losses = case.losses
    evidence = None
    if case.record.status == "diverged":
        evidence = str(case.record.error).partition(";")[0]
    # A random head begins a little above guessing.
    elif len(losses) > 1 and _above(case) and max(losses) >= BURST * (case.guessing or 0):
        evidence = (
            f"train/loss came to {max(losses):.2f} and ends at {losses[-1]:.2f}; guessing is "
            f"{case.guessing:.2f}"
        )
    if evidence is not None:
        yield Finding("divergence", evidence, remedies.calmer(case))


def _above(case: Case) -> bool:
    """Return whether the last loss is above that of guessing, and the learning rate not low."""
    if not case.guessing or not case.losses:
        return False
    return case.losses[-1] > 1.05 * case.guessing and not case.cautious


def nothing_learnt(case: Case) -> Iterator[Finding]:
    """Find a loss that stays that of guessing: ln(classes), or ln(batch) for pairs."""
    losses = case.losses
    if not case.guessing or len(losses) < 2 or case.record.status == "diverged":
        return
    last = losses[-max(1, len(losses) // 3) :]
    least = case.floor + AT_GUESSING * (case.guessing - case.floor)
    if case.cautious or not all(least <= loss <= 1.05 * case.guessing for loss in last):
        return
    over = "batch" if case.of_pairs else "classes"
    evidence = f"train/loss stays at {last[-1]:.3f}, ln({over}) is {case.guessing:.3f}"
    yield Finding("collapse", evidence, remedies.calmer(case))


def overfitting(case: Case) -> Iterator[Finding]:
    """Find overfitting. The guide: training loss decreases, validation loss increases."""
    train = dict(case.series("train/loss"))
    val = [(epoch, loss) for epoch, loss in case.series("val/loss") if epoch > 0]
    if len(val) < 3:
        return
    (best, lowest), (last, end) = min(val, key=lambda row: row[1]), val[-1]
    rises = end - lowest >= max(RISE * lowest, NOTHING * (case.guessing or 0))
    if best == last or not rises or train[last] >= train[best]:
        return
    yield Finding(
        "overfitting",
        f"val/loss {lowest:.3f} at epoch {best}, {end:.3f} at {last}, while train/loss fell from "
        f"{train[best]:.3f} to {train[last]:.3f}",
        (
            *(remedies.until(case, best), *remedies.deeper(case)),
            *(remedies.slower(case, 0.3), remedies.regularized(case)),
        ),
    )


def underfitting(case: Case) -> Iterator[Finding]:
    """Find underfitting. The guide: losses remain high, no improvement over the start."""
    mixes = any((case.config["augment"].get(key) or 0) > 0 for key in ("mixup", "cutmix"))
    if not case.losses or not case.guessing or mixes or _above(case) or any(nothing_learnt(case)):
        return
    first, last, most = (x - case.floor for x in (case.losses[0], case.losses[-1], case.guessing))
    if most <= 0:
        return  # a batch of one class has nothing to tell apart
    scores = case.series(case.metric)
    good = last < NOTHING * most or (case.of_share and scores[-1][1] >= 0.9)
    stands_still = last > 0.9 * first and not good and len(case.losses) > 2
    if last < REMAINS * most and not stands_still:
        return
    floor = f", the least it can be {case.floor:.3f}" if case.floor else ""
    yield Finding(
        "underfitting",
        f"train/loss {case.losses[0]:.3f} in its first epoch, {case.losses[-1]:.3f} in its last; "
        f"guessing is {case.guessing:.3f}{floor}",
        remedies.more(case),
    )


def forgetting(case: Case) -> Iterator[Finding]:
    """Find forgetting. The guide: good on the tuned task, poor on general ones."""
    pairs = [("retention/acc", value) for _, value in case.series("retention/acc")[:1]]
    for point in case.record.alpha_curve:
        if point["alpha"] == 0:
            pairs += [(k, v) for k, v in point.items() if re.match(r"test_\w+/acc$", k)]
    for key, before in pairs:
        after = case.record.final.get(key)
        if after is None or before - after < FORGOTTEN:
            continue
        mix = remedies.mixed(case) if key == "retention/acc" else ()
        yield Finding(
            "forgetting",
            f"{key} {before:.3f} before training, {after:.3f} after"
            f"{_on_the_line(case, key, before)}",
            (
                *(*remedies.averaged(case), remedies.slower(case, 0.3)),
                *(*remedies.deeper(case), *mix),
            ),
        )


def _on_the_line(case: Case, key: str, before: float) -> str:
    """Describe the point between start and end that is best on val and forgets nothing."""
    points = [p for p in case.between if before - p.get(key, -1.0) < FORGOTTEN]
    if not points:
        return ""
    best = max(points, key=lambda point: case.good(point[case.metric]))
    at = f"{best[key]:.3f} at alpha={best['alpha']:g} of its line"
    return f"; {at}, with {case.metric} {best[case.metric]:.3f}"


def warmup(case: Case) -> Iterator[Finding]:
    """Find warm-up that never ends, or takes a large share of the run."""
    steps, plan = case.record.steps, "warmup_steps=null warmup=0.1"
    if steps.total and steps.warmup >= steps.total:
        evidence = (
            f"{steps.warmup} steps of warm-up in a run of {steps.total}: the learning rate "
            f"peaked at {steps.peak_lr:.2g}, not {case.lr:.2g}"
        )
        yield Finding("unfinished warm-up", evidence, (plan,))
    elif steps.total and steps.warmup > max(1, LONG_WARMUP * steps.total):
        share = steps.warmup / steps.total
        evidence = f"{steps.warmup} of {steps.total} steps ({share:.0%}) are warm-up"
        yield Finding("long warm-up", evidence, (plan, remedies.longer(case, 2)))


def batchnorm(case: Case) -> Iterator[Finding]:
    """Find a model far worse in evaluation than in training, before it could memorize images.

    That is in the second epoch, while train/loss falls, so that its mean overstates it.
    """
    train, val = dict(case.series("train/loss")), dict(case.series("val/loss"))
    keys = options.own_keys(case.config["strategy"], "BatchNorm")
    if not keys or not has_batchnorm(case.config["model"]):
        return
    if not {1, 2} <= train.keys() & val.keys() or train[2] > train[1] or val[2] < GAP * train[2]:
        return
    larger = ("batch_size=64",) if case.record.batch_size < 64 else ()
    yield Finding(
        "BatchNorm",
        f"in epoch 2 val/loss is {val[2]:.2f} and train/loss {train[2]:.2f}: its statistics do "
        "not fit weights that moved so fast, or batches so small",
        (remedies.slower(case), *keys, *larger),
    )


def learning_rate(case: Case) -> Iterator[Finding]:
    """Find a learning rate outside the guide's range that the option's file does not recommend."""
    parts = case.config["model"], case.config["strategy"]
    if not case.clip or not case.trains or published_ranges.fits(*parts, case.lr):
        return
    name, usual = published_ranges.row(*parts), published_ranges.recommended(*parts)
    guide = published_ranges.GUIDE[name]
    yield Finding(
        "learning rate",
        f"lr={case.lr:g}; the OpenCLIP guide has {guide.lr[0]:g} to {guide.lr[1]:g} for {name}",
        (f"lr={guide.middle:.2g}", *([f"lr={usual:g}"] if usual else [])),
    )


def no_gain(case: Case) -> Iterator[Finding]:
    """Find a run in which no epoch was better than the start."""
    scores = dict(case.series(case.metric))
    if case.record.selection.epoch != 0 or not case.trains or len(scores) < 2:
        return
    after = max((value for epoch, value in scores.items() if epoch > 0), key=case.good)
    if case.gain(scores[0], after) > 0 or (case.of_share and scores[0] >= PERFECT):
        return
    classes = "val" in case.confusion
    strategies = options.by_strategy(case.config["strategy"], "no gain") if classes else ()
    deeper, averaged = remedies.deeper(case), remedies.averaged(case)
    yield Finding(
        "no gain",
        f"{case.metric} {scores[0]:.3f} before training and at best {after:.3f} after",
        (remedies.slower(case), *deeper, *strategies, *averaged),
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
    evidence = f"{case.metric} still {way} from {third:.3f} to {last:.3f}, its last epoch's"
    yield Finding("stopped early", evidence, (remedies.longer(case, 2),))


def class_collapse(case: Case) -> Iterator[Finding]:
    """Find a class that takes most of the predictions."""
    counts = case.confusion.get("val")
    if counts is None or counts.shape[0] < 3:
        return
    predicted, true = counts.sum(0) / counts.sum(), counts.sum(1) / counts.sum()
    top = int(predicted.argmax())
    if predicted[top] < max(ONE_CLASS, 2 * true[top]):
        return
    yield Finding(
        "class collapse",
        f"{predicted[top]:.0%} of val is taken for class {top}, which has {true[top]:.0%}; "
        f"{int((predicted > 0).sum())} of {len(predicted)} classes are ever predicted",
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
    evidence = f"val/acc before training is {start:.3f}, guessing {guess:.3f}"
    if case.config["model"].get("pretrained") is None:
        fix = (options.pretrained(case.config["model"]),)
        yield Finding("no pretrained weights", f"{evidence}; model.pretrained is null", fix)
    else:
        name = "names and labels disagree"
        yield Finding(name, evidence, remedies.renamed(case, name))


def imbalance(case: Case) -> Iterator[Finding]:
    """Find large classes that are learnt beside small ones that are not."""
    acc, mean = (case.record.final.get(f"val/{key}") for key in ("acc", "mean_per_class"))
    if acc is None or mean is None or acc - mean < UNEVEN:
        return
    monitored = () if case.metric == "val/mean_per_class" else ("monitor=mean_per_class",)
    evidence = f"val/acc {acc:.3f}, but the mean over classes is {mean:.3f}"
    yield Finding("imbalance", evidence, (*remedies.balanced(case), *monitored))


def small_splits(case: Case) -> Iterator[Finding]:
    """Find a val or test split too small to tell models apart."""
    for split, data in case.record.data.items():
        acc = case.record.final.get(f"{split}/acc")
        if split == "train" or acc is None or not data.n:
            continue
        ends = wilson(acc, data.n)
        if ends.high - ends.low > WIDE:
            true = f"{acc:.2f} may be {ends.low:.2f} to {ends.high:.2f}"
            evidence = f"{split} has {data.n} images: {true}"
            yield Finding("small split", evidence, remedies.larger_splits(case))


# Those that explain others come first.
SYMPTOMS: tuple[Callable[[Case], Iterator[Finding]], ...] = (
    *(diverged, nothing_learnt, names, warmup, learning_rate, batchnorm, class_collapse),
    *(no_gain, overfitting, underfitting, stopped_early, forgetting, imbalance, small_splits),
)


def diagnose(case: Case) -> list[Finding]:
    """Return every finding, those that explain others first."""
    return [finding for look in SYMPTOMS for finding in look(case)]
