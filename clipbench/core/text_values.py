"""YAML and JSON files whose values are text: a class may be called no, 007 or 1e3."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml


def read(path: Path) -> Any:
    """Return what a YAML or JSON file holds, every value in it as text.

    Raises:
        ValueError: if it is damaged, or a mapping has a key twice.
        OSError: if it cannot be read.
    """
    text = path.read_text("utf-8-sig")
    if path.suffix.lower() != ".json":
        try:
            return _value(yaml.compose(text, yaml.BaseLoader))
        except yaml.YAMLError as error:
            raise ValueError(" ".join(str(error).split())) from error
    return _as_text(
        json.loads(
            text, parse_int=str, parse_float=str, parse_constant=str, object_pairs_hook=_mapping
        )
    )


def _value(node: Any) -> Any:
    """Return what a YAML node holds, with scalars as they are written."""
    if isinstance(node, yaml.MappingNode):
        return _mapping([(_value(key), _value(value)) for key, value in node.value])
    if isinstance(node, yaml.SequenceNode):
        return [_value(item) for item in node.value]
    return None if node is None else node.value


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _refuse_twice([key for key, _ in pairs])
    return dict(pairs)


def _refuse_twice(keys: Sequence[Any]) -> None:
    twice = [key for key, count in Counter(keys).items() if count > 1]
    if twice:
        raise ValueError(f"the key {twice[0]} occurs twice")


def _as_text(value: Any) -> Any:
    """Return JSON with its booleans as they are written."""
    if isinstance(value, list):
        return [_as_text(item) for item in value]
    if isinstance(value, dict):
        return {key: _as_text(item) for key, item in value.items()}
    return str(value).lower() if isinstance(value, bool) else value
