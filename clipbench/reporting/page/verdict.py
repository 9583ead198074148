"""The sentences of a page's answer, as plain text, which the page escapes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from clipbench.core.console import duration
from clipbench.metrics import registry
from clipbench.metrics.intervals import Interval
from clipbench.metrics.significance import Difference
from clipbench.reporting.page.answers import DRAWN, Answer
from clipbench.reporting.page.candidates import Candidate

REVERSIBLE = "these two trained models differ on these images, and another seed may reverse it"


def percent(value: float | None) -> str:
    """Return a fraction in percent, or an empty text for None and NaN."""
    return "" if value is None or value != value else f"{100 * value:.1f} %"


def points(value: float) -> str:
    """Return a difference of fractions in points, with its sign."""
    rounded = round(100 * value, 1) + 0.0  # no minus before zero
    return f"{rounded:+.1f}".replace("-", "\N{MINUS SIGN}")


def stand_ins(plan: Mapping[str, Any], answers: Sequence[Answer]) -> str | None:
    """Return the first line of a page whose models are stand-ins by the sweep's plan or name."""
    if notice := plan.get("stand_ins"):
        return str(notice)
    models = {c.model for answer in answers for c in answer.candidates}
    tiny = " and ".join(f"{name} is {DRAWN[name]}" for name in sorted(models & DRAWN.keys()))
    warning = "What follows says nothing about CLIP or ResNet50."
    return f"Stand-ins: {tiny}, pretrained on drawings. {warning}" if tiny else None


def headline(answer: Answer) -> str:
    """Return which candidate to take."""
    if len(answer.candidates) == 1:
        return f"On {answer.dataset} there is only {answer.leader.name}"
    return f"On {answer.dataset}, take {answer.leader.name}"


def score(answer: Answer, candidate: Candidate) -> str:
    """Return how good a candidate is, with the interval."""
    interval = candidate.interval(answer.split, answer.metric)
    if interval is None:
        return "nothing was measured"
    template = registry.of(answer.metric).sentence or f"{answer.metric} on {{n:,}} {{split}} images"
    text = f"{percent(interval.estimate)} {template.format(n=answer.n, split=answer.split)}"
    if not ends(interval):
        return text
    over = f"over {interval.n} seeds" if interval.over == "seeds" else "over images"
    return f"{text} (95 % interval {over}: {ends(interval)})"


def ends(interval: Interval) -> str:
    """Return both ends of an interval in percent, with digits enough to tell them apart, or ""."""
    if not interval.low < interval.high:  # NaN too
        return ""
    low, high = 100 * interval.low, 100 * interval.high
    digits = next(d for d in range(1, 17) if f"{low:.{d}f}" != f"{high:.{d}f}")
    return f"{low:.{digits}f} to {high:.{digits}f}"


def sureness(answer: Answer) -> Iterator[str]:
    """Yield what the paired tests show of the leader and the other candidates."""
    if len(answer.candidates) == 1:
        return
    if not answer.compared:
        yield "This was not tested: there are no class predictions to pair."
        return
    for candidates, sentence in (
        (answer.worse, "Better than {}: more than chance explains."),
        (answer.equals, "No difference shown to {}."),
        (answer.better, "Val chose it, but on {split} {} did better."),
    ):
        names = [f"{c.name} ({difference(answer.against(c))})" for c in candidates]
        if names:
            yield sentence.format("; ".join(names), split=answer.split)
    leader = answer.leader
    for rival in answer.of_these_runs:
        gap = difference(answer.against(rival))
        yield f"{leader.name} and {rival.name} ({gap}): {REVERSIBLE}."
    for shift in answer.shifts:
        if (sturdier := answer.sturdier(shift)) is not None:
            key, tested = f"{shift}/{answer.metric}", answer.against(sturdier, shift)
            caution = f"; {REVERSIBLE}" if tested and tested.of_these_runs else ""
            yield (
                f"If images like those of {shift} matter: {sturdier.name} has "
                f"{percent(sturdier.mean(key))} there, {leader.name} {percent(leader.mean(key))} "
                f"({difference(tested)}){caution}."
            )
    if answer.split == "val":
        yield "There is no test split: epochs were chosen on the same images, which flatters all."


def difference(tested: Difference | None) -> str:
    """Return a difference in points, with its interval and p."""
    if tested is None:
        return ""
    p = "p < 0.001" if tested.p < 0.001 else f"p = {tested.p:.2g}"
    return f"{points(tested.estimate)} points, {points(tested.low)} to {points(tested.high)}, {p}"


def costs(answer: Answer) -> Iterator[str]:
    """Yield what the leader costs, and what a cheaper candidate would."""
    leader, key = answer.leader, f"{answer.split}/{answer.metric}"
    name, before = leader.name, leader.before(answer.metric)
    if leader.strategy != "zero_shot" and not any(r.selection.epoch for r in leader.records):
        yield f"No epoch of training was better on val than what {name} started from."
    elif leader.strategy != "zero_shot" and before is not None:
        now = percent(leader.mean(f"val/{answer.metric}"))
        yield f"On val {name} has {now}; before any training it had {percent(before)}."
    yield (
        f"{name} took {duration(leader.seconds)} and at most {leader.memory / 1e9:.1f} GB of "
        f"memory; it has {leader.total / 1e6:.1f} M parameters, of which {leader.trained:,} were "
        "trained."
    )
    if (cheaper := answer.cheaper) is not None:
        yield (
            f"If time matters: {cheaper.name} has {percent(cheaper.mean(key))} after "
            f"{duration(cheaper.seconds)}, and is not shown to be worse."
        )
    for rival in (c for c in answer.candidates if c.strategy == "zero_shot" and c != leader):
        value = percent(rival.mean(key))
        yield f"{rival.name}, which needs no training and no labels, has {value}."
