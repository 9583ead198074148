"""FMoW in the layout of WILDS v1.1, held against the wilds package."""

import re

import numpy as np
import pandas as pd
import pytest
import torch

from clipbench.core.errors import UserError
from clipbench.core.jobs import Job
from clipbench.datamodules import fmow
from clipbench.datamodules.fmow import FMoWDataModule
from clipbench.loading.prompts import fill
from clipbench.loading.readers import wilds
from clipbench.sweeps.launcher import launch
from tests.conftest import SMALL, composed
from tests.datamodules.folders import draw
from tests.datamodules.wilds_reference import ask

COUNTRIES = {
    "CHN": "Asia",
    "FRA": "Europe",
    "KEN": "Africa",
    "USA": "Americas",
    "FJI": "Oceania",
}
EDGES = [
    ("2012-12-31T23:59:59Z", 2012),
    ("2012-12-31T23:59:59.999Z", 2012),
    ("2013-01-01T00:00:00Z", 2013),
    ("2015-12-31T23:59:59.999Z", 2015),
    ("2016-01-01T00:00:00Z", 2016),
    ("2016-01-01T00:00:00.000Z", 2016),
    ("2002-01-01T00:00:00Z", 2002),
    ("2017-12-31T23:59:59.500Z", 2017),
]


def rows(n=1200, seed=0):
    """As ``rgb_metadata.csv``: seq rows in between, all regions, both kinds of stamps."""
    rng = np.random.default_rng(seed)
    years = rng.integers(2002, 2018, n)
    fraction = np.where(rng.random(n) < 0.5, ".123Z", "Z")
    days = [f"{rng.integers(1, 13):02d}-{rng.integers(1, 29):02d}" for _ in range(n)]
    stamps = [f"{y}-{d}T10:20:30{f}" for y, d, f in zip(years, days, fraction, strict=True)]
    stamps[10 : 10 + len(EDGES)] = [stamp for stamp, _ in EDGES]
    split = rng.choice(["train", "val", "test", "seq"], n, p=[0.4, 0.2, 0.2, 0.2])
    split[:9] = "seq"  # so that row and position differ from the start
    split[10 : 10 + len(EDGES)] = ["train", "val", "val", "val", "test", "test", "train", "test"]
    return pd.DataFrame(
        {
            "split": split,
            "img_filename": [f"x_{i}_rgb.tif" for i in range(n)],
            "category": rng.choice(fmow.CLASSES[3:50], n),  # some classes nobody has
            "country_code": rng.choice([*COUNTRIES, "XKX"], n),  # XKX is in no mapping
            "cloud_cover": rng.integers(0, 90, n),
            "timestamp": stamps,
            "region": "as computed, and not read",
        }
    )


