"""The page of a report: every part of it as plain values, put into one template that escapes."""

import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import jinja2

from clipbench.core import files, paths
from clipbench.core.errors import UserError
from clipbench.reporting.page import disagreements, page_figures, verdict
from clipbench.reporting.page.answers import Answer, answers
from clipbench.reporting.page.candidates import Candidate
from clipbench.reporting.page.untried import untried
from clipbench.results import frames, sweep_log

SIDE = 128  # of a picture, in pixels
CLASSES = 12  # that are shown
COSTS = ("M parameters", "trained", "memory, GB", "time", "points a minute")
TRIED = "time of all tried"


def rendered(
    name: str,
    runs: frames.Runs,
    failed: Sequence[Mapping[str, Any]],
    plan: Mapping[str, Any],
) -> str:
    """The whole page.

    Args:
        name: of the sweep.
        runs: completed ones.
        failed: jobs without a result, of the sweep's list.
        plan: of :mod:`clipbench.compare`; empty for another sweep.
    """
    found = answers(runs)
    commits = {str((record.get("git") or {}).get("commit"))[:8] for _, record in runs}
    version = runs[0][1]["versions"].get("clipbench")
    made = f"clipbench {version} ({', '.join(sorted(commits))}), {date.today().isoformat()}; "
    loader = jinja2.FileSystemLoader(paths.ASSETS)
    page = jinja2.Environment(loader=loader, autoescape=True).get_template("report.html")
    return page.render(
        title=f"clipbench: {name}",
        notice=verdict.stand_ins(plan, found),
        parts=[part(answer) for answer in found],
        untried=list(untried(runs, found, failed, plan)),
        made=f"{made}sweep {name}, {len(runs)} runs.",
        side=SIDE,
    )


def part(answer: Answer) -> dict[str, Any]:
    """What the template shows of one dataset."""
    split, metric = answer.split, answer.metric
    label = f"val/{metric} by epoch on {answer.dataset}"
    shifts = list(answer.shifts)
    tried = [TRIED] if max(one.tried for one in answer.candidates) > 1 else []
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
        "rows": [_row(answer, one, shifts, guess)[: len(columns)] for one in answer.candidates],
        "caption": f"{metric}, in %. Val chose the first row; it is bold where it is better than "
        "each other one. Time is that of a whole run, loading and evaluation too. Points a minute "
        f"are those above {_guessed(guess)}.",
        "curves": page_figures.curves(answer.candidates, metric, label),
        **_two(answer),
    }


def _guessed(share: float) -> str:
    return f"guessing the largest class, which has {100 * share:.1f}" if share else "nothing"


def _chosen(answer: Answer) -> str:
    most = max(one.tried for one in answer.candidates)
    told = " and each setting too, of up to {} runs" if most > 1 else ""
    return f"Val chose the epochs{told.format(most)}; {answer.split} was read once."


def _row(answer: Answer, one: Candidate, shifts: Sequence[str], guess: float) -> list[str]:
    found = one.interval(answer.split, answer.metric)
    value = one.mean(f"{answer.split}/{answer.metric}")
    interval = verdict.ends(found) if found else ""
    rate = "" if value is None else f"{100 * (value - guess) / (one.seconds / 60):.1f}"
    return [
        one.name,
        _number(one.mean(f"val/{answer.metric}")),
        _number(value),
        interval,
        *(_number(one.mean(f"{split}/{answer.metric}")) for split in shifts),
        f"{one.total / 1e6:.1f}",
        f"{one.trained:,}",
        f"{one.memory / 1e9:.1f}",
        verdict.duration(one.seconds),
        rate,
        verdict.duration(one.tried_seconds),
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _two(answer: Answer) -> dict[str, Any]:
    """The leader beside its rival: class by class, picture by picture, and their calibration."""
    if not answer.guessing():  # of captions there are no predictions of classes
        return {}
    pair, said = (
        [answer.leader],
        [disagreements.predictions(answer.leader.folders[0], answer.split)],
    )
    for rival in answer.rivals:
        rows = disagreements.predictions(rival.folders[0], answer.split)
        if disagreements.apart(said[0], rows):  # no epoch of it may have beaten the same start
            pair, said = [*pair, rival], [*said, rows]
            break
    names = [one.name for one in pair]
    by_name = dict(zip(names, said, strict=True))
    label = f"share that is right by probability, {answer.split} of {answer.dataset}"
    shown = {
        "reliability": page_figures.reliability(by_name, label),
        "calibration": _ece(answer, pair),
    }
    if len(pair) == 1:
        return shown
    table = disagreements.by_class(*said)
    parted = disagreements.parted(*said)
    ids = {one for kind in parted.values() for one in kind.ids}
    pictures = disagreements.pictures(pair[0].records[0], answer.split, ids, SIDE)
    titles = (f"{names[1]} alone is right", f"{names[0]} alone is right", "Both are wrong")
    kinds = [
        {
            "title": title,
            "count": parted[kind].count,
            "pictures": [
                _picture(name, pictures[name], *said)
                for name in parted[kind].ids
                if name in pictures
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


def _picture(name: str, src: str, first: Any, second: Any) -> dict[str, str]:
    rows = (first.loc[name], second.loc[name])
    told = [f"{row['prediction_name']} ({row['probability']:.0%})" for row in rows]
    label = rows[0]["label_name"]
    about = {"src": src, "label": label, "first": told[0], "second": told[1]}
    return {**about, "alt": f"a picture of {label}: {name}"}


def _ece(answer: Answer, pair: Sequence[Candidate]) -> str:
    """What calibration comes to, before and after the temperature that val fits."""
    said = []
    for one in pair:
        before, after = (one.mean(f"{answer.split}/{key}") for key in ("ece", "ece_scaled"))
        if before is not None:
            text = f"{one.name}: off by {100 * before:.1f} points on average"
            said.append(
                text
                + (
                    f", {100 * after:.1f} with the temperature fitted on val"
                    if after is not None
                    else ""
                )
            )
    return f"On the line, probabilities mean what they say. {'; '.join(said)}."


def write(folder: Path, out: Path) -> Path:
    """The page of a sweep.

    Args:
        folder: of the sweep, with its ``jobs.jsonl``.
        out: of the page.

    Raises:
        UserError: if no job of it was completed.
    """
    runs, failed = sweep_log.sweep_runs(folder)
    if not runs:
        raise UserError(f"no job of {folder} was completed; run it again, or see what it printed")
    page = rendered(folder.name, runs, failed, plan(folder))
    out.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(out, page)
    return out


def plan(folder: Path) -> Mapping[str, Any]:
    """What :mod:`clipbench.compare` decided for a sweep; empty for one of another door."""
    path = folder / "plan.json"
    found: Mapping[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found
