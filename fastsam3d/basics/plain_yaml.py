"""Limits and plain values of YAML files from unknown sources: presets, and settings of checkpoints."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

LARGEST_TEXT = 1 << 20
"""Bytes of a settings file."""
MOST_NODES, DEEPEST = 20_000, 50
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxdict, _SHORT.maxlist, _SHORT.maxtuple, _SHORT.maxstring, _SHORT.maxother = 2, 4, 6, 6, 80, 80


def short(value: Any) -> str:
    """Returns a value as a short line for a message. A small file can hold a value whose full text fills the memory."""
    return _SHORT.repr(value)


def check_size(text: str) -> None:
    """Refuses YAML with too many values or too deep nesting, with every alias expanded.

    No values are built: the parser's events are counted, and each alias counts as all values that it names.

    Raises:
        ValueError: more than `MOST_NODES` values, deeper than `DEEPEST`, or an alias inside its own value.
        yaml.YAMLError: the text is not YAML.
    """
    import yaml

    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = [(None, 0)]
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            open_nodes.append((event.anchor, 1))
            if len(open_nodes) > DEEPEST:
                raise ValueError(f"its values are nested more than {DEEPEST} deep")
            continue
        if isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            anchor, size = open_nodes.pop()
        elif isinstance(event, yaml.ScalarEvent):
            anchor, size = event.anchor, 1
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"the alias *{event.anchor} stands inside of its own value, or for none")
            anchor, size = None, sizes[event.anchor]
        else:
            continue
        if anchor is not None:
            sizes[anchor] = size
        outer, total = open_nodes[-1]
        open_nodes[-1] = (outer, total + size)
        if total + size > MOST_NODES:
            raise ValueError(f"it holds more than {MOST_NODES} values, aliases written out")


def with_own_references(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values with `${group.key}` replaced by the plain value of that key of the same file.

    Only these are looked up: no environment variable, no resolver, no other file.

    Raises:
        ValueError: another kind of interpolation, an unknown key, a key with several values, or a circle.
    """
    return {str(key): _replaced(value, values, ()) for key, value in values.items()}


def refuse_resolvers(values: Any) -> None:
    """Raises ValueError where a text asks for a resolver, such as `${oc.env:HOME}`."""
    for text in _texts(values):
        if re.search(r"\$\{[^}]*:", text):
            raise ValueError(f"{short(text)} asks for something outside of the settings. Write the value itself")


def _texts(values: Any) -> Iterable[str]:
    if isinstance(values, str):
        yield values
    elif isinstance(values, Mapping):
        for key, value in values.items():
            yield from _texts(key)
            yield from _texts(value)
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _texts(value)


def _replaced(value: Any, root: Mapping[str, Any], followed: tuple[str, ...]) -> Any:
    if isinstance(value, Mapping):
        return {key: _replaced(item, root, followed) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replaced(item, root, followed) for item in value]
    if not isinstance(value, str) or "${" not in value:
        return value
    found = _REFERENCE.fullmatch(value.strip())
    if found is None:
        raise ValueError(f"{short(value)} is not looked up: only ${{group.key}} of the same file is")
    key = found[1]
    if key in followed:
        raise ValueError(f"${{{key}}} stands for itself")
    target: Any = root
    for part in key.split("."):
        if not isinstance(target, Mapping) or part not in target:
            raise ValueError(f"{short(value)}: there is no {key} in the same file")
        target = target[part]
    if isinstance(target, (Mapping, list, tuple)):
        raise ValueError(f"{short(value)}: {key} is not a single value")
    return _replaced(target, root, (*followed, key))
