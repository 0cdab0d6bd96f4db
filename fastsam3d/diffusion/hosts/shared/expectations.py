"""Compares a pipeline with a table of the attributes that its host expects.

Other people's code moves. A table says in one place which attributes a host reads, which functions it replaces and what
for, so that a newer pipeline is answered with a list of differences and not with an AttributeError in a sampling run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fastsam3d.diffusion.hosts.shared.signatures import class_signature

_MISSING = object()


@dataclass(frozen=True)
class Expected:
    """One attribute that a host needs.

    Attributes:
        path: from the pipeline, dotted; parts are attributes, keys of mappings or places in lists.
        purpose: the part of the library that needs it, for the message.
        parameters: names of its first parameters, where it is a function; None where they do not matter.
        optional: whether only part of the library needs it. Without it that part is left out or refused.
    """

    path: str
    purpose: str
    parameters: tuple[str, ...] | None = None
    optional: bool = False


def resolve(root: Any, path: str) -> Any:
    """The object at a dotted path.

    Raises:
        LookupError: there is none; the message is the part of the path that is missing.
    """
    value, done = root, []
    for part in path.split("."):
        done.append(part)
        value = _step(value, part)
        if value is _MISSING:
            raise LookupError(".".join(done))
    return value


def _step(value: Any, part: str) -> Any:
    if part.isdecimal():
        try:
            return value[int(part)]
        except (LookupError, TypeError):
            return _MISSING
    if isinstance(value, Mapping) or hasattr(value, "keys"):
        try:
            return value[part]
        except (LookupError, TypeError, AttributeError):
            return getattr(value, part, _MISSING)
    return getattr(value, part, _MISSING)


def differences(root: Any, expectations: Iterable[Expected]) -> list[str]:
    """One line for each expectation that a pipeline does not meet; none for one that is as known."""
    lines = []
    for expected in expectations:
        try:
            resolve(root, expected.path)
        except LookupError as missing:
            lines.append(f"{missing.args[0]} is missing ({expected.purpose})")
            continue
        if expected.parameters is None:
            continue
        found = _parameters(root, expected.path)
        if found is None:
            lines.append(f"{expected.path} is not a function ({expected.purpose})")
        elif found[: len(expected.parameters)] != expected.parameters:
            known, now = ", ".join(expected.parameters), ", ".join(found)
            lines.append(f"{expected.path} takes ({now}), known is ({known}, ...) ({expected.purpose})")
    # A missing object is one difference, however much is expected of it.
    return list(dict.fromkeys(lines))


def _parameters(root: Any, path: str) -> tuple[str, ...] | None:
    """Names of a function's parameters; None where there is no function."""
    owner_path, _, name = path.rpartition(".")
    signature = class_signature(resolve(root, owner_path) if owner_path else root, name)
    return None if signature is None else tuple(signature.parameters)
