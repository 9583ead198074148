"""Runs in TensorBoard's HParams view, with the same axes and metrics for all; no torch."""

import time
from collections.abc import Sequence
from typing import Any

from tensorboard.compat.proto import summary_pb2
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.plugins.hparams import summary_v2 as api

from clipbench.metrics import registry
from clipbench.reporting.tensorboard.boards import Summary
from clipbench.results.record import RunRecord

CHOSEN = "chosen"  # prefix of a metric's value at the epoch that val chose
NUMBERS = (
    *("lr", "batch_size", "epochs", "shots", "seed", "warmup", "weight_decay", "layer_decay"),
    *("label_smoothing", "head_lr_factor"),
)
FIRST = ("model", "strategy", "lr", "freeze_depth", "shots", "seed", "dataset")
WORDS = ("model", "dataset", "strategy", "freeze_depth", "text_freeze_depth", "ema")


def hyperparameters(record: RunRecord) -> dict[str, float | str]:
    """Return the sweep axes of a run under the same names for every run; unset ones are omitted."""
    values = {**record.config, **{k: v for k, v in vars(record).items() if k in (*NUMBERS, *WORDS)}}
    values["shots"] = record.config["dataset"].get("shots")
    numbers = {name: float(values[name]) for name in NUMBERS if values.get(name) is not None}
    words = {name: str(values[name]) for name in WORDS if values.get(name) is not None}
    return {**words, **numbers}


def name(record: RunRecord) -> str:
    """Return a readable name for a run: its main axes and its key."""
    values = hyperparameters(record)
    axes = [f"lr={values['lr']:g}"] if record.steps.total else []
    if (depth := values.get("freeze_depth", "0")) != "0":
        axes.append(f"depth={depth}")
    axes += [f"{axis}={values[axis]:g}" for axis in ("shots", "seed") if axis in values]
    words = [record.model, record.strategy, *axes, record.key]
    return " ".join(words).replace("/", "_")


def session(record: RunRecord) -> list[Summary]:
    """Return the summaries of a run in the HParams view: axes, success and final metrics.

    The tags of the metrics are ``chosen/<split>/<metric>``, whatever was trained.
    """
    start = api.hparams_pb(hyperparameters(record), trial_id=name(record))
    end = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=time.time())
    closing = _of_plugin(metadata.SESSION_END_INFO_TAG, session_end_info=end)
    metrics = [
        summary_pb2.Summary.Value(tag=tag, simple_value=value)
        for tag, value in final_metrics(record).items()
    ]
    return [start, summary_pb2.Summary(value=metrics), closing]


def _of_plugin(tag: str, **content: Any) -> Summary:
    """Return a summary of the HParams plugin, whose data is in the metadata of an empty tensor."""
    data = plugin_data_pb2.HParamsPluginData(version=metadata.PLUGIN_DATA_VERSION, **content)
    value = summary_pb2.Summary.Value(
        tag=tag, metadata=metadata.create_summary_metadata(data), tensor=metadata.NULL_TENSOR
    )
    return summary_pb2.Summary(value=[value])


def final_metrics(record: RunRecord) -> dict[str, float]:
    """Return a run's final metrics by tag, without those of each alpha, which are a curve."""
    final = record.final.items()
    return {f"{CHOSEN}/{k}": v for k, v in final if "@alpha=" not in k and v is not None}


def experiment(records: Sequence[RunRecord]) -> Summary:
    """Return the columns of the HParams view: the axes that vary, then every run's metrics."""
    values = [hyperparameters(record) for record in records]
    axes = [
        name
        for name in (*WORDS, *NUMBERS)
        if name == "model" or len({row.get(name) for row in values}) > 1
    ]
    tags = {tag: None for r in records for tag in final_metrics(r)}
    order = sorted(tags, key=lambda tag: (not tag.endswith(f"/{registry.HEADLINE}"), tag))
    shown = [
        api_pb2.MetricInfo(
            name=api_pb2.MetricName(tag=tag), display_name=tag.removeprefix(f"{CHOSEN}/")
        )
        for tag in order
    ]
    # TensorBoard shows five columns at first: those that "differ", by name, then the others.
    columns = [api_pb2.HParamInfo(name=name, differs=name in FIRST) for name in axes]
    whole = api_pb2.Experiment(hparam_infos=columns, metric_infos=shown)
    return _of_plugin(metadata.EXPERIMENT_TAG, experiment=whole)
