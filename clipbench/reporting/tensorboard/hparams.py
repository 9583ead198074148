"""Runs in TensorBoard's HParams view: the same axes and metrics for all of them; no torch."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from tensorboard.compat.proto import summary_pb2
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.plugins.hparams import summary_v2 as api

from clipbench.reporting.tensorboard.boards import Summary

CHOSEN = "chosen"  # of each metric the value at the epoch that val chose
NUMBERS = (
    *("lr", "batch_size", "epochs", "shots", "seed", "warmup", "weight_decay", "layer_decay"),
    *("label_smoothing", "head_lr_factor"),
)
FIRST = ("model", "strategy", "lr", "freeze_depth", "shots", "seed", "dataset")
WORDS = ("model", "dataset", "strategy", "freeze_depth", "text_freeze_depth", "ema")


def hyperparameters(record: Mapping[str, Any]) -> dict[str, float | str]:
    """The sweep axes of a run, the same names for every run; what is not set is left out."""
    told = {**record["config"], **{k: record[k] for k in record if k in (*NUMBERS, *WORDS)}}
    told["shots"] = record["config"]["dataset"].get("shots")
    numbers = {name: float(told[name]) for name in NUMBERS if told.get(name) is not None}
    words = {name: str(told[name]) for name in WORDS if told.get(name) is not None}
    return {**words, **numbers}


def name(record: Mapping[str, Any]) -> str:
    """What a run is called: what was typed of it that tells, and its key."""
    told = hyperparameters(record)
    axes = [f"lr={told['lr']:g}"] if record["steps"]["total"] else []
    if (depth := told.get("freeze_depth", "0")) != "0":
        axes.append(f"depth={depth}")
    axes += [f"{axis}={told[axis]:g}" for axis in ("shots", "seed") if axis in told]
    words = [record["model"], record["strategy"], *axes, record["key"]]
    return " ".join(words).replace("/", "_")


def session(record: Mapping[str, Any]) -> list[Summary]:
    """A run in the HParams view: its axes, that it ended well, and the metrics of its end.

    Their tags are ``chosen/<split>/<metric>``, whatever was trained.
    """
    start = api.hparams_pb(hyperparameters(record), trial_id=name(record))
    end = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=time.time())
    closing = _of_plugin(metadata.SESSION_END_INFO_TAG, session_end_info=end)
    found = [
        summary_pb2.Summary.Value(tag=tag, simple_value=value)
        for tag, value in ended(record).items()
    ]
    return [start, summary_pb2.Summary(value=found), closing]


def _of_plugin(tag: str, **content: Any) -> Summary:
    """What the HParams plugin reads: no numbers, its data stands in what is told about them."""
    data = plugin_data_pb2.HParamsPluginData(version=metadata.PLUGIN_DATA_VERSION, **content)
    about = metadata.create_summary_metadata(data)
    return summary_pb2.Summary(
        value=[summary_pb2.Summary.Value(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)]
    )


def ended(record: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a run's end by tag; those of other averages are a curve of their own."""
    final = record["final"].items()
    return {f"{CHOSEN}/{k}": v for k, v in final if "@alpha=" not in k and v is not None}


def experiment(records: Sequence[Mapping[str, Any]]) -> Summary:
    """The columns of the HParams view: the axes that vary, then the metrics that any run has."""
    told = [hyperparameters(record) for record in records]
    axes = [
        name
        for name in (*WORDS, *NUMBERS)
        if name == "model" or len({one.get(name) for one in told}) > 1
    ]
    tags = {tag: None for r in records for tag in ended(r)}
    order = sorted(tags, key=lambda tag: (not tag.endswith("/acc"), tag))
    shown = [
        api_pb2.MetricInfo(
            name=api_pb2.MetricName(tag=tag), display_name=tag.removeprefix(f"{CHOSEN}/")
        )
        for tag in order
    ]
    # TensorBoard has five columns at first: those that "differ", by name, then the others.
    columns = [api_pb2.HParamInfo(name=name, differs=name in FIRST) for name in axes]
    whole = api_pb2.Experiment(hparam_infos=columns, metric_infos=shown)
    return _of_plugin(metadata.EXPERIMENT_TAG, experiment=whole)
