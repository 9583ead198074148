"""Folders of any name: their paths arrive as they were typed, in the config, a job, its record."""

import json
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from clipbench import data, doctor, predict, search
from clipbench.core import paths
from clipbench.core.config import compose as config
from clipbench.core.config import overrides
from clipbench.core.config.instantiate import build
from clipbench.core.errors import UserError
from clipbench.sweeps.session import Session
from tests.conftest import ODD, clipbench, result_jsons

NAMES = [
    "photos (1)", "it's", 'the "best"', "'all'", "a,b", "a=b", "[x]", "{y}", "x{000..002}", "#2",
    "${HOME}", "${lr", "$5", r"a\ b", r"c:\new\${x}", "100%", "a&b;c", "-m", " lead", "trail ",
    "~old", "10:30", "🐈", "null", "007", "1e5", "true", "nan", "choice(a,b)", "photos(1)", "a|b>c",
    "tab\there", "!x", "*", "`ls`", "$(ls)", "@", "?", "..hidden", "dataset.root=x",
    ODD, "\udcff",
    *(unicodedata.normalize(form, "josé") for form in ("NFC", "NFD")),
]  # fmt: skip


def composed(words):
    """The config that Hydra makes of words, its own part of it too."""
    with initialize_config_dir(str(paths.CONF), version_base="1.3"):
        return compose("config", words, return_hydra_config=True)


FOLDER = "clipbench.datamodules.imagefolder.ImageFolderDataModule"
# A config takes a quarter of a second to compose: several names at once.
KEYS = sorted(overrides.PATHS - {"model.pretrained", "ckpt.resume", "hydra.sweep.dir"})
DEALT = [NAMES[begin : begin + len(KEYS)] for begin in range(0, len(NAMES), len(KEYS))]


def values(config):
    """Of each key that has a path."""
    flat = {key: OmegaConf.select(OmegaConf.create(overrides.escaped(config)), key) for key in KEYS}
    return {key: value for key, value in flat.items() if value is not None}


