"""What TensorBoard is given: the same axes and metrics for every run, names, layout, pictures."""

import html
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tensorboard import plugin_util
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import metadata

from clipbench import dashboard
from clipbench.reporting.tensorboard import boards, mosaics
from clipbench.results.record import RunRecord
from clipbench.training import tensorboard_summary
from tests.conftest import result_jsons


def events(folder):
    return EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()


def told(folder, tag):
    """What the HParams plugin keeps under a tag."""
    content = events(folder).SummaryMetadata(tag).plugin_data.content
    return metadata.parse_session_start_info_plugin_data(content)


def test_every_run_has_the_same_axes_and_the_metrics_of_its_record(runs):
    tags, names = [], []
    for folder, record in runs.values():
        found = events(folder)
        tags.append({tag for tag in found.Tags()["scalars"] if tag.startswith("chosen/")})
        for key in ("val/acc", "test/acc", "test_ood/macro_f1"):
            (event,) = found.Scalars(f"chosen/{key}")
            assert event.value == pytest.approx(record["final"][key])
            assert event.step == record["selection"]["epoch"]
        start = told(folder, metadata.SESSION_START_INFO_TAG)
        names.append(set(start.hparams))
        assert start.hparams["lr"].number_value == record["lr"]
        assert start.hparams["model"].string_value == record["model"]
        assert start.hparams["shots"].number_value == 2
        assert start.hparams["freeze_depth"].string_value == "0"
        assert metadata.SESSION_END_INFO_TAG in found.Tags()["tensors"]
    assert tags[0] == tags[1]
    assert names[0] == names[1] >= {"batch_size", "epochs", "seed", "strategy", "weight_decay"}


def test_every_run_has_its_images(runs):
    for folder, record in runs.values():
        found = events(folder)
        assert set(found.Tags()["images"]) == {"confusion, test", "surest mistakes, test"}
        for tag in found.Tags()["images"]:
            (event,) = found.Images(tag)
            with Image.open(io.BytesIO(event.encoded_image_string)) as picture:
                assert picture.size == (event.width, event.height)
        (text,) = found.Tensors("worst classes, test")
        assert b"| class | recall | images | most taken for |" in text.tensor_proto.string_val[0]
        assert record["warnings"] == [w for w in record["warnings"] if "TensorBoard" not in w]


def test_images_that_cannot_be_made_lose_no_run(runs, tmp_path):
    record = RunRecord.from_json(runs["timm"][1])
    assert (
        tensorboard_summary.add(tmp_path, record, None) is None
    )  # logger=none: no events, no pictures
    (tmp_path / "events.out.tfevents.1").write_bytes(b"")
    (tmp_path / "predictions.parquet").write_bytes(b"torn")
    said = tensorboard_summary.add(tmp_path, record, type("Data", (), {"splits": {}}))
    assert said.startswith("TensorBoard lacks the end of this run: ")


