"""What a command would run, before anything starts: jobs, steps, GPU-hours, memory, disk.

Run: python -m clipbench.plan experiment=ft_clip_main
     python -m clipbench.plan model=clip_vitb32,resnet50 dataset=flowers102 seed=0,1,2

Type what you would give to clipbench.run, with or without -m. Nothing is read but the config, the
published sizes of datasets and models, and the records of runs that were made already.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any

import pandas as pd

from clipbench.core import cli, paths
from clipbench.core.config import instantiate, overrides, ranges
from clipbench.core.console import console, show
from clipbench.reporting.tables import costs, published
from clipbench.reporting.tables.costs import Job
from clipbench.results import evidence

_HEAD = ("runs", "model", "dataset", "strategy", "frozen", "pictures", "epochs", "steps")
_COSTS = ("GPU-hours", "memory GB", "disk GB", "measured s")
_FREE = ("seed", "lr", "weight_decay", "layer_decay", "warmup", "label_smoothing")


def main() -> None:
    """Compose every job, and say what it would cost."""
    cli.opened(__doc__ or "", plan)


def plan(words: list[str]) -> int:
    """Print a row for runs that differ by what costs nothing, and the sums."""
    found = evidence.gather().values()
    runs = pd.concat([*found], ignore_index=True) if found else pd.DataFrame(columns=["model"])
    groups: dict[tuple[Any, ...], tuple[Job | None, dict[str, Any], int]] = {}
    for config, choices, count in configs([w for w in words if w not in ("-m", "--multirun")]):
        ranges.check(config)
        job, told = described(config, choices)
        groups[told] = (job, config, count + groups.get(told, (job, config, 0))[2])
    rows, sums = [], {"GPU-hours": 0.0, "seconds": 0.0, "disk": 0.0}
    for told, (job, config, count) in groups.items():
        own = _measured(runs, *told[:1], *told[2:4])
        each = {
            "GPU-hours": costs.gpu_hours(job) if job else None,
            "memory": costs.memory_bytes(job, config["micro_batch"]) if job else None,
            "disk": _disk(told[0], own),
            "seconds": _seconds(job, own),
        }
        if each["memory"] is None and len(own):
            each["memory"] = float(own["cost/peak_memory_bytes"].min())
        shown = [each["GPU-hours"], _giga(each["memory"]), _giga(each["disk"]), each["seconds"]]
        rows.append((count, *told, *shown))
        sums = {name: total + count * (each[name] or 0) for name, total in sums.items()}
    show("before it starts", (*_HEAD, *_COSTS), rows)
    _said(rows, sums)
    return 0


def _said(rows: list[tuple[Any, ...]], sums: dict[str, float]) -> None:
    runs, parts = sum(row[0] for row in rows), []
    for name, place, unit in (
        ("GPU-hours", -4, "GPU-hours"),
        ("seconds", -1, "s at the pace here"),
    ):
        known = [row[place] is not None for row in rows]
        if any(known):
            parts.append(f"{'' if all(known) else 'at least '}{sums[name]:.3g} {unit}")
    length = " and ".join(parts) or "its length is not known before its data are read"
    disk = f"{sums['disk'] / 1e9:.3g} GB of disk at most"
    lines = (
        f"{runs} run{'s' if runs > 1 else ''}: {length}; {disk}",
        f"GPU-hours: by operations, of {costs.BASIS}; within a factor of two",
        "memory: 32-bit floats, AdamW, the whole batch at once (micro_batch=N takes less)",
        "measured: training alone, at the pace of the quickest run of that model and strategy",
    )
    for line in lines:
        console.print(line, highlight=False)


def configs(words: list[str]) -> Iterator[tuple[dict[str, Any], dict[str, str], int]]:
    """The configs of a command line's jobs, each with the options it chose, and how many there are.

    Jobs that differ by :data:`_FREE` alone are one config.

    Args:
        words: overrides; a value may be a sweep, and an experiment may bring a grid.

    Raises:
        hydra.errors.HydraException: for an option or key that there is not.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf, open_dict

    paths.register()
    instantiate.register()
    parse = OverridesParser.create().parse_overrides
    typed = parse(overrides.read(words))
    fixed = [str(o.input_line) for o in typed if not o.is_sweep_override()]
    with initialize_config_dir(str(paths.CONF), version_base="1.3"):
        whole = compose("config", fixed, return_hydra_config=True).hydra
        grid = (whole.sweeper.params or {}) if "MULTIRUN" in str(whole.mode) else {}
        given = {str(o.key_or_group): str(o.input_line) for o in typed}
        asked = parse([*({key: f"{key}={of}" for key, of in grid.items()} | given).values()])
        swept = [o for o in asked if o.is_sweep_override()]
        values = [[f"{o.key_or_group}={v}" for v in o.sweep_string_iterator()] for o in swept]
        again = 1
        for override, own in zip(swept, values, strict=True):
            if override.key_or_group in _FREE:
                again *= len(own)
                del own[1:]
        for chosen in product(*values):
            found = compose("config", [*fixed, *chosen], return_hydra_config=True)
            choices = {str(k): str(v) for k, v in found.hydra.runtime.choices.items()}
            with open_dict(found):
                del found["hydra"]
            config: Any = OmegaConf.to_container(found, resolve=True)
            yield config, choices, again


