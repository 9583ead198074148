"""Paths in words of the command line: text for three languages, none of which may read it.

A word ``key=value`` passes the grammar of Hydra's overrides, then OmegaConf's interpolations; and
where it is printed to be pasted, the shell. A folder may be called ``it's (1), a=b ${x}``.
"""

import os
import re
import shlex
from collections.abc import Sequence
from typing import Any

from clipbench.core import paths
from clipbench.core.config.schema import KEYS
from clipbench.core.errors import UserError, printable

# Keys whose values are paths, if nothing else that Hydra reads there, such as a list.
PATHS = {
    f"{group}.{name}" for group, key in KEYS.items() for name in key.inside if key.inside[name].path
}
PATHS |= {"hydra.sweep.dir"}
# Where null asks for something that has no other name; a file called null is ./null there.
_NULL = {"model.pretrained", "ckpt.resume"}

_BARE = re.compile(r"(?!(?:null|true|false|inf|nan)$)[a-z_][\w-]*", re.ASCII | re.IGNORECASE)
_WORD = re.compile(r"(\+{0,2}([\w.]+))=(.*)", re.DOTALL)


def escaped(value: Any) -> Any:
    r"""Return plain data whose strings OmegaConf reads as they are: ``\${`` for ``${``."""
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", value)
    if isinstance(value, dict):
        return {key: escaped(child) for key, child in value.items()}
    return [escaped(child) for child in value] if isinstance(value, list) else value


def literal(text: str) -> str:
    """Return the value that a text is called by in Hydra's grammar, in quotes if need be."""
    from hydra.core.override_parser.types import Quote, QuotedString

    if _BARE.fullmatch(text):
        return text
    return QuotedString(escaped(text), Quote.single).with_quotes()


def read(words: Sequence[str]) -> list[str]:
    """Return the words as Hydra has to be given them for paths to arrive as they were typed.

    What is there under the very name that was typed is meant. Of the rest, what Hydra's grammar
    reads as more than text keeps that meaning: ``a,b``, ``[a, b]``, ``'quoted'``, ``${key}``, null.

    Args:
        words: as typed; those of other keys, and flags, are passed on.

    Raises:
        UserError: for a path with a line break.
    """
    return [_read(word) for word in words]


def _read(word: str) -> str:
    match = _WORD.fullmatch(word)
    if match is None or match[2] not in PATHS or not match[3]:
        return word
    typed, key, text = match.groups()
    if text.splitlines() != [text]:
        raise UserError(f"{key}={text!r} has a line break in its name. Rename it")
    return f"{typed}={_value(key, text)}"


def _value(key: str, text: str) -> str:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    there = _there(text)
    try:
        found = OverridesParser.create().parse_override(f"key={text}")
        value: Any = found.value()
    except HydraException:
        parts = [part.strip() if not _there(part) else part for part in text.split(",")]
        listed = len(parts) > 1 and not there and all(map(_there, parts))
        return ",".join(_value(key, part) for part in parts) if listed else literal(text)
    if value is None and key in _NULL:
        return text
    plain = "${" not in text
    if plain and isinstance(value, str) and value == text:
        return text
    if there or isinstance(value, int | float) or (plain and value == text.strip()):
        return literal(text)
    if found.is_sweep_override() and getattr(value, "simple_form", False):
        parts = text.split(",")
        if len(parts) == len(value.list):
            return ",".join(_value(key, part.strip()) for part in parts)
    return text


def _there(text: str) -> bool:
    return os.path.lexists(paths.expanded(text))


def typed(word: str) -> str:
    """Return a word that :func:`read` has made as it was typed: a path without its quotes."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    match = _WORD.fullmatch(word)
    if match is None or match[2] not in PATHS:
        return word
    try:
        value = OverridesParser.create().parse_override(word).value()
    except HydraException:
        return word
    return f"{match[1]}={value}" if isinstance(value, str) else word


def shell(words: Sequence[str]) -> str:
    r"""Return words as a line to be pasted into a shell; ``$'\xe9'`` for what is not text."""
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    if printable(word) == word:
        return shlex.quote(word)
    inside = word.replace("\\", r"\\").replace("'", r"\'")
    return f"$'{printable(inside)}'"
