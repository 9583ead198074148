"""The page of a report: plain values, rendered by one template that escapes them."""

import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from clipbench.core import files, paths
from clipbench.core.config.option_files import Node
from clipbench.core.console import duration
from clipbench.core.errors import UserError
from clipbench.reporting.page import disagreements, page_figures, verdict
from clipbench.reporting.page.answers import Answer, answers
from clipbench.reporting.page.candidates import Candidate
from clipbench.reporting.page.untried import untried
from clipbench.results import frames, sweep_log

SIDE = 128  # pixels of a thumbnail
CLASSES = 12  # classes that are shown
COSTS = ("M parameters", "trained", "memory, GB", "time", "points per minute")
TRIED = "time of all tried"


def rendered(
    name: str,
    runs: frames.Runs,
    failed: Sequence[Node],
    plan: Node,
) -> str:
    """Return the page of a sweep as HTML.

    Args:
        name: of the sweep.
        runs: completed runs.
        failed: jobs of the sweep without a result.
        plan: of :mod:`clipbench.compare`; empty for another sweep.
    """
    by_dataset = answers(runs)
    commits = {str((record.git or {}).get("commit"))[:8] for _, record in runs}
    version = runs[0][1].versions.get("clipbench")
    made = f"clipbench {version} ({', '.join(sorted(commits))}), {date.today().isoformat()}; "
    loader = jinja2.FileSystemLoader(paths.ASSETS)
    page = jinja2.Environment(loader=loader, autoescape=True).get_template("report.html")
    return page.render(
        title=f"clipbench: {name}",
        notice=verdict.stand_ins(plan, by_dataset),
        parts=[part(answer) for answer in by_dataset],
        untried=list(untried(runs, by_dataset, failed, plan)),
        made=f"{made}sweep {name}, {len(runs)} runs.",
        side=SIDE,
    )


def part(answer: Answer) -> dict[str, Any]:
    """Return the values of the template for one dataset."""
    split, metric = answer.split, answer.metric
    label = f"val/{metric} by epoch on {answer.dataset}"
    shifts = list(answer.shifts)
    tried = [TRIED] if max(c.tried for c in answer.candidates) > 1 else []
    columns, guess = ["", "val", split, "95 %", *shifts, *COSTS, *tried], answer.guessing()
    return {
        "dataset": answer.dataset,
        "headline": verdict.headline(answer),
        "score": verdict.score(answer, answer.leader),
        "sure": list(verdict.sureness(answer)),
        "costs": list(verdict.costs(answer)),
        "compared": len(answer.compared),
        "decided": answer.clear,
        "chosen": _chosen(answer),
        "n": answer.n,
        "split": split,
        "columns": columns,
        "rows": [_row(answer, c, shifts, guess)[: len(columns)] for c in answer.candidates],
        "caption": f"{metric}, in %. Val chose the first row; it is bold if it is better than "
        "every other row. Time is that of a whole run, with loading and evaluation. Points per "
        f"minute are those above {_guessed(guess)}.",
        "curves": page_figures.curves(answer.candidates, metric, label),
        **_two(answer),
    }


def _guessed(share: float) -> str:
    return f"always guessing the largest class ({100 * share:.1f})" if share else "0"


def _chosen(answer: Answer) -> str:
    most = max(c.tried for c in answer.candidates)
    settings = f", and each setting from up to {most} runs" if most > 1 else ""
    return f"Val chose the epochs{settings}; {answer.split} was read once."


def _row(answer: Answer, candidate: Candidate, shifts: Sequence[str], guess: float) -> list[str]:
    interval = candidate.interval(answer.split, answer.metric)
    value = candidate.mean(f"{answer.split}/{answer.metric}")
    rate = "" if value is None else f"{100 * (value - guess) / (candidate.seconds / 60):.1f}"
    return [
        candidate.name,
        _number(candidate.mean(f"val/{answer.metric}")),
        _number(value),
        verdict.ends(interval) if interval else "",
        *(_number(candidate.mean(f"{split}/{answer.metric}")) for split in shifts),
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
    if not answer.guessing():  # of captions there are no predictions of classes
        return {}
    pair = [answer.leader]
    predictions = [disagreements.predictions(answer.leader.folders[0], answer.split)]
    for rival in answer.rivals:
        rows = disagreements.predictions(rival.folders[0], answer.split)
        if disagreements.apart(predictions[0], rows):  # both may have kept the same start
            pair, predictions = [*pair, rival], [*predictions, rows]
            break
    names = [candidate.name for candidate in pair]
    by_name = dict(zip(names, predictions, strict=True))
    label = f"share that is right by probability, {answer.split} of {answer.dataset}"
    shown = {
        "reliability": page_figures.reliability(by_name, label),
        "calibration": _ece(answer, pair),
    }
    if len(pair) == 1:
        return shown
    table = disagreements.by_class(*predictions)
    by_image = disagreements.by_image(*predictions)
    ids = {name for kind in by_image.values() for name in kind.ids}
    thumbnails = disagreements.thumbnails(pair[0].records[0], answer.split, ids, SIDE)
    titles = (f"Only {names[1]} is right", f"Only {names[0]} is right", "Both are wrong")
    kinds = [
        {
            "title": title,
            "count": by_image[kind].count,
            "images": [
                _image(name, thumbnails[name], *predictions)
                for name in by_image[kind].ids
                if name in thumbnails
            ],
        }
        for kind, title in zip(disagreements.KINDS, titles, strict=True)
    ]
    return {
        **shown,
        "first": names[0],
        "second": names[1],
        "classes": table.head(CLASSES).to_dict("records"),
        "more_classes": max(0, len(table) - CLASSES),
        "kinds": kinds,
        "rule": disagreements.RULE,
    }


def _image(name: str, src: str, first: pd.DataFrame, second: pd.DataFrame) -> dict[str, str]:
    rows = (first.loc[name], second.loc[name])
    texts = [f"{row['prediction_name']} ({row['probability']:.0%})" for row in rows]
    label = str(rows[0]["label_name"])
    about = {"src": src, "label": label, "first": texts[0], "second": texts[1]}
    return {**about, "alt": f"an image of {label}: {name}"}


def _ece(answer: Answer, pair: Sequence[Candidate]) -> str:
    """Return each model's calibration error, before and after the temperature fitted on val."""
    errors = []
    for candidate in pair:
        before, after = (candidate.mean(f"{answer.split}/{key}") for key in ("ece", "ece_scaled"))
        if before is not None:
            text = f"{candidate.name}: off by {100 * before:.1f} points on average"
            scaled = (
                "" if after is None else f"{100 * after:.1f} with the temperature fitted on val"
            )
            errors.append(", ".join(filter(None, (text, scaled))))
    return f"On the line, a probability is the share that is right. {'; '.join(errors)}."


def write(folder: Path, out: Path) -> Path:
    """Write the page of a sweep, and return its path.

    Args:
        folder: of the sweep, with its ``jobs.jsonl``.
        out: path of the page.

    Raises:
        UserError: if no job of the sweep was completed.
    """
    runs, failed = sweep_log.sweep_runs(folder)
    if not runs:
        raise UserError(f"no job of {folder} was completed. Run it again, or read its output.")
    page = rendered(folder.name, runs, failed, plan(folder))
    out.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(out, page)
    return out


def plan(folder: Path) -> Mapping[str, Any]:
    """Return what :mod:`clipbench.compare` decided for a sweep; empty for other sweeps."""
    path = folder / "plan.json"
    decided: Mapping[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return decided
