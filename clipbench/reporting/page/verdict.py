"""An answer in words: plain sentences, which a page escapes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from clipbench.metrics.intervals import Interval
from clipbench.metrics.significance import Difference
from clipbench.reporting.page.answers import DRAWN, Answer
from clipbench.reporting.page.candidates import Candidate

REVERSIBLE = "these two trained models differ on these images, and another seed may reverse it"

SAID = {
    "acc": "of {n:,} {split} pictures right",
    "mean_per_class": "right as the mean over classes, on {n:,} {split} pictures",
    "macro_f1": "macro-F1, on {n:,} {split} pictures",
}


def percent(value: float | None) -> str:
    """A fraction as it is read; nothing for none."""
    return "" if value is None or value != value else f"{100 * value:.1f} %"


def points(value: float) -> str:
    """A difference of fractions, with its sign."""
    rounded = round(100 * value, 1) + 0.0  # no minus before a nought
    return f"{rounded:+.1f}".replace("-", "\N{MINUS SIGN}")


def duration(seconds: float) -> str:
    """A time as it is read."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def stand_ins(plan: Mapping[str, Any], answers: Sequence[Answer]) -> str | None:
    """The first line of a page whose models are not those that the question is about.

    Args:
        plan: of :mod:`clipbench.compare`; empty for another sweep.
        answers: of the page.
    """
    if told := plan.get("stand_ins"):
        return str(told)
    models = {c.model for answer in answers for c in answer.candidates}
    drawn = [f"{name} is {DRAWN[name]}" for name in sorted(models & DRAWN.keys())]
    if not drawn:
        return None
    return (
        f"Stand-ins: {' and '.join(drawn)}, pretrained on drawings. What follows says nothing "
        "about CLIP or ResNet50."
    )


def headline(answer: Answer) -> str:
    """Which one to take."""
    if len(answer.candidates) == 1:
        return f"On {answer.dataset} there is one: {answer.leader.name}"
    return f"On {answer.dataset}, take {answer.leader.name}"


def score(answer: Answer, one: Candidate) -> str:
    """How good it is, and how far that may be off."""
    found = one.interval(answer.split, answer.metric)
    if found is None:
        return "nothing was measured"
    said = SAID.get(answer.metric, f"{answer.metric} on {{n:,}} {{split}} pictures")
    text = f"{percent(found.estimate)} {said.format(n=answer.n, split=answer.split)}"
    if not ends(found):
        return text
    over = f"over {found.n} seeds" if found.over == "seeds" else "over pictures"
    return f"{text} (95 % interval {over}: {ends(found)})"


def ends(found: Interval) -> str:
    """Both ends of an interval in percent, to as many digits as tell them apart; or nothing."""
    if not found.low < found.high:  # NaN too
        return ""
    low, high = 100 * found.low, 100 * found.high
    digits = next(d for d in range(1, 17) if f"{low:.{d}f}" != f"{high:.{d}f}")
    return f"{low:.{digits}f} to {high:.{digits}f}"


def sureness(answer: Answer) -> Iterator[str]:
    """What the paired tests say of the leader against each other."""
    if len(answer.candidates) == 1:
        return
    if not answer.compared:
        yield "How sure that is was not tested: there are no predictions of classes to pair."
        return
    for found, said in (
        (answer.worse, "Better than {}: more than luck of the draw explains."),
        (answer.equals, "No difference shown to {}."),
        (answer.better, "Val chose it, but on {split} {} did better."),
    ):
        told = [f"{one.name} ({difference(answer.against(one))})" for one in found]
        if told:
            yield said.format("; ".join(told), split=answer.split)
    for one in answer.of_these_runs:
        yield (
            f"{answer.leader.name} and {one.name} ({difference(answer.against(one))}): "
            f"{REVERSIBLE}."
        )
    for shift in answer.shifts:
        if (other := answer.sturdier(shift)) is not None:
            value, own = (
                percent(one.mean(f"{shift}/{answer.metric}")) for one in (other, answer.leader)
            )
            there = answer.against(other, shift)
            caution = f"; {REVERSIBLE}" if there and there.of_these_runs else ""
            yield (
                f"If pictures like those of {shift} matter: {other.name} has {value} there, "
                f"{answer.leader.name} {own} ({difference(there)}){caution}."
            )
    if answer.split == "val":
        yield "There is no test split: epochs were chosen on the same pictures, which flatters all."


def difference(one: Difference | None) -> str:
    """In points, with its interval and p."""
    if one is None:
        return ""
    p = "p < 0.001" if one.p < 0.001 else f"p = {one.p:.2g}"
    return f"{points(one.estimate)} points, {points(one.low)} to {points(one.high)}, {p}"


def costs(answer: Answer) -> Iterator[str]:
    """What the leader costs, and what a cheaper one would."""
    one = answer.leader
    before, now = one.before(answer.metric), one.mean(f"val/{answer.metric}")
    if one.strategy != "zero_shot" and not any(r["selection"]["epoch"] for r in one.records):
        yield f"No epoch of training was better on val than what {one.name} started from."
    elif one.strategy != "zero_shot" and before is not None:
        yield f"On val {one.name} has {percent(now)}; before any training it had {percent(before)}."
    yield (
        f"{one.name} took {duration(one.seconds)}, {one.memory / 1e9:.1f} GB of memory at most; "
        f"it has {one.total / 1e6:.1f} M parameters, of which {one.trained:,} were trained."
    )
    if (other := answer.cheaper) is not None:
        value = percent(other.mean(f"{answer.split}/{answer.metric}"))
        yield (
            f"If time matters: {other.name} has {value} after {duration(other.seconds)}, and is "
            "not shown to be worse."
        )
    zero = [c for c in answer.candidates if c.strategy == "zero_shot" and c != one]
    for other in zero:
        value = percent(other.mean(f"{answer.split}/{answer.metric}"))
        yield f"{other.name}, which needs no training and no labels, has {value}."
