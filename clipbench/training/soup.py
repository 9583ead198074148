"""A greedy or uniform soup of the runs of a sweep (Wortsman et al. 2022)."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytorch_lightning import seed_everything

from clipbench.core import environment, paths
from clipbench.core.config.instantiate import build
from clipbench.core.config.option_files import Config
from clipbench.core.console import warn
from clipbench.core.errors import UserError
from clipbench.core.jobs import Outcome
from clipbench.inference import saved_model
from clipbench.loading.prompts import Prompts
from clipbench.metrics import intervals
from clipbench.models import weight_averaging
from clipbench.results import identity, store, sweep_log
from clipbench.results.record import Cost, RunRecord, Selection, Soup, SplitRecord
from clipbench.strategies.base import Strategy, Task
from clipbench.strategies.recipe import Recipe
from clipbench.training import schedule
from clipbench.training.artifacts import write_model
from clipbench.training.build import fine_tuning_module
from clipbench.training.evaluation import evaluate_chosen
from clipbench.training.evaluator import Evaluator
from clipbench.training.robustness import wise_ft
from clipbench.training.trainer import trainer

Runs = list[tuple[Path, RunRecord]]


def ingredients(sweep: Path) -> Runs:
    """Return the completed runs of a sweep, best on val first.

    Raises:
        UserError: for fewer than two, or runs that differ in model, data or head, whose weights do
            not average.
    """
    if not (sweep / "jobs.jsonl").is_file():
        raise UserError(f"{sweep} is not a sweep. Give a folder that has a jobs.jsonl.")
    runs = [run for run in sweep_log.sweep_runs(sweep)[0] if run[1].strategy != "soup"]
    if len(runs) < 2:
        raise UserError(f"{sweep} has {len(runs)} completed runs; a soup needs at least two")
    first = runs[0][1]
    for _, record in runs[1:]:
        for (what, value), (_, expected) in zip(_start(record), _start(first), strict=True):
            if value != expected:
                keys = f"{first.key} and {record.key}"
                raise UserError(f"runs {keys} differ in {what}; sweep what does not change it")
    metric = first.selection.metric
    return sorted(runs, key=lambda run: -intervals.goodness(metric, run[1].final[metric]))


def _start(record: RunRecord) -> Iterator[tuple[str, Any]]:
    """Yield what all ingredients must share."""
    config, data = record.config, record.data
    evaluated = {k: v for k, v in data.items() if k not in ("train", "retention")}
    yield "their model", config["model"]
    yield "their dataset", record.dataset
    yield "their data", {name: identity.seen(split) for name, split in evaluated.items()}
    yield "the start of their head", config["strategy"].get("head")
    yield "the metric they are selected by", record.selection.metric


def evaluation(config: Config, folder: Path) -> Evaluator:
    """Return an evaluator of a config's splits, with its classifier before any training."""
    data = build(config["dataset"])
    data.prepare(config["seed"])
    source: Prompts = build(config["prompts"])
    prompts = source.of(data.classes, data.templates, data.keys)
    strategy: Strategy = build(config["strategy"])
    seed_everything(config["seed"], workers=True, verbose=False)
    classifier = strategy.prepare(build(config["model"]), Task(data.classes, prompts))
    preprocess, augment = classifier.tower.preprocess, build(config["augment"])
    reading = {"batch_size": config["batch_size"], "seed": config["seed"]}
    data.attach(preprocess=preprocess, augment=augment, **reading)
    never = schedule.Schedule(total=0, warmup=0)
    module = fine_tuning_module(classifier, strategy, Recipe.of(config), never, data)
    return Evaluator(trainer(config, folder, []), module, data, data)


def cook(runs: Runs, kind: str, bn: str) -> Outcome:
    """Average the runs, evaluate on every split, and write a run's folder, unless it is there."""
    started, (_, best) = time.perf_counter(), runs[0]
    keys = [record.key for _, record in runs]
    key = identity.key({"soup": kind, "bn": bn, "ingredients": sorted(keys)})
    folder = paths.outputs() / "runs" / best.dataset / f"{best.model}-soup-{key}"
    if (before := store.read(folder)) and before.completed:
        return Outcome("completed", key=key, folder=str(folder), before=True)
    folder.mkdir(parents=True, exist_ok=True)
    config = {**best.config, "logger": {}, "callbacks": {}}
    evaluate = evaluation(config, folder)
    soup = Soup(kind, bn, keys)
    record = replace(
        best,
        key=key,
        training=key,
        strategy="soup",
        status="interrupted",
        config=config,
        versions=environment.versions(),
        git=environment.git(),
        environment=environment.of(config["trainer"], 1),
        data=_unchanged(evaluate, best),
        curve=best.curve[:1],
        final={},
        alpha_curve=[],
        weights_from=None,
        selection=Selection(best.selection.metric),
        soup=soup,
        typed={},
        warnings=[],
    )
    store.write(folder, record)
    record.warnings += evaluate.module.classifier.tower.warnings
    if not evaluate.module.classifier.meaningful:
        record.warnings.append("the heads started at random, each elsewhere: they do not average")
    for warning in record.warnings:
        warn(warning)
    soup.kept = _average(evaluate, runs, kind, bn)
    write_model(folder, record, evaluate, evaluate_chosen(evaluate, record))
    device = environment.device(evaluate.trainer.strategy.root_device)
    seconds = time.perf_counter() - started
    record.cost = Cost(seconds, images_per_second=None, **device)
    record.status = "completed"
    store.write(folder, record)
    return Outcome("completed", key=key, folder=str(folder))


def _unchanged(evaluate: Evaluator, best: RunRecord) -> dict[str, SplitRecord]:
    """Return the record of the data that a soup is evaluated on.

    Raises:
        UserError: if its images are no longer those that the runs saw.
    """
    data = {**best.data, **evaluate.data.record()}
    changed = [name for name in data if not identity.alike(data[name], best.data[name])]
    if changed:
        raise UserError(
            f"the images or labels of {', '.join(changed)} have changed since the runs of this "
            "sweep were made. Run the sweep again, and its soup after it."
        )
    return data


def _average(evaluate: Evaluator, runs: Runs, kind: str, bn: str) -> list[str]:
    """Load the soup into the evaluator's module; return the keys of the runs in it."""
    classifier, metric = evaluate.module.classifier, runs[0][1].selection.metric

    def load(i: int) -> weight_averaging.State:
        return saved_model.classifier(runs[i][0]).state_dict()

    def put(state: weight_averaging.State, several: bool) -> None:
        classifier.load_state_dict(dict(state))
        if bn == "reestimate" and several:
            wise_ft.reestimate(evaluate, runs[0][1].seed)

    def score(state: weight_averaging.State) -> float:
        put(state, several=True)
        return intervals.goodness(metric, evaluate(["val"])[metric])

    if kind == "uniform":
        chosen = list(range(len(runs)))
        state = weight_averaging.uniform(map(load, chosen))
    else:
        scores = [intervals.goodness(metric, r.final[metric]) for _, r in runs]
        chosen, state, _ = weight_averaging.greedy(scores, load, score)
    put(state, several=len(chosen) > 1)
    evaluate.outputs.clear()
    return [runs[i][1].key for i in chosen]