def described(
    config: dict[str, Any], choices: dict[str, str]
) -> tuple[Job | None, tuple[Any, ...]]:
    """What a job would do; no job where its length is not known before its data are read."""
    model, dataset, strategy = (choices[name] for name in ("model", "dataset", "strategy"))
    pictures, batch = trained_on(dataset, config), config["batch_size"]
    epochs = config["epochs"]
    if config["steps"] is not None and pictures and batch:
        epochs = config["steps"] * batch / pictures
    depth = str(config["freeze_depth"])
    if strategy == "zero_shot":
        epochs = 0
    if pictures is None or epochs is None or batch is None:
        return None, (model, dataset, strategy, depth, pictures, epochs, None)
    averages = (
        len(config["alphas"]) if isinstance(config["alphas"], list) else config["alphas"] or 0
    )
    scheme = config["dataset"].get("scheme")
    evaluated = published.evaluated(dataset, epochs, averages, scheme)
    size = config["model"].get("image_size")
    job = Job(model, strategy, pictures, epochs, batch, evaluated, depth, size)
    return job, (model, dataset, strategy, depth, pictures, epochs, job.steps)


def trained_on(dataset: str, config: dict[str, Any]) -> int | None:
    """Pictures of an epoch, or captions where all of them are taken; None if that is not known."""
    own = config["dataset"]
    counted = own.get("counts") or {}
    kinds = len(own["classes"]) if counted else published.classes(dataset)
    if own.get("shots") and kinds:
        return int(own["shots"]) * kinds
    if counted:
        return int(
            sum(own["defects"].values()) if own["scene"] == "static" else counted["train"] * kinds
        )
    scheme = own.get("scheme")
    if config["strategy"].get("captions") == "all":
        return published.captions(dataset, "train", scheme)
    train = published.pictures(dataset, "train", scheme)
    return train or published.pictures(dataset, "train+val", scheme)


def _measured(runs: pd.DataFrame, model: str, strategy: str, depth: str) -> pd.DataFrame:
    """Those of the model, the strategy and, if there are any, as many frozen blocks."""
    own = runs[runs["model"] == model]
    own = own[own["strategy"] == strategy] if len(own) else own
    alike = own[own["freeze_depth"].astype(str) == depth] if len(own) else own
    return alike if len(alike) else own


def _seconds(job: Job | None, own: pd.DataFrame) -> float | None:
    if job is None or own.empty or own["cost/images_per_second"].isna().all():
        return None
    return float(job.pictures * job.epochs / own["cost/images_per_second"].max())


def _giga(size: float | None) -> float | None:
    return None if size is None else size / 1e9


def _disk(model: str, own: pd.DataFrame) -> float | None:
    if known := costs.facts(model):
        return costs.disk_bytes(1e6 * known["parameters"], 1e6 * known["parameters"])
    if own.empty:
        return None
    return costs.disk_bytes(float(own["cost/parameters"].max()), float(own["cost/trainable"].max()))


if __name__ == "__main__":
    main()
