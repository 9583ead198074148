"""The page of a report: plain values, rendered by one template that escapes them."""

import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd

from clipbench.core import files
from clipbench.core.config.option_files import Node
from clipbench.core.console import duration
from clipbench.core.errors import UserError
from clipbench.reporting.page import disagreements, page_figures, templates, verdict
from clipbench.reporting.page.answers import Answer, answers
from clipbench.reporting.page.candidates import Candidate
from clipbench.reporting.page.untried import untried
from clipbench.results import frames, sweep_log

SIDE = 128  # pixels of a thumbnail
CLASSES = 12  # classes that are shown
COSTS = ("M parameters", "trained", "memory, GB", "time", "points per minute")


def rendered(name: str, runs: frames.Runs, failed: Sequence[Node], plan: Node) -> str:
    """Return the page of a sweep as HTML.

    Args:
        name: of the sweep.
        runs: completed runs.
        failed: jobs of the sweep without a result.
        plan: of :mod:`clipbench.compare`; empty for another sweep.
    """
    by_dataset = answers(runs)
    commits = sorted({str((record.git or {}).get("commit"))[:8] for _, record in runs})
    version = f"clipbench {runs[0][1].versions.get('clipbench')} ({', '.join(commits)})"
    return templates.render(
        "report.html",
        title=f"clipbench: {name}",
        notice=verdict.stand_ins(plan, by_dataset),
        parts=[part(answer) for answer in by_dataset],
        untried=list(untried(runs, by_dataset, failed, plan)),
        made=f"{version}, {date.today().isoformat()}; sweep {name}, {len(runs)} runs.",
        side=SIDE,
    )


def part(answer: Answer) -> dict[str, Any]:
    """Return the values of the template for one dataset."""
    split, metric, guess = answer.split, answer.metric, answer.guessing()
    most = max(candidate.tried for candidate in answer.candidates)
    columns = ["", "val", split, "95 %", *answer.shifts, *COSTS]
    columns += ["time of all tried"] if most > 1 else []
    settings = f", and each setting from up to {most} runs" if most > 1 else ""
    base = f"always guessing the largest class ({100 * guess:.1f})" if guess else "0"
    label = f"val/{metric} by epoch on {answer.dataset}"
    return {
        "dataset": answer.dataset,
        "headline": verdict.headline(answer),
        "score": verdict.score(answer, answer.leader),
        "sure": list(verdict.sureness(answer)),
        "costs": list(verdict.costs(answer)),
        "compared": len(answer.compared),
        "decided": answer.clear,
        "chosen": f"Val chose the epochs{settings}; {split} was read once.",
        "n": answer.n,
        "split": split,
        "columns": columns,
        "rows": [_row(answer, c, guess)[: len(columns)] for c in answer.candidates],
        "caption": f"{metric}, in %. Val chose the first row; it is bold if it is better than "
        "every other row. Time is that of a whole run, with loading and evaluation. Points per "
        f"minute are those above {base}.",
        "curves": page_figures.curves(answer.candidates, metric, label),
        **_two(answer),
    }


def _row(answer: Answer, candidate: Candidate, guess: float) -> list[str]:
    interval = candidate.interval(answer.split, answer.metric)
    val, value, *shifts = (
        candidate.mean(f"{split}/{answer.metric}")
        for split in ("val", answer.split, *answer.shifts)
    )
    rate = "" if value is None else f"{100 * (value - guess) / (candidate.seconds / 60):.1f}"
    return [
        candidate.name,
        _number(val),
        _number(value),
        verdict.ends(interval) if interval else "",
        *map(_number, shifts),
        f"{candidate.total / 1e6:.1f}",
        f"{candidate.trained:,}",
        f"{candidate.memory / 1e9:.1f}",
        duration(candidate.seconds),
        rate,
        duration(candidate.tried_seconds),
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _two(answer: Answer) -> dict[str, Any]:
    """Return the leader beside its rival: by class, by image, and the calibration of both."""
    if not answer.guessing():  # captions have no class predictions
        return {}
    leader, split = answer.leader, answer.split
    pair = {leader.name: disagreements.predictions(leader.folders[0], split)}
    for rival in answer.rivals:
        rows = disagreements.predictions(rival.folders[0], split)
        if disagreements.apart(pair[leader.name], rows):  # both may have kept the same start
            pair[rival.name] = rows
            break
    label = f"share that is right by probability, {split} of {answer.dataset}"
    values = {
        "reliability": page_figures.reliability(pair, label),
        "calibration": _ece(answer, [c for c in answer.candidates if c.name in pair]),
    }
    if len(pair) == 1:
        return values
    (first, second), predictions = pair, [*pair.values()]
    table = disagreements.by_class(*predictions)
    by_image = disagreements.by_image(*predictions)
    ids = {name for kind in by_image.values() for name in kind.ids}
    thumbnails = disagreements.thumbnails(leader.records[0], split, ids, SIDE)
    titles = (f"Only {second} is right", f"Only {first} is right", "Both are wrong")
    kinds = [
        {
            "title": title,
            "count": kind.count,
            "images": [
                _image(name, thumbnails[name], *predictions)
                for name in kind.ids
                if name in thumbnails
            ],
        }
        for kind, title in zip(by_image.values(), titles, strict=True)
    ]
    return {
        **values,
        "first": first,
        "second": second,
        "classes": table.head(CLASSES).to_dict("records"),
        "more_classes": max(0, len(table) - CLASSES),
        "kinds": kinds,
        "rule": disagreements.RULE,
    }


def _image(name: str, src: str, first: pd.DataFrame, second: pd.DataFrame) -> dict[str, str]:
    rows = (first.loc[name], second.loc[name])
    texts = [f"{row['prediction_name']} ({row['probability']:.0%})" for row in rows]
    label = str(rows[0]["label_name"])
    values = {"src": src, "label": label, "first": texts[0], "second": texts[1]}
    return {**values, "alt": f"an image of {label}: {name}"}


def _ece(answer: Answer, pair: Sequence[Candidate]) -> str:
    """Return each model's calibration error, before and after the temperature fitted on val."""
    errors = []
    for candidate in pair:
        before, after = (candidate.mean(f"{answer.split}/{key}") for key in ("ece", "ece_scaled"))
        if before is not None:
            scaled = _number(after) and f", {_number(after)} with the temperature fitted on val"
            errors.append(f"{candidate.name}: off by {100 * before:.1f} points on average{scaled}")
    return f"On the line, a probability is the share that is right. {'; '.join(errors)}."


def write(folder: Path, out: Path) -> Path:
    """Write the page of a sweep's folder, and return its path.

    Raises:
        UserError: if no job of the sweep was completed.
    """
    runs, failed = sweep_log.sweep_runs(folder)
    if not runs:
        raise UserError(f"no job of {folder} was completed. Run it again, or read its output.")
    out.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(out, rendered(folder.name, runs, failed, plan(folder)))
    return out


def plan(folder: Path) -> Mapping[str, Any]:
    """Return what :mod:`clipbench.compare` decided for a sweep; empty for other sweeps."""
    path = folder / "plan.json"
    decided: Mapping[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return decided