@pytest.mark.parametrize("home", [".", "in"])
@pytest.mark.parametrize("names", DEALT)
def test_a_folder_of_any_name_arrives_as_it_was_typed(names, home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = [Path(name) if home == "." else tmp_path / home / name for name in names]
    asked = dict(zip(KEYS, map(str, folders), strict=False))
    for folder in folders:
        folder.mkdir(parents=True)
    typed = [f"++{key}={folder}" for key, folder in asked.items()]

    ((swept,),) = BasicSweeper.split_arguments(
        OverridesParser.create().parse_overrides(overrides.read(typed)), None
    )
    job = Session().job(composed(swept))
    assert values(job.config) == asked
    assert job.overrides == typed
    for folder in folders:
        assert build({"_target_": FOLDER, "root": str(folder)}, val_fraction=0.1).root == folder
    OmegaConf.save(OmegaConf.create(overrides.escaped(job.config)), "config.yaml")
    assert values(OmegaConf.to_container(OmegaConf.load("config.yaml"), resolve=True)) == asked


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("model.pretrained=null", None),
        ("model.pretrained=openai", "openai"),
        ("model.pretrained=my weights (2).pt", "my weights (2).pt"),
        ("dataset.root='a b'", "a b"),
        ('dataset.root="train-{000..099}.tar"', "train-{000..099}.tar"),
        ("dataset.root=train-{000..099}.tar", "train-{000..099}.tar"),
        (r"dataset.root=photos\ \(1\)", "photos (1)"),
        ("dataset.root=${strategy.head}/x", "auto/x"),
        ("dataset.root=~/photos (1)", "~/photos (1)"),
        ("dataset.root=C:\\photos\\2024", "C:\\photos\\2024"),
        ("dataset.class_names=[a b, c]", ["a b", "c"]),
        ("dataset.class_names={a: b}", {"a": "b"}),
        (r"dataset.templates=[a photo of \{\}]", ["a photo of {}"]),
        ("dataset.class_names=007", "007"),
        ("ckpt.resume=null", None),
        ("ckpt.resume=auto", "auto"),
    ],
)
def test_what_is_not_there_has_the_meaning_that_hydra_gives_it(word, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("null").touch()
    key = word.partition("=")[0].split(".")
    found = config.compose("dataset=imagefolder", word)
    for part in key:
        found = found[part]
    assert found == value


@pytest.mark.parametrize(
    ("value", "there", "meant"),
    [
        ("a,b", [], ["a", "b"]),
        ("a,b", ["a,b"], None),
        ("a (1),b", [], None),
        ("a (1),b", ["a (1)", "b"], ["a (1)", "b"]),
        ("1e5, 007", [], ["1e5", "007"]),
        ("'a b',\"c\"", [], ["a b", "c"]),
        ("choice(a,b)", [], ["a", "b"]),
        ("a,null", [], ["a", None]),
    ],
)
def test_a_comma_is_a_sweep_unless_a_folder_has_it_in_its_name(
    value, there, meant, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name in there:
        Path(name).mkdir()
    (found,) = OverridesParser.create().parse_overrides(
        overrides.read([f"model.pretrained={value}"])
    )
    assert found.is_sweep_override() == (meant is not None)
    if meant is None:
        assert found.value() == value
    else:
        words = [f"model.pretrained={text}" for text in found.sweep_string_iterator()]
        assert [o.value() for o in OverridesParser.create().parse_overrides(words)] == meant


def test_a_shell_reads_what_is_shown_as_it_was_typed():
    words = [f"dataset.root={name}" for name in [*NAMES, "it's\\\x07\udce9a"]]
    line = overrides.shell(words)
    assert line.encode().decode().isprintable()
    read = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True)
    assert read.stdout.decode(errors="surrogateescape").split("\0")[:-1] == words


def test_a_line_break_is_refused_and_other_keys_are_not_touched():
    with pytest.raises(UserError, match=r"dataset.root='a\\nb' has a line break"):
        overrides.read(["dataset.root=a\nb"])
    words = ["-m", "model=clip_tiny", "lr=1e-3,1e-4", "dataset.counts={train: 8}", "logger=none"]
    assert overrides.read(words) == words
    assert [overrides.typed(word) for word in words] == words


@pytest.fixture
def photos(tmp_path):
    """Two classes of drawings in a folder with an odd name."""
    shapes = build(
        config.compose("dataset.counts={train: 8, val: 1, test: 1, test_ood: 1}")["dataset"]
    )
    shapes.prepare(0)
    split = shapes.splits["train"]
    for i, label in enumerate(split.labels.tolist()):
        if label < 2:
            folder = tmp_path / ODD / shapes.classes[label]
            folder.mkdir(parents=True, exist_ok=True)
            split.image(i).save(folder / f"{i}.png")
    return tmp_path / ODD


def test_every_command_takes_a_folder_of_an_odd_name(photos, tmp_path, monkeypatch, capsys):
    outputs = tmp_path / "josé's ${HOME} [x]:cat:"
    monkeypatch.setenv("CLIPBENCH_OUTPUTS", str(outputs))
    words = ["dataset=imagefolder", f"dataset.root={photos}", "strategy=zero_shot", "logger=none"]
    done = clipbench(*words, "trainer=cpu")
    assert done.returncode == 0, done.stderr
    ((folder, record),) = result_jsons(outputs)
    assert str(folder) in done.stdout.splitlines()
    assert record["config"]["dataset"]["root"] == str(photos)
    kept = {
        name: OmegaConf.load(folder / ".hydra" / f"{name}.yaml") for name in ("config", "overrides")
    }
    assert kept["config"].dataset.root == str(photos)
    assert list(kept["overrides"]) == [*words, "trainer=cpu"]

    monkeypatch.setenv("HOME", str(tmp_path))  # as of a shell that does not read run=~/...
    at_home = [f"run=~/{folder.relative_to(tmp_path)}", f"images=~/{photos.name}"]
    assert predict.predict(at_home) == 0
    assert predict.predict([f"run={folder}", "split=test", *words[:2]]) == 0
    assert search.search([*at_home, "query=a [/red] cross, it's"]) == 0
    said = capsys.readouterr()
    assert " 16 whose class is known" in said.err
    assert "a [/red] cross, it's" in said.out
    doctor.examine(words)
    assert "model.pretrained=assets:clip_tiny" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["data", "check", *words[:2]])
    with pytest.raises(SystemExit) as left:
        data.main()
    assert left.value.code == 0


def test_make_hands_on_what_was_typed(tmp_path):
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    show = "import json, sys; print(json.dumps(sys.argv[1:]))"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{show}" "$@"\n')
    python.chmod(0o755)
    (tmp_path / "venv" / "ready").touch()

    def made(*words):
        done = subprocess.run(
            ["make", "-s", f"VENV={tmp_path / 'venv'}", *words],
            capture_output=True, text=True, cwd=paths.ROOT, errors="surrogateescape",
        )  # fmt: skip
        return json.loads(done.stdout)

    for name in set(NAMES) - {" lead"}:  # make itself takes off blanks that a value begins with
        words = ["-m", "clipbench.compare", f"data={name}", "models=auto", "budget=30"]
        assert made("compare", f"DATA={name}") == words
    assert made("compare", "DATA=x", "MODELS=a,b", "BUDGET=5")[3:] == ["models=a,b", "budget=5"]
    assert made("report", f"SWEEP={ODD}") == ["-m", "clipbench.report", f"sweep={ODD}"]
    assert made("report") == ["-m", "clipbench.report"]


def test_no_text_is_markup_for_the_console():
    for path in paths.PACKAGE.rglob("*.py"):
        assert not re.findall(r"\[/?(?:red|green|yellow|bold|dim)?\]\w", path.read_text()), path
