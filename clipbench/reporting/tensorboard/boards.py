"""TensorBoard summaries besides curves: the chart layout, images and tables; no torch."""

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

from clipbench.metrics import registry

Summary = Any  # TensorBoard has no types


def charts() -> dict[str, dict[str, str]]:
    """Return the pattern of each chart by its title, which TensorBoard looks for in any tag."""
    drawn: dict[str, dict[str, str]] = {
        "val": {},
        "training": {"loss": "^train/loss$", "learning rate": "^lr-"},
        "retrieval, val": {},
    }
    for name, metric in registry.METRICS.items():
        if metric.chart:
            pattern = name[:-1] if name.endswith("*") else f"{name}$"
            drawn[metric.chart][metric.label] = f"^val/{pattern}"
    return drawn


def layout() -> Summary:
    """Return the layout that draws the curves of all runs over each other, one chart per metric."""
    categories = []
    for title, patterns in charts().items():
        drawn = [
            layout_pb2.Chart(title=name, multiline=layout_pb2.MultilineChartContent(tag=[tag]))
            for name, tag in patterns.items()
        ]
        categories.append(layout_pb2.Category(title=title, chart=drawn))
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


def image(tag: str, content: Image.Image) -> Summary:
    """Return the summary of an image."""
    buffer = io.BytesIO()
    content.save(buffer, "PNG")
    return png(tag, buffer.getvalue())


def png(tag: str, content: bytes) -> Summary:
    """Return the summary of an encoded PNG."""
    with Image.open(io.BytesIO(content)) as decoded:
        width, height = decoded.size
    shown = summary_pb2.Summary.Image(
        height=height, width=width, colorspace=3, encoded_image_string=content
    )
    return summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=tag, image=shown)])


def table(tag: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Summary:
    """Return a table of text, which TensorBoard renders as Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    text = "\n".join(f"| {' | '.join(_plain(cell) for cell in line)} |" for line in lines)
    return text_pb(tag, text)


def _plain(cell: object) -> str:
    # Markdown's and HTML's special characters; TensorBoard's Markdown cannot escape all of them.
    text = re.sub(r"[&<>|*_`~!\\\[\]]", lambda sign: f"&#{ord(sign[0])};", str(cell))
    return " ".join(text.splitlines())


def append(path: Path, summaries: Iterable[Summary], step: int = 0) -> None:
    """Append summaries to an event file, and create it if it does not exist.

    Args:
        path: ``events.out.tfevents...``.
        summaries: what to add.
        step: the step of all of them.
    """
    is_new = not path.exists()
    with path.open("ab") as file:
        writer, now = RecordWriter(file), time.time()
        if is_new:
            version = event_pb2.Event(wall_time=now, file_version="brain.Event:2")
            writer.write(version.SerializeToString())
        for summary in summaries:
            event = event_pb2.Event(wall_time=now, step=step, summary=summary)
            writer.write(event.SerializeToString())
