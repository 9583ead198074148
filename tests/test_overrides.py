"""Folders of any name: their paths arrive as they were typed, in the config, a job, its record."""

import shlex
import unicodedata
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from clipbench import config, overrides, paths
from clipbench.errors import Refused
from clipbench.schema import build
from clipbench.sweeps import Session

NAMES = [
    "photos (1)", "it's", 'the "best"', "'all'", "a,b", "a=b", "[x]", "{y}", "x{000..002}", "#2",
    "${HOME}", "${lr", "$5", r"a\ b", r"c:\new\${x}", "100%", "a&b;c", "-m", " lead", "trail ",
    "~old", "10:30", "🐈", "null", "007", "1e5", "true", "nan", "choice(a,b)", "photos(1)", "a|b>c",
    "tab\there", "!x", "*", "`ls`", "$(ls)", "@", "?", "..hidden", "dataset.root=x",
    "Müller's photos (1), a=b #2 [x] {y}", "\udcff",
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
    assert shlex.split(overrides.shell(typed)) == typed
    for folder in folders:
        assert build({"_target_": FOLDER, "root": str(folder)}, val_fraction=0.1).root == folder
    if "\udcff" not in names:  # YAML is Unicode
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


def test_a_line_break_is_refused_and_other_keys_are_not_touched():
    with pytest.raises(Refused, match=r"dataset.root='a\\nb'.* rename it"):
        overrides.read(["dataset.root=a\nb"])
    words = ["-m", "model=clip_tiny", "lr=1e-3,1e-4", "dataset.counts={train: 8}", "logger=none"]
    assert overrides.read(words) == words
    assert [overrides.typed(word) for word in words] == words
