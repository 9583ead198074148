"""What the commands share: ``key=value`` arguments, help, and how errors are printed."""

import difflib
import re
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from clipbench.core import files, paths
from clipbench.core.config import compose, overrides
from clipbench.core.config.search_path import ALSO_DATASETS
from clipbench.core.errors import SHOWN, UserError

Given = dict[str, str]


def opened(
    usage: str, act: Callable[[list[str]], int], *, bare: bool = False, folder: str = ""
) -> None:
    """Run a command and exit: 0 on success, 1 on a UserError, 2 on a wrong command line.

    Args:
        usage: the command's docstring, printed for ``--help`` and without arguments.
        act: takes the arguments, returns the exit code.
        bare: whether the command runs without arguments.
        folder: below the outputs root, for the details of an error that are too many to print.
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
        config_error(error, words)
        sys.exit(2)
    except UserError as refused:
        refusal(f"refused: {refused}", refused.details, paths.outputs() / folder)
        sys.exit(1)


def given(words: list[str], keys: Collection[str]) -> Given:
    """Parse ``key=value`` arguments.

    Args:
        words: as typed.
        keys: that the command accepts.

    Raises:
        UserError: if an argument has another form or key, or an empty value.
    """
    values: Given = {}
    for word in words:
        key, sign, value = word.partition("=")
        if key not in keys or not sign:
            hint = near(key, [*keys])
            raise UserError(f"{word} is not understood{hint or '.'} Keys are {', '.join(keys)}.")
        if not value:
            raise UserError(f"{key}= has no value. Give one or leave it out.")
        values[key] = value
    return values


def number(words: Given, key: str, default: int, least: int = 1) -> int:
    """Return the value of a key as an integer.

    Raises:
        UserError: if it is not an integer of at least ``least``.
    """
    value = words.get(key, str(default))
    if not value.isdecimal() or int(value) < least:
        raise UserError(
            f"{key}={value} is not a whole number of at least {least}. The default is {default}."
        )
    return int(value)


def choice(words: Given, key: str, options: Sequence[str]) -> str:
    """Return the value of a key that has fixed options; the first is the default.

    Raises:
        UserError: if the value is not one of them.
    """
    value = words.get(key, options[0])
    if value not in options:
        hint = near(value, options) or "."
        raise UserError(f"{key}={value} is not an option{hint} Choose from {', '.join(options)}.")
    return value


# Hydra's names for options of a plugin, and the extra that installs it.
_EXTRAS = {"optuna": "optuna"}


def refusal(summary: str, details: Sequence[str], folder: Path) -> None:
    """Print an error and its details; those beyond the first fifty go to a file in ``folder``."""
    sys.stdout.flush()
    print(summary, file=sys.stderr)
    for line in details[:SHOWN]:
        print(f"  {line}", file=sys.stderr)
    if more := details[SHOWN:]:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "refused.txt"
        files.write_text(path, "\n".join(details) + "\n")
        print(f"  and {len(more)} more, all of them in {path}", file=sys.stderr)


def near(word: str, options: Sequence[str]) -> str:
    """Return ``; did you mean ...?`` with the options nearest to a word, or an empty text."""
    matches = difflib.get_close_matches(word, options, n=3, cutoff=0.5)
    # People remember the last part of a key: rot is near dataset.root.
    matches += [
        o for o in options if difflib.get_close_matches(word, [o.split(".")[-1]], cutoff=0.75)
    ]
    unique = list(dict.fromkeys(matches))[:4]
    return f"; did you mean {' or '.join(unique)}?" if unique else ""


def config_error(error: Exception, words: Sequence[str]) -> None:
    """Print what is wrong with the command line, in one line, with the nearest options."""
    text = str(error)
    cause = str(error.__cause__ or "")
    if match := re.search(r"Could not find '([^']+?)/?([^'/]+)'", text):
        group, option = match.groups()
        place = "dataset" if group in ALSO_DATASETS else group
        folders = [paths.CONF / place, paths.EXPERIMENTS / place]
        options = sorted({p.stem for folder in folders for p in folder.glob("*.yaml")})
        message = f"{group}={option} is not an option{near(option, options)}"
        if (extra := _EXTRAS.get(option)) is not None:
            message, options = f'{extra} is not installed; pip install "clipbench[{extra}]"', []
        message += f" (options: {', '.join(options)})" if options else ""
    elif match := re.search(r"Could not override '([^']+)'", text):
        name = match.group(1)
        message = f"{name} is not a key{near(name, compose.keys())}"
    elif match := re.search(r"override '([^'=]+)'\s+missing EQUAL", text):
        message = f"{match.group(1)} is not key=value; put quotes around a value that has spaces"
    elif match := re.search(r"Missing mandatory value: (\S+)", text):
        message = f"{match.group(1)} must be given: {match.group(1)}=..."
    else:
        message = " ".join((cause or text).split())
    print(f"error: {message}", file=sys.stderr)
    print(f"  in: {overrides.shell(words)}", file=sys.stderr)
