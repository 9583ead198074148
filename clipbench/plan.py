"""What a command would run, before it starts: jobs, steps, GPU-hours, memory, disk.

Run: python -m clipbench.plan experiment=ft_clip_main
     python -m clipbench.plan model=clip_vitb32,resnet50 dataset=flowers102 seed=0,1,2

Give it the arguments of clipbench.run, with or without -m. It reads only the config, the published
sizes of datasets and models, and the records of earlier runs.
"""

from typing import Any

import pandas as pd

from clipbench.core import cli
from clipbench.core.config import ranges
from clipbench.core.config.option_files import Config
from clipbench.core.console import console, show
from clipbench.reporting.tables import costs
from clipbench.reporting.tables.costs import Job
from clipbench.results import evidence
from clipbench.sweeps.cost_plan import configs, described, disk, giga, measured, seconds

_HEAD = ("runs", "model", "dataset", "strategy", "frozen", "images", "epochs", "steps")
_COSTS = ("GPU-hours", "memory GB", "disk GB", "measured s")


def main() -> None:
    """Compose every job, and print what it would cost."""
    cli.opened(__doc__ or "", plan)


def plan(words: list[str]) -> int:
    """Print a row for runs that differ by what costs nothing, and the sums."""
    frames = evidence.gather().values()
    runs = pd.concat([*frames], ignore_index=True) if frames else pd.DataFrame(columns=["model"])
    groups: dict[tuple[Any, ...], tuple[Job | None, Config, int]] = {}
    for config, choices, count in configs([w for w in words if w not in ("-m", "--multirun")]):
        ranges.check(config)
        job, described_as = described(config, choices)
        groups[described_as] = (job, config, count + groups.get(described_as, (job, config, 0))[2])
    rows, sums = [], {"GPU-hours": 0.0, "seconds": 0.0, "disk": 0.0}
    for described_as, (job, config, count) in groups.items():
        alike = measured(runs, *described_as[:1], *described_as[2:4])
        each = {
            "GPU-hours": costs.gpu_hours(job) if job else None,
            "memory": costs.memory_bytes(job, config["micro_batch"]) if job else None,
            "disk": disk(described_as[0], alike),
            "seconds": seconds(job, alike),
        }
        if each["memory"] is None and len(alike):
            each["memory"] = float(alike["cost/peak_memory_bytes"].min())
        shown = [each["GPU-hours"], giga(each["memory"]), giga(each["disk"]), each["seconds"]]
        rows.append((count, *described_as, *shown))
        sums = {name: total + count * (each[name] or 0) for name, total in sums.items()}
    show("before it starts", (*_HEAD, *_COSTS), rows)
    _sums(rows, sums)
    return 0


def _sums(rows: list[tuple[Any, ...]], sums: dict[str, float]) -> None:
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


if __name__ == "__main__":
    main()
