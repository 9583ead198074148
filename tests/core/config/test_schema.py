"""A root key is one entry of a file: its default, help, range and part in the run key."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from clipbench.core import paths
from clipbench.core.config import keys, schema
from clipbench.results import identity

PROBE = """
import json
from clipbench.core.config import compose, ranges
from clipbench.core.errors import UserError
from clipbench.results import identity
from tests.core.config.test_schema import identities
before, after = (compose.compose(*words) for words in ((), ("toy_key=4",)))
try:
    ranges.check(compose.compose("toy_key=0"))
    refused = ""
except UserError as error:
    refused = str(error)
print(json.dumps([before["toy_key"], after["toy_key"], identities(before, after), refused]))
"""


def identities(before, after):
    """Whether the run key, and that of the training, are another."""
    both = [identity.identity(config) for config in (before, after)]
    of_training = [identity.of_training(one) for one in both]
    return [identity.key(a) != identity.key(b) for a, b in (both, of_training)]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the tree, to add a key to."""
    copy = tmp_path_factory.mktemp("tree")
    for name in ("clipbench", "conf", "experiments", "tests", "hydra_plugins"):
        skip = shutil.ignore_patterns("__pycache__", "results", "outputs")
        shutil.copytree(
            paths.ROOT / name, copy / name, ignore=skip if name == "experiments" else None
        )
    return copy


def python(tree, *words):
    env = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run(
        [sys.executable, *words], cwd=tree, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("affects", "other_run", "other_training"),
    [("training", True, True), ("evaluation", True, False), ("nothing", False, False)],
)
def test_a_key_is_one_entry(tree, affects, other_run, other_training):
    entry = {"type": "int", "default": 3, "affects": affects, "help": "a number of toys"}
    line = json.dumps({"toy_key": entry | {"range": {"low": 1, "whole": True}}})[1:-1]
    source = (paths.ASSETS / "keys.yaml").read_text()
    (tree / "clipbench/assets/keys.yaml").write_text(f"{source}{line}\n")
    before, after, changed, refused = json.loads(python(tree, "-c", PROBE))
    assert (before, after) == (3, 4)
    assert changed == [other_run, other_training]
    assert refused.startswith("toy_key=0: is not a whole number from 1 up")
    assert "toy_key: a number of toys\n" in python(tree, "-m", "clipbench.run", "--help")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"help": "what it does"}, r"silent: .*'affects'"),
        ({"affects": "training"}, r"silent: .*'help'"),
        ({}, r"silent: .*'affects' and 'help'"),
        ({"affects": "trainig", "help": ""}, r"silent: affects=trainig: is not one of"),
        ({"affects": "training", "help": "", "rnage": None}, r"silent: .*'rnage'"),
    ],
)
def test_an_entry_that_does_not_say_what_it_affects_is_refused(metadata, message):
    with pytest.raises(TypeError, match=message):
        keys.declared({"silent": metadata})


def test_every_key_says_what_it_does_and_the_short_list_names_keys_alone():
    for name, key in schema.KEYS.items():
        assert key.help, name
    listed = schema.listing()
    assert all(word.split("=")[0].split(".")[0] in schema.KEYS for word in listed.split())
