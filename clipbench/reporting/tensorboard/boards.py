"""What TensorBoard is told besides curves: how to lay them out, pictures, tables; no torch."""

import io
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as custom_scalars
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter

Summary = Any  # TensorBoard has no types
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
    # What Markdown and HTML read; TensorBoard's Markdown has no backslash for all of it.
    text = re.sub(r"[&<>|*_`~!\\\[\]]", lambda sign: f"&#{ord(sign[0])};", str(cell))
    return " ".join(text.splitlines())


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
