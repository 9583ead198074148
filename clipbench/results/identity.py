"""What a run is: all that can change its outcome; and what an earlier record of it is good for."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from clipbench.results.record import SCHEMA, plain


def of(
    config: Mapping[str, Any],
    *,
    weights: str | None,
    data: Mapping[str, Mapping[str, Any]],
    prompts: list[list[str]],
    others: Mapping[str, Any],
    devices: Mapping[str, Any],
) -> dict[str, Any]:
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
        data={name: split["sha256"] for name, split in data.items()},
        content={name: split["content"] for name, split in data.items()},
        prompts=hashlib.sha256(json.dumps(prompts).encode()).hexdigest(),
        **others,
    )


# What cannot change the outcome: where things are, how many decode, what is shown or allowed. What
# class names, templates and prompts say is hashed by itself, wherever it comes from.
_OUTSIDE = {
    "dataset": {
        *("root", "workers", "cache_gb", "class_names", "templates"),
        *("splits", "labels", "path_key", "label_key", "split_key"),  # the fingerprint tells
    },
    "model": {"recommended"},
    "strategy": {"recommended"},
    # max_epochs is the root's epochs again; a run that takes other steps than planned is refused.
    "trainer": {
        "max_epochs",
        "log_every_n_steps",
        "enable_progress_bar",
        "enable_model_summary",
        "profiler",
    },
}
for _group in ("retention", "mix"):  # datasets as well
    _OUTSIDE[_group] = _OUTSIDE["dataset"]

# What a root key that is null makes idle; and what comes after training, or only looks on.
_IDLE = {
    "alphas": {"merge", "merge_bn"},
    "retention": {"retention_every_epoch"},
    "mix": {"mix_fraction", "mix_weight"},
    "monitor": set(),
    "patience": set(),
}

# What does nothing at this value, so that runs from before there was such a key keep theirs.
_OFF: Mapping[str, Mapping[str, Any]] = {
    "augment": {
        "randaugment": None,
        "color_jitter": 0,
        "erasing": 0,
        "mixup": 0,
        "cutmix": 0,
        "mixup_probability": 1,
    },
    "model": {"pool": None},
    "trainer": {"num_nodes": 1},
}

_AFTER = {"alphas", "merge", "merge_bn", "retention", "retention_every_epoch"}

_ROOT_OUTSIDE = {
    *("prompts", "logger", "callbacks", "gate", "leaks", "allow_unfinished_warmup", "keep"),
    *("retry", "timeout", "rank_timeout", "ckpt", "claim"),
}

# Callbacks that look on, or write files: any other may change what comes of a run.
_ONLOOKERS = {
    *("LearningRateMonitor", "DeviceStatsMonitor", "ThroughputMonitor", "ModelCheckpoint"),
    *("ModelSummary", "RichModelSummary", "RichProgressBar", "TQDMProgressBar"),
}


def identity(config: Mapping[str, Any], **content: Any) -> dict[str, Any]:
    """Everything that can change a run's outcome, and nothing else.

    Args:
        config: the resolved config. Paths, workers and loggers are left out, and so is what a root
            key says in place of the recipe.
        content: what the config names but does not hold, such as the fingerprints of the splits
            and the hash of a weight file.
    """
    kept: dict[str, Any] = {}
    idle = {
        name for key, names in _IDLE.items() if config.get(key) is None for name in (key, *names)
    }
    for name, node in config.items():
        if name == "callbacks" and (others := _no_onlookers(node or {})):
            kept[name] = others
        if name in _ROOT_OUTSIDE | idle:
            continue
        if isinstance(node, Mapping):
            outside = _OUTSIDE.get(name, set()) | (set(config) if name == "recipe" else set())
            off = _OFF.get(name, {})
            node = {
                k: v for k, v in node.items() if k not in outside and (k not in off or v != off[k])
            }
        kept[name] = node
    return {"schema": SCHEMA, "config": kept, **content}


def answers(record: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether a record is of what a config asks for, as far as one can tell without its data.

    A null asks for a value by rule, which the record has.
    """
    asked = json.loads(json.dumps(plain(identity(config)["config"])))
    return _within(asked, identity(record["config"])["config"])


def _within(asked: Any, given: Any) -> bool:
    if isinstance(asked, Mapping) and isinstance(given, Mapping):
        return all(_within(value, given.get(name)) for name, value in asked.items())
    return asked is None or asked == given


def _no_onlookers(callbacks: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: node
        for name, node in callbacks.items()
        if node and str(node["_target_"]).rpartition(".")[2] not in _ONLOOKERS
    }


def current(record: Mapping[str, Any]) -> bool:
    """Return whether a record says what its images held; older ones are read, but never reused."""
    data = record.get("data") or {}
    return all("content" in split for split in data.values())


def seen(split: Mapping[str, Any]) -> str:
    """Return what two numbers share that are of the same images and labels.

    Args:
        split: of a record's ``data``. An older one does not say what its images held: it is the
            same as another of that kind, and as none that does.
    """
    return "/".join(filter(None, (split["sha256"], split.get("content"))))


def alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two splits of records are of the same images, as far as one can tell."""
    contents = {split["content"] for split in (one, other) if split.get("content")}
    return one["sha256"] == other["sha256"] and len(contents) < 2


def of_training(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a run's identity that its weights depend on."""
    kept = {k: v for k, v in identity["config"].items() if k not in _AFTER}
    content = {k: v for k, v in identity.items() if k not in _AFTER}
    return {**content, "config": kept}


def key(identity: Mapping[str, Any]) -> str:
    """The first 8 hex digits of the sha256 of an identity's canonical JSON."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def of_seed(identity: Mapping[str, Any], random: bool, fits: bool) -> dict[str, Any]:
    """Return what a record says of its seed: ``varies``, and the ``setting`` of a mean over seeds.

    Args:
        identity: of the run.
        random: whether the strategy's training is random.
        fits: whether it fits a head: of a few images a class the seed chooses which.
    """
    few = identity["config"]["dataset"].get("shots") is not None
    return {"varies": random or (fits and few), "setting": setting(identity)}


def setting(identity: Mapping[str, Any]) -> str:
    """Return the hash of an identity but for its seed, and for the images of train it draws."""
    config = {k: v for k, v in identity["config"].items() if k != "seed"}
    content = {**identity, "config": config}
    if config["dataset"].get("shots") is not None:
        for name, of in content.items():
            if name != "config" and isinstance(of, Mapping) and "train" in of:
                content[name] = {k: v for k, v in of.items() if k != "train"}
    return key(content)


def varies(record: Mapping[str, Any]) -> bool:
    """Return whether a run with another seed would have come to other weights.

    Records made before strategies said so are judged by what they tell: nothing was trained, or a
    head was fitted, without a step, on all there is of train.
    """
    if (known := record.get("varies")) is not None:
        return bool(known)
    if not (record.get("parameters") or {}).get("trainable", 1):
        return False
    fitted = not (record.get("steps") or {}).get("total", 1)
    return not fitted or record["config"]["dataset"].get("shots") is not None
