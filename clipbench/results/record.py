"""The record of a run: what its ``result.json`` holds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Self

from clipbench.core.config.option_files import Config, Node

SCHEMA = 1
LOG = "log.txt"  # what a run prints

Row = dict[str, Any]  # numbers by name: an epoch's, or an alpha's; None where not finite
_OPTIONAL = {"optional": True}  # left out of the JSON where it is None


class Section:
    """A part of a record, a JSON object."""

    @classmethod
    def from_json(cls, node: Node) -> Self:
        """Return the section that an object holds; names that it does not know are passed over."""
        names = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        return cls(**{name: value for name, value in node.items() if name in names})


@dataclass
class SplitRecord(Section):
    """A split as it was read.

    Attributes:
        n: its images.
        sha256: of ids and labels.
        expected: its images as published, None where nothing is.
        content: the hash of what the images hold; None in records made before there was one.
        rule: which of the images were taken, None for all.
        unreadable: how many images were left out, by the reason.
    """

    n: int = 0
    expected: int | None = None
    sha256: str = ""
    content: str | None = field(default=None, metadata=_OPTIONAL)
    rule: str | None = None
    unreadable: int | None = field(default=None, metadata=_OPTIONAL)


@dataclass
class Steps(Section):
    """Optimizer steps: planned, and where they differ, taken."""

    total: int = 0
    warmup: int = 0
    peak_lr: float = 0.0
    skipped: int | None = field(default=None, metadata=_OPTIONAL)
    stopped: int | None = field(default=None, metadata=_OPTIONAL)  # the epoch of early stopping
    taken: int | None = field(default=None, metadata=_OPTIONAL)


@dataclass
class Batch(Section):
    """How a batch is laid out over devices and steps of accumulation."""

    devices: int = 1
    per_device: int = 0
    accumulation: int = 1


@dataclass
class Parameters(Section):
    """Counts of all parameters, of those that train, and of both in each group."""

    total: int = 0
    trainable: int = 0
    groups: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass
class Selection(Section):
    """The metric that chose the epoch and the alpha, and its choices."""

    metric: str = ""
    epoch: int | None = None
    alpha: float | None = None


@dataclass
class Cost(Section):
    """Wall-clock seconds, images trained a second, peak memory in bytes, and the device's name."""

    seconds: float = 0.0
    images_per_second: float | None = None
    peak_memory_bytes: int = 0
    device: str = ""


@dataclass
class Soup(Section):
    """Keys of the runs that were averaged, and of those that stayed in the average."""

    kind: str
    bn: str
    ingredients: list[str]
    kept: list[str] = field(default_factory=list)


@dataclass
class RunRecord:
    """What a run says of itself, in the order of its file.

    Attributes:
        key: of its identity, see :mod:`clipbench.results.identity`.
        training: the key of what its weights depend on.
        weights_from: ``key`` and ``folder`` of the run whose weights these are.
        status: ``completed``, ``interrupted``, ``failed`` or ``diverged``.
        varies: whether another seed would lead to other weights.
        setting: the key but for the seed.
        curve: a row an epoch, the zero-shot epoch 0 included.
        final: of every evaluated split, at the chosen epoch.
        alpha_curve: a row an alpha.
        temperature: fitted on val.
        advice: why recommended settings were chosen.
        soup: of averaged runs.
        typed: the overrides of its job by key; from the sweep's ``jobs.jsonl``, not in the file.
    """

    schema: int = SCHEMA
    key: str = ""
    training: str = ""
    weights_from: dict[str, str] | None = None
    status: str = ""
    error: str | None = None
    log: str = LOG
    model: str = ""
    dataset: str = ""
    strategy: str = ""
    lr: float = 0.0
    batch_size: int = 0
    epochs: float | None = None
    freeze_depth: int | None = None
    seed: int = 0
    varies: bool | None = field(default=None, metadata=_OPTIONAL)
    setting: str | None = field(default=None, metadata=_OPTIONAL)
    config: Config = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    environment: Row = field(default_factory=dict)
    git: Row | None = None
    data: dict[str, SplitRecord] = field(default_factory=dict)
    steps: Steps = field(default_factory=Steps)
    batch: Batch = field(default_factory=Batch)
    parameters: Parameters = field(default_factory=Parameters)
    curve: list[Row] = field(default_factory=list)
    final: Row = field(default_factory=dict)
    selection: Selection = field(default_factory=Selection)
    alpha_curve: list[Row] = field(default_factory=list)
    temperature: float | None = None
    cost: Cost = field(default_factory=Cost)
    advice: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    soup: Soup | None = field(default=None, metadata=_OPTIONAL)
    typed: dict[str, str] = field(default_factory=dict, metadata={"written": False})

    @property
    def completed(self) -> bool:
        """Whether the run came to its end."""
        return self.status == "completed"

    @property
    def reads_text(self) -> bool:
        """Whether the model has a text tower."""
        return "logit scale" in self.parameters.groups

    @classmethod
    def from_json(cls, content: Node) -> Self:
        """Return the record that a ``result.json`` holds, whichever version wrote it."""
        names = {f.name for f in fields(cls)}
        values = {name: value for name, value in content.items() if name in names}
        for name, section in _SECTIONS.items():
            if values.get(name) is not None:
                values[name] = section.from_json(values[name])
        splits = (values.get("data") or {}).items()
        values["data"] = {name: SplitRecord.from_json(split) for name, split in splits}
        return cls(**values)


_SECTIONS: dict[str, type[Section]] = {
    "steps": Steps,
    "batch": Batch,
    "parameters": Parameters,
    "selection": Selection,
    "cost": Cost,
    "soup": Soup,
}
_UNKNOWN = (Parameters(), Cost())  # of a run that has just begun: an empty object


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it: tuples as lists, a number that is not finite as null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if is_dataclass(value):
        value = {} if value in _UNKNOWN else dict(_entries(value))
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def _entries(section: Any) -> list[tuple[str, Any]]:
    found = [(f, getattr(section, f.name)) for f in fields(section)]
    return [
        (f.name, value)
        for f, value in found
        if f.metadata.get("written", not (value is None and "optional" in f.metadata))
    ]
