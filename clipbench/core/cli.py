"""What the doors share that are not Hydra's own: ``key=value`` words, help, how a refusal ends."""

import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from clipbench.core import paths
from clipbench.core.errors import Refused
from clipbench.results import store
from clipbench.sweeps import summary

Given = dict[str, str]


def opened(usage: str, act: Callable[[list[str]], int], *, bare: bool = False) -> None:
    """Do what a command line asks, and exit: 0 well, 1 refused, 2 not understood.

    Args:
        usage: the door's docstring, shown for ``--help`` and for no words at all.
        act: takes the words, returns the exit code.
        bare: whether no words at all ask for something.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    words = sys.argv[1:]
    if not (words or bare) or {"-h", "--help"} & set(words):
        print(usage, file=sys.stdout if words else sys.stderr)
        sys.exit(0 if words else 2)
    try:
        sys.exit(act(words))
    except (HydraException, OmegaConfBaseException) as error:
        summary.config_error(error, words)
        sys.exit(2)
    except Refused as refused:
        summary.refusal(f"refused: {refused}", refused.details, paths.outputs())
        sys.exit(1)


def given(words: list[str], keys: Collection[str]) -> Given:
    """The values of ``key=value`` words.

    Args:
        words: as typed.
        keys: that the door knows.

    Raises:
        Refused: for a word of another form or key, or an empty value.
    """
    found: Given = {}
    for word in words:
        key, sign, value = word.partition("=")
        if key not in keys or not sign:
            near = summary.near(key, [*keys])
            raise Refused(f"{word} is not understood{near}; keys are {', '.join(keys)}")
        if not value:
            raise Refused(f"{key}= has no value; give one or leave it out")
        found[key] = value
    return found


def completed(words: Given) -> tuple[Path, dict[str, Any]]:
    """The folder and the record of the run that ``run=`` names.

    Raises:
        Refused: if there is no completed run in it.
    """
    if "run" not in words:
        raise Refused("run=DIR is missing; name a run's folder, which has a result.json")
    folder = paths.expanded(words["run"])
    record = store.read(folder)
    if record is None or record["status"] != "completed":
        said = f"its run is {record['status']}" if record else "it has no result.json"
        raise Refused(f"run={folder} holds no completed run: {said}; give another, or run it again")
    return folder, record


def number(words: Given, key: str, default: int, least: int = 1) -> int:
    """A whole number.

    Raises:
        Refused: for anything else.
    """
    value = words.get(key, str(default))
    if not value.isdecimal() or int(value) < least:
        raise Refused(f"{key}={value} is no whole number from {least} up; the default is {default}")
    return int(value)


def choice(words: Given, key: str, options: Sequence[str]) -> str:
    """One of some options, the first by default.

    Raises:
        Refused: for another.
    """
    value = words.get(key, options[0])
    if value not in options:
        near = summary.near(value, options)
        raise Refused(f"{key}={value} is no option{near}; there are {', '.join(options)}")
    return value