def folder(above, table):
    root = above / "fmow_v1.1"
    root.mkdir(parents=True)
    (root / "RELEASE_v1.1.txt").write_text("")
    table.to_csv(root / "rgb_metadata.csv", index=False)
    codes = {"name": list(COUNTRIES), "alpha-3": list(COUNTRIES), "region": COUNTRIES.values()}
    pd.DataFrame(codes).to_csv(root / "country_code_mapping.csv", index=False)
    return root


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Our splits with random logits, and what wilds says of the same folder and predictions."""
    above = tmp_path_factory.mktemp("wilds")
    data = FMoWDataModule(root=folder(above, rows()))
    data.splits = data.read_splits()
    rng = torch.Generator().manual_seed(0)
    logits = {}
    for name, split in data.splits.items():
        logits[name] = torch.randn(len(split), 62, generator=rng)
        sure = torch.rand(len(split), generator=rng) < 0.6
        logits[name][sure, torch.tensor(split.labels)[sure]] += 9
    predicted = {wilds.SPLITS[name]: of.argmax(1).tolist() for name, of in logits.items()}
    return data, logits, ask("fmow", above, predicted)


def test_splits_are_row_for_row_those_of_wilds(both):
    data, _, theirs = both
    assert set(data.splits) == {"train", "val", "test", "val_ood", "test_ood"}
    for name, split in data.splits.items():
        own = theirs["splits"][wilds.SPLITS[name]]
        assert len(split) == split.expected > 20
        assert list(split.ids) == own["files"]
        assert [path.relative_to(data.root).as_posix() for path in split.images] == own["files"]
        assert split.labels.tolist() == own["labels"]
        for kind in ("region", "year"):
            names = [*data.groups[kind], "Other"]  # -1 is the last
            assert [names[i] for i in split.groups[kind]] == own["groups"][kind]
    assert {i for split in data.splits.values() for i in split.groups["region"]} == set(
        range(-1, 5)
    )


def test_metrics_are_those_of_wilds(both):
    data, logits, theirs = both
    for name, split in data.splits.items():
        got = data.measure(name, logits[name], torch.tensor(split.labels))
        results = theirs["splits"][wilds.SPLITS[name]]["results"]
        assert got["acc"] == pytest.approx(results["acc_avg"], abs=1e-6)
        for kind in ("region", "year"):
            worst = results[f"acc_worst_{kind}"]
            assert got[f"acc_worst_{kind}"] == pytest.approx(worst, abs=1e-6)
            assert 0 < worst < got["acc"]


def test_classes_and_release_are_those_of_wilds(both):
    data, _, theirs = both
    assert data.classes == theirs["categories"]
    assert len(data.classes) == theirs["classes"] == 62
    assert theirs["folder"] == "fmow_v1.1"
    assert theirs["release"]["download_url"] in data.instructions
    assert f"{theirs['release']['compressed_size'] / 1e9:.1f} GB" in data.instructions


def test_the_years_meet_at_midnight_utc(tmp_path):
    data = FMoWDataModule(root=folder(tmp_path, rows()))
    splits = data.read_splits()
    place = {i: (name, split) for name, split in splits.items() for i in split.ids}
    expected = ["train", "val", "val_ood", "val_ood", "test_ood", "test_ood", "train", "test_ood"]
    for row, ((_, year), name) in enumerate(zip(EDGES, expected, strict=True), start=10):
        file = f"images/rgb_img_{row}.png"
        found, split = place[file]
        assert found == name
        assert data.groups["year"][split.groups["year"][split.ids.index(file)]] == str(year)


def test_templates_are_wise_fts_underscores_and_all():
    data = FMoWDataModule(root="x")
    places = ["asia", "africa", "the americas", "europe", "oceania"]
    assert [fill(template, "airport_hangar") for template in data.templates] == [
        "satellite photo of a airport_hangar.",
        "aerial photo of a airport_hangar.",
        "satellite photo of an airport hangar.",
        "aerial photo of an airport hangar.",
        *(
            f"{v} photo of a airport_hangar in {p}."
            for p in places
            for v in ("satellite", "aerial")
        ),
        "a photo of a airport_hangar.",
        "airport_hangar.",
    ]
    assert data.classes[30] == "multi-unit_residential"


def test_names_with_spaces(tmp_path):
    data = FMoWDataModule(root=folder(tmp_path, rows()), class_names="spaced")
    data.lists(0)
    assert data.classes[1] == "airport hangar"
    assert data.classes[30] == "multi-unit residential"
    assert data.keys[1] == "airport_hangar"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "rgb_metadata.csv").unlink(), r"rgb_metadata\.csv does not exist"),
        (
            lambda root: (root / "country_code_mapping.csv").unlink(),
            r"country_code_mapping\.csv does not exist",
        ),
        (lambda root: (root / "rgb_metadata.csv").write_bytes(b"\xff\xfe\x00"), "cannot be read"),
        (lambda root: (root / "rgb_metadata.csv").write_text("split,category\n"), "has no rows"),
        (lambda root: (root / "rgb_metadata.csv").write_text("split\nval\n"), "no column category"),
    ],
)
def test_a_damaged_folder_says_what_is_wrong(tmp_path, spoil, message):
    root = folder(tmp_path, rows(20))
    spoil(root)
    with pytest.raises(UserError, match=message):
        FMoWDataModule(root=root).prepare(0)


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [("timestamp", "soon", "is not a time"), ("category", "castle", "is none of the 62 classes")],
)
def test_a_wrong_row_is_named(tmp_path, column, value, reason):
    table = rows(20)
    table["split"] = "train"
    table.loc[7, column] = value
    root = folder(tmp_path, table)
    with pytest.raises(UserError, match="1 rows of") as refusal:
        FMoWDataModule(root=root).prepare(0)
    assert refusal.value.details == [f"{root / 'rgb_metadata.csv'}:9: {value} {reason}"]


def test_no_folder_says_how_to_get_it(tmp_path):
    with pytest.raises(UserError, match=re.escape("wilds.get_dataset('fmow'")):
        FMoWDataModule(root=tmp_path / "fmow_v1.1").prepare(0)


def few(above):
    """A dozen images, two a split and some more to train on."""
    stamps = (
        ["2010-01-01T00:00:00Z"] * 8 + ["2014-01-01T00:00:00Z"] * 2 + ["2016-06-01T00:00:00Z"] * 2
    )
    table = pd.DataFrame(
        {
            "split": ["train"] * 4 + ["val"] * 2 + ["test"] * 2 + ["val"] * 2 + ["test"] * 2,
            "category": ["dam", "zoo"] * 6,
            "country_code": ["FRA", "XKX", "KEN"] * 4,
            "timestamp": stamps,
        }
    )
    seq = table.iloc[:1].assign(split="seq")
    root = folder(above, pd.concat([seq, table]))
    for row in range(1, 13):  # none of seq
        draw(root / "images" / f"rgb_img_{row}.png", seed=row)
    return root


@pytest.mark.parametrize("model", ["clip_tiny", "resnet_tiny"])
def test_an_epoch_through_the_launcher(tmp_path, outputs, model):
    words = ["dataset=fmow", f"dataset.root={few(tmp_path)}", f"model={model}", *SMALL, "gate=off"]
    choices = {"model": model, "dataset": "fmow", "strategy": "finetune"}
    done = launch(Job(composed(*words), choices, words))
    assert done.status == "completed", done.error
    found = pd.read_json(f"{done.folder}/result.json", typ="series")
    assert {f"{split}/acc_worst_year" for split in wilds.SPLITS if split != "train"} < set(
        found["final"]
    )
    predicted = pd.read_parquet(f"{done.folder}/predictions.parquet")
    assert set(predicted["region"].dropna()) == {"Europe", "Africa"}
    assert set(predicted["year"]) == {"2010", "2014", "2016"}