def test_the_matrix_is_by_row_and_the_grid_has_every_picture():
    counts = np.array([[8, 2, 0], [0, 0, 5], [0, 0, 0]])
    drawn = np.asarray(mosaics.confusion(counts, ["a", "b" * 99, "c"]).convert("L"), float)
    cells = drawn[:84, 150:234].reshape(3, 28, 3, 28)[:, 2:6, :, 2:6].mean((1, 3))
    assert (np.argsort(cells[0]) == [0, 1, 2]).all()
    assert cells[1].argmin() == 2
    assert cells[0, 0] > cells[1, 2]  # 80 % of a row, 100 % of a row
    assert np.ptp(cells[2]) == 0
    assert mosaics.confusion(np.eye(300, dtype=np.int64), ["x"] * 300).size == (600, 600)
    pictures = [Image.new("RGB", (40, 20), (10 * n, 0, 0)) for n in range(8)]
    sheet = mosaics.grid(pictures, [("a", "b")] * 8)
    reds = {sheet.getpixel((60 + n % 6 * 120, 50 + n // 6 * 146))[0] for n in range(8)}
    assert reds == {10 * n for n in range(8)}


def test_a_table_shows_names_to_the_letter():
    names = ["a|b <script>", "*a* _b_ ![c](d) [e](http://f.g) `h` \\* &amp; ~i~"]
    (value,) = boards.table("t", ("class",), [(name,) for name in names]).value
    shown = plugin_util.markdown_to_safe_html(value.tensor.string_val[0])
    assert list(map(html.unescape, re.findall("<td>(.*?)</td>", shown))) == names


@pytest.fixture
def home(runs, tmp_path, monkeypatch):
    """An outputs root with the runs, and a figure of a sweep."""
    outputs = next(iter(runs.values()))[0].parents[2]
    monkeypatch.setenv("CLIPBENCH_OUTPUTS", str(outputs))
    (outputs / "tables").mkdir(exist_ok=True)
    Image.new("RGB", (30, 20)).save(outputs / "tables" / "sweep_a_by_freeze_depth.png")
    return dashboard.laid_out()


def test_runs_have_readable_names_and_stay_where_they_are(home, runs):
    (tiny,) = (home / "shapes").glob("clip_tiny *")
    folder, record = runs["clip_tiny"]
    assert tiny.name == f"clip_tiny finetune lr=0.0003 shots=2 seed=0 {record['key']}"
    assert tiny.resolve() == folder.resolve()
    before = sorted(path for path in folder.rglob("*"))
    (home / "shapes" / "gone").symlink_to(folder)
    assert dashboard.laid_out() == home  # again: what is gone is gone, and no run with it
    assert not (home / "shapes" / "gone").exists()
    assert sorted(path for path in folder.rglob("*")) == before
    assert len(list(result_jsons(folder.parents[2]))) == 2


def test_one_view_of_all_runs(home, runs):
    own = events(home)
    content = own.SummaryMetadata(metadata.EXPERIMENT_TAG).plugin_data.content
    view = metadata.parse_experiment_plugin_data(content)
    axes = [info.name for info in view.hparam_infos]
    assert [info.name for info in view.hparam_infos if info.differs] == ["model", "lr"]
    assert axes == ["model", "lr", "weight_decay", "head_lr_factor"]  # those that differ
    shown = [info.name.tag for info in view.metric_infos]
    for folder, _ in runs.values():
        scalars = events(folder).Tags()["scalars"]
        assert set(shown) <= set(scalars)
        assert set(axes) <= set(told(folder, metadata.SESSION_START_INFO_TAG).hparams)
    assert shown[0] == "chosen/test/acc"
    (layout,) = own.Tensors("custom_scalars__config__")
    parsed = layout_pb2.Layout.FromString(layout.tensor_proto.string_val[0])
    charts = {chart.title: chart for part in parsed.category for chart in part.chart}
    assert list(charts["accuracy"].multiline.tag) == ["^val/acc$"]
    assert events(home / "sweeps" / "a_by_freeze_depth").Tags()["images"] == ["figure"]


def test_the_line_of_alphas_is_a_picture_too(runs, tmp_path):
    record = RunRecord.from_json(runs["clip_tiny"][1])
    (tmp_path / "events.out.tfevents.1").write_bytes(b"")
    Image.new("RGB", (30, 20)).save(tmp_path / "alpha_curve.png")  # of captions: no predictions
    final = {**record.final, "test/acc@alpha=0.5": 0.5, "test/none": None}
    assert (
        tensorboard_summary.add(
            tmp_path, replace(record, final=final), type("D", (), {"splits": {}})
        )
        is None
    )
    tags = events(tmp_path).Tags()
    assert tags["images"] == ["alpha curve"]
    assert "chosen/test/acc" in tags["scalars"]
    assert not [tag for tag in tags["scalars"] if "alpha" in tag or "none" in tag]
