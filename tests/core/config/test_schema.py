"""A root key is one field of the schema: its default, help, range and part in the run key."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field

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
def test_a_key_is_one_field(tree, affects, other_run, other_training):
    path, source = (
        tree / "clipbench/core/config/schema.py",
        (paths.PACKAGE / "core/config/schema.py").read_text(),
    )
    metadata = (
        f'{{"affects": "{affects}", "help": "a number of toys", "range": Range(1, whole=True)}}'
    )
    line = f"    toy_key: int = field(default=3, metadata={metadata})\n"
    path.write_text(source.replace("\n\nKEYS =", f"{line}\n\nKEYS =", 1))
    before, after, changed, refused = json.loads(python(tree, "-c", PROBE))
    assert (before, after) == (3, 4)
    assert changed == [other_run, other_training]
    assert refused.startswith("toy_key=0: is not a whole number from 1 up")
    assert "toy_key: a number of toys\n" in python(tree, "-m", "clipbench.run", "--help")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"help": "what it does"}, r"Silent\.one: .*'affects'"),
        ({"affects": "training"}, r"Silent\.one: .*'help'"),
        ({}, r"Silent\.one: .*'affects' and 'help'"),
        ({"affects": "trainig", "help": ""}, r"Silent\.one: affects=trainig: is not one of"),
        ({"affects": "training", "help": "", "rnage": None}, r"Silent\.one: .*'rnage'"),
    ],
)
def test_a_field_that_does_not_say_what_it_affects_is_refused(metadata, message):
    @dataclass
    class Silent:
        one: int = field(default=1, metadata=metadata)

    with pytest.raises(TypeError, match=message):
        keys.declared(Silent)


def test_every_key_says_what_it_does_and_the_short_list_names_keys_alone():
    for name, key in schema.KEYS.items():
        assert key.help, name
    listed = schema.listing()
    assert all(word.split("=")[0].split(".")[0] in schema.KEYS for word in listed.split())
