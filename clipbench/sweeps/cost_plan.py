"""What the jobs of a command line would take: time, memory, disk."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import pandas as pd

from clipbench.core import paths
from clipbench.core.config import overrides, schema
from clipbench.core.config.compose import plain
from clipbench.core.config.option_files import Config
from clipbench.reporting.tables import costs, published
from clipbench.reporting.tables.costs import Job
from clipbench.strategies import about

_FREE = ("seed", "lr", "weight_decay", "layer_decay", "warmup", "label_smoothing")


def configs(words: list[str]) -> Iterator[tuple[Config, dict[str, str], int]]:
    """Yield the configs of a command line's jobs, their options, and how many there are of each.

    Jobs that differ by :data:`_FREE` alone are one config.

    Args:
        words: overrides; a value may be a sweep, and an experiment may bring a grid.

    Raises:
        hydra.errors.HydraException: for an option or key that there is not.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import open_dict

    paths.register()
    schema.register()
    parse = OverridesParser.create().parse_overrides
    typed = parse(overrides.read(words))
    fixed = [str(o.input_line) for o in typed if not o.is_sweep_override()]
    with initialize_config_dir(str(paths.CONF), version_base="1.3"):
        whole = compose("config", fixed, return_hydra_config=True).hydra
        grid = (whole.sweeper.params or {}) if "MULTIRUN" in str(whole.mode) else {}
        given = {str(o.key_or_group): str(o.input_line) for o in typed}
        requested = parse([*({key: f"{key}={of}" for key, of in grid.items()} | given).values()])
        swept = [o for o in requested if o.is_sweep_override()]
        values = [[f"{o.key_or_group}={v}" for v in o.sweep_string_iterator()] for o in swept]
        again = 1
        for override, options in zip(swept, values, strict=True):
            if override.key_or_group in _FREE:
                again *= len(options)
                del options[1:]
        for chosen in product(*values):
            composed = compose("config", [*fixed, *chosen], return_hydra_config=True)
            choices = {str(k): str(v) for k, v in composed.hydra.runtime.choices.items()}
            with open_dict(composed):
                del composed["hydra"]
            yield plain(composed), choices, again


def described(config: Config, choices: dict[str, str]) -> tuple[Job | None, tuple[Any, ...]]:
    """Describe a job; it is None where its length is not known before its data are read."""
    model, dataset, strategy = (choices[name] for name in ("model", "dataset", "strategy"))
    images, batch = trained_on(dataset, config), config["batch_size"]
    epochs = config["epochs"]
    if config["steps"] is not None and images and batch:
        epochs = config["steps"] * batch / images
    depth = str(config["freeze_depth"])
    if not about.named(strategy).trains:
        epochs = 0
    if images is None or epochs is None or batch is None:
        return None, (model, dataset, strategy, depth, images, epochs, None)
    averages = (
        len(config["alphas"]) if isinstance(config["alphas"], list) else config["alphas"] or 0
    )
    scheme = config["dataset"].get("scheme")
    evaluated = published.evaluated(dataset, epochs, averages, scheme)
    size = config["model"].get("image_size")
    job = Job(model, strategy, images, epochs, batch, evaluated, depth, size)
    return job, (model, dataset, strategy, depth, images, epochs, job.steps)


def trained_on(dataset: str, config: Config) -> int | None:
    """Return the images of an epoch, or captions where all of them are taken; None if unknown."""
    data = config["dataset"]
    counted = data.get("counts") or {}
    kinds = len(data["classes"]) if counted else published.classes(dataset)
    if data.get("shots") and kinds:
        return int(data["shots"]) * kinds
    if counted:
        return int(
            sum(data["defects"].values()) if data["scene"] == "static" else counted["train"] * kinds
        )
    scheme = data.get("scheme")
    if about.of(config["strategy"]).every_pair:
        return published.captions(dataset, "train", scheme)
    train = published.images(dataset, "train", scheme)
    return train or published.images(dataset, "train+val", scheme)


def measured(runs: pd.DataFrame, model: str, strategy: str, depth: str) -> pd.DataFrame:
    """Return the runs of a model and a strategy, with as many frozen blocks if there are any."""
    rows = runs[runs["model"] == model]
    rows = rows[rows["strategy"] == strategy] if len(rows) else rows
    alike = rows[rows["freeze_depth"].astype(str) == depth] if len(rows) else rows
    return alike if len(alike) else rows


def seconds(job: Job | None, rows: pd.DataFrame) -> float | None:
    """Return the seconds of training at the quickest pace measured, None if none was."""
    if job is None or rows.empty or rows["cost/images_per_second"].isna().all():
        return None
    return float(job.images * job.epochs / rows["cost/images_per_second"].max())


def giga(size: float | None) -> float | None:
    """Return bytes as gigabytes."""
    return None if size is None else size / 1e9


def disk(model: str, rows: pd.DataFrame) -> float | None:
    """Return the bytes of a run's checkpoints, None if the model's size is not known."""
    if known := costs.facts(model):
        return costs.disk_bytes(1e6 * known["parameters"], 1e6 * known["parameters"])
    if rows.empty:
        return None
    return costs.disk_bytes(
        float(rows["cost/parameters"].max()), float(rows["cost/trainable"].max())
    )
