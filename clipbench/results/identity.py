"""What can change the outcome of a run, and whether an earlier record answers for it."""

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from clipbench.core.config.keys import Key
from clipbench.core.config.option_files import Node
from clipbench.core.config.schema import KEYS
from clipbench.results.record import SCHEMA, RunRecord, SplitRecord, plain

Identity = dict[str, Any]  # what can change the outcome of a run, as json.dumps takes it

_UNKNOWN = Key("training", "a key that only older records have")


def of(
    config: Node,
    *,
    weights: str | None,
    data: Mapping[str, SplitRecord],
    prompts: list[list[str]],
    others: Node,
    devices: Node,
) -> Identity:
    """Return the identity of a run, whose hash is its key.

    Args:
        config: the resolved config, without what the strategy ignores.
        weights: the tag of what the model starts from, or the hash of its file.
        data: of each split what the record says.
        prompts: of each class.
        others: the identity of each other dataset, by what it is for.
        devices: of :func:`clipbench.core.environment.resolved`.
    """
    kept = {**config, "trainer": {**config["trainer"], **devices}}
    if kept.get("steps") is not None:
        kept.pop("epochs", None)
    kept["model"] = {**kept["model"], "pretrained": weights}
    return identity(
        kept,
        data={name: split.sha256 for name, split in data.items()},
        content={name: split.content for name, split in data.items()},
        prompts=hashlib.sha256(json.dumps(prompts).encode()).hexdigest(),
        **others,
    )


# Callbacks that look on, or write files: any other may change what comes of a run.
_ONLOOKERS = {
    *("LearningRateMonitor", "DeviceStatsMonitor", "ThroughputMonitor", "ModelCheckpoint"),
    *("ModelSummary", "RichModelSummary", "RichProgressBar", "TQDMProgressBar"),
}


def identity(config: Node, **content: Any) -> Identity:
    """Return everything that can change a run's outcome, and nothing else.

    Args:
        config: the resolved config. Paths, workers and loggers are left out, and so is what a root
            key says in place of the recipe.
        content: what the config names but does not hold, such as the fingerprints of the splits
            and the hash of a weight file.
    """
    kept: Identity = {}
    for name, value in config.items():
        key = KEYS.get(name, _UNKNOWN)
        if key.affects == "nothing" or value == key.idle:
            continue
        if key.part_of and config.get(key.part_of) is None:
            continue
        if name == "callbacks":
            value = _no_onlookers(value or {})
            if not value:
                continue
        if isinstance(value, Mapping):
            value = _counted(value, key.inside, skip=config if name == "recipe" else ())
        kept[name] = value
    return {"schema": SCHEMA, "config": kept, **content}


def _counted(node: Node, inside: Mapping[str, Key], skip: Collection[str]) -> Identity:
    """Return what of a group's node can change the outcome."""
    keys = {name: inside.get(name, _UNKNOWN) for name in node if name not in skip}
    return {
        name: node[name]
        for name, key in keys.items()
        if key.affects != "nothing" and node[name] != key.idle
    }


def answers(record: RunRecord, config: Node) -> bool:
    """Return whether a record is of what a config asks for, as far as a config alone tells.

    A null asks for a value by rule, which the record has.
    """
    requested = json.loads(json.dumps(plain(identity(config)["config"])))
    return _within(requested, identity(record.config)["config"])


def _within(requested: object, given: object) -> bool:
    if isinstance(requested, Mapping) and isinstance(given, Mapping):
        return all(_within(value, given.get(name)) for name, value in requested.items())
    return requested is None or requested == given


def _no_onlookers(callbacks: Node) -> Identity:
    return {
        name: node
        for name, node in callbacks.items()
        if node and str(node["_target_"]).rpartition(".")[2] not in _ONLOOKERS
    }


def current(record: RunRecord) -> bool:
    """Return whether a record says what its images held; older ones are read, but never reused."""
    return all(split.content is not None for split in record.data.values())


def seen(split: SplitRecord) -> str:
    """Return what two numbers share that are of the same images and labels.

    Args:
        split: of a record's ``data``. An older one does not say what its images held: it is the
            same as another of that kind, and as none that does.
    """
    return "/".join(filter(None, (split.sha256, split.content)))


def alike(one: SplitRecord, other: SplitRecord) -> bool:
    """Return whether two splits of records are of the same images, as far as one can tell."""
    contents = {split.content for split in (one, other) if split.content}
    return one.sha256 == other.sha256 and len(contents) < 2


def of_training(identity: Node) -> Identity:
    """Return the part of a run's identity that its weights depend on."""
    after = {name for name, key in KEYS.items() if key.affects == "evaluation"}
    kept = {k: v for k, v in identity["config"].items() if k not in after}
    content = {k: v for k, v in identity.items() if k not in after}
    return {**content, "config": kept}


def key(identity: Node) -> str:
    """Return the first 8 hex digits of the sha256 of an identity's canonical JSON."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def of_seed(identity: Node, random: bool, fits: bool) -> Identity:
    """Return what a record says of its seed: ``varies``, and the ``setting`` of a mean over seeds.

    Args:
        identity: of the run.
        random: whether the strategy's training is random.
        fits: whether it fits a head: of a few images a class the seed chooses which.
    """
    few = identity["config"]["dataset"].get("shots") is not None
    return {"varies": random or (fits and few), "setting": setting(identity)}


def setting(identity: Node) -> str:
    """Return the hash of an identity but for its seed, and for the images of train it draws."""
    config = {k: v for k, v in identity["config"].items() if k != "seed"}
    content = {**identity, "config": config}
    if config["dataset"].get("shots") is not None:
        for name, of in content.items():
            if name != "config" and isinstance(of, Mapping) and "train" in of:
                content[name] = {k: v for k, v in of.items() if k != "train"}
    return key(content)


def varies(record: RunRecord) -> bool:
    """Return whether a run with another seed would have come to other weights.

    Records made before strategies said so are judged by what they tell: nothing was trained, or a
    head was fitted, without a step, on all there is of train.
    """
    if record.varies is not None:
        return record.varies
    if not record.parameters.trainable:
        return False
    return bool(record.steps.total) or record.config["dataset"].get("shots") is not None
