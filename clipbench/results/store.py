"""The record of a run: its identity, its ``result.json``, and many of them as a DataFrame."""

import functools
import hashlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipbench.core.errors import Refused

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1

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
    asked = json.loads(json.dumps(_plain(identity(config)["config"])))
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


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def write_text(path: Path, text: str) -> None:
    """Write a text file as :func:`write_bytes` does."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old one or the new one, never a part.

    Raises:
        Refused: with status ``interrupted`` if there is no room, or the folder takes no files; what
            was there before is as it was.
    """
    temporary: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".tmp-", delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # NamedTemporaryFile makes private files; a record is for every reader the folder allows.
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        why = f"{path} could not be written: {error.strerror or error}"
        fix = "put that right and give the same command again"
        raise Refused(f"{why}; {fix}", status="interrupted") from error


def write(folder: Path, record: Mapping[str, Any]) -> None:
    """Write ``result.json`` atomically, sealed; a number that is not finite becomes null."""
    plain = _plain(record)
    sealed = {**plain, "sha256": _seal(plain)}
    write_text(folder / "result.json", json.dumps(sealed, indent=1) + "\n")


def _seal(record: Mapping[str, Any]) -> str:
    body = {name: value for name, value in record.items() if name != "sha256"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def read(folder: Path) -> dict[str, Any] | None:
    """The record in a run's folder, or None where there is none that can be read.

    One that was cut off, or changed by anyone, counts for nothing, and is named on the error
    output: its job runs again.
    """
    path = folder / "result.json"
    try:
        content = path.read_bytes()
    except OSError:
        return None
    try:
        record = json.loads(content)
        if record.get("sha256", seal := _seal(record)) != seal:
            raise ValueError("not what was written")
    except (ValueError, AttributeError) as error:
        _say(
            f"{path} is not a whole record ({error}); it counts for nothing and its job runs again"
        )
        return None
    return record if isinstance(record, dict) and record.get("schema") == SCHEMA else None


@functools.cache
def _say(text: str) -> None:
    """Once, though tables and checks read the same record again and again."""
    print(text, file=sys.stderr)


def records(outputs: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every run folder under an outputs root with its record, in the order of their names."""
    for path in sorted((outputs / "runs").glob("*/*/result.json")):
        record = read(path.parent)
        if record is not None:
            yield path.parent, record


_COLUMNS = (
    *("key", "status", "model", "dataset", "strategy", "lr", "batch_size", "epochs"),
    *("freeze_depth", "seed"),
)


def row(folder: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """One run flat: its axes, its final metrics, its cost, its folder."""
    flat = {name: record.get(name) for name in _COLUMNS}
    flat["shots"] = record["config"]["dataset"].get("shots")
    flat["epoch0"] = next(
        (r.get(record["selection"]["metric"]) for r in record["curve"] if r["epoch"] == 0), None
    )
    flat |= {"run/varies": varies(record), "run/setting": record.get("setting")}
    flat |= {f"selection/{k}": v for k, v in record["selection"].items()}
    flat |= record["final"]
    if (alpha := record["selection"].get("alpha")) is not None:
        ending = f"@alpha={alpha:g}"
        chosen = {k.removesuffix(ending): v for k, v in flat.items() if k.endswith(ending)}
        flat |= {f"{name}@alpha": value for name, value in chosen.items()}
    flat |= {f"cost/{k}": v for k, v in record["cost"].items()}
    return flat | {"folder": str(folder)}


def load(outputs: Path) -> "pd.DataFrame":
    """All records under an outputs root, one row each; columns as in :func:`row`."""
    import pandas as pd

    return pd.DataFrame([row(folder, record) for folder, record in records(outputs)])
