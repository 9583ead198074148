"""What TensorBoard is told besides curves: hyperparameters, layout, pictures; no torch."""

import io
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as custom_scalars
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.plugins.hparams import summary_v2 as api
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter

Summary = Any  # TensorBoard has no types
CHOSEN = "chosen"  # of each metric the value at the epoch that val chose
NUMBERS = (
    *("lr", "batch_size", "epochs", "shots", "seed", "warmup", "weight_decay", "layer_decay"),
    *("label_smoothing", "head_lr_factor"),
)
WORDS = ("model", "dataset", "strategy", "freeze_depth", "text_freeze_depth", "ema")
CHARTS = {  # patterns, which TensorBoard looks for anywhere in a tag
    "val": {
        "accuracy": "^val/acc$",
        "mean per class": "^val/mean_per_class$",
        "macro-F1": "^val/macro_f1$",
        "loss": "^val/loss$",
    },
    "training": {"loss": "^train/loss$", "learning rate": "^lr-"},
    "retrieval, val": {
        "a text finds its picture": "^val/image_recall@",
        "a picture finds its text": "^val/text_recall@",
    },
}


def hyperparameters(record: Mapping[str, Any]) -> dict[str, float | str]:
    """The sweep axes of a run, the same names for every run; what is not set is left out."""
    told = {**record["config"], **{k: record[k] for k in record if k in (*NUMBERS, *WORDS)}}
    told["shots"] = record["config"]["dataset"].get("shots")
    numbers = {name: float(told[name]) for name in NUMBERS if told.get(name) is not None}
    words = {name: str(told[name]) for name in WORDS if told.get(name) is not None}
    return {**words, **numbers}


def session(record: Mapping[str, Any]) -> list[Summary]:
    """A run in the HParams view: its axes, that it ended well, and the metrics of its end.

    Their tags are ``chosen/<split>/<metric>``, whatever was trained.
    """
    start = api.hparams_pb(hyperparameters(record), trial_id=record["key"])
    end = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=time.time())
    content = plugin_data_pb2.HParamsPluginData(
        session_end_info=end, version=metadata.PLUGIN_DATA_VERSION
    )
    closing = summary_pb2.Summary()
    about = metadata.create_summary_metadata(content)
    closing.value.add(
        tag=metadata.SESSION_END_INFO_TAG, metadata=about, tensor=metadata.NULL_TENSOR
    )
    found = [
        summary_pb2.Summary.Value(tag=tag, simple_value=value)
        for tag, value in ended(record).items()
    ]
    return [start, summary_pb2.Summary(value=found), closing]


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
    shown = [api.Metric(tag, display_name=tag.removeprefix(f"{CHOSEN}/")) for tag in order]
    return api.hparams_config_pb([api.HParam(name) for name in axes], shown)


def layout() -> Summary:
    """Curves of all runs over each other, a chart a metric."""
    categories = []
    for title, charts in CHARTS.items():
        own = [
            layout_pb2.Chart(title=name, multiline=layout_pb2.MultilineChartContent(tag=[tag]))
            for name, tag in charts.items()
        ]
        categories.append(layout_pb2.Category(title=title, chart=own))
    content = layout_pb2.Layout(category=categories).SerializeToString()
    value = summary_pb2.Summary.Value(
        tag=custom_scalars.CONFIG_SUMMARY_TAG,
        metadata=custom_scalars.create_summary_metadata(),
        tensor=tensor_pb2.TensorProto(
            dtype="DT_STRING",
            string_val=[content],
            tensor_shape=tensor_shape_pb2.TensorShapeProto(),
        ),
    )
    return summary_pb2.Summary(value=[value])


def image(tag: str, picture: Image.Image) -> Summary:
    """A picture."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return png(tag, buffer.getvalue())


def png(tag: str, content: bytes) -> Summary:
    """A picture that is a PNG already."""
    with Image.open(io.BytesIO(content)) as picture:
        width, height = picture.size
    shown = summary_pb2.Summary.Image(
        height=height, width=width, colorspace=3, encoded_image_string=content
    )
    return summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=tag, image=shown)])


def table(tag: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Summary:
    """A table of words, which TensorBoard reads as Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    text = "\n".join(f"| {' | '.join(_plain(cell) for cell in line)} |" for line in lines)
    return text_pb(tag, text)


def _plain(cell: object) -> str:
    text = str(cell).replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;")
    return text.replace("\n", " ")


def append(path: Path, summaries: Iterable[Summary], step: int = 0) -> None:
    """Add to a file of events, which is begun if it is not there.

    Args:
        path: ``events.out.tfevents...``.
        summaries: what to add.
        step: of all of them.
    """
    begun = path.exists()
    with path.open("ab") as file:
        writer, now = RecordWriter(file), time.time()
        if not begun:
            first = event_pb2.Event(wall_time=now, file_version="brain.Event:2")
            writer.write(first.SerializeToString())
        for one in summaries:
            event = event_pb2.Event(wall_time=now, step=step, summary=one)
            writer.write(event.SerializeToString())
