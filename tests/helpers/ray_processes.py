"""The local Ray that a process starts, and its processes. Other programs of the machine may run a Ray of their own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

import pytest

from fastsam3d.errors import UserError

T = TypeVar("T")


@contextlib.contextmanager
def or_skipped(starting: AbstractContextManager[T]) -> Iterator[T]:
    """Enters a context that starts a local Ray. The test is skipped if Ray does not start, as on very busy cores."""
    with contextlib.ExitStack() as stack:
        try:
            value = stack.enter_context(starting)
        except UserError as error:
            if "Ray cannot be started here" not in str(error):
                raise
            pytest.skip(str(error))
        yield value


def started_by(process: int, title: str) -> list[int]:
    """Descendants of a process whose command's name begins or ends with a title."""
    parents, found = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            facts = (folder / "stat").read_text().rpartition(")")[2].split()
            name = (folder / "cmdline").read_bytes().partition(b"\0")[0].decode(errors="replace")
        except OSError:  # it has just ended
            continue
        parents[int(folder.name)] = int(facts[1])
        if facts[0] != "Z" and (name.startswith(title) or name.endswith(title)):
            found.append(int(folder.name))
    return [own for own in sorted(found) if _is_below(own, process, parents)]


def _is_below(own: int, process: int, parents: dict[int, int]) -> bool:
    while own > 1:
        own = parents.get(own, 0)
        if own == process:
            return True
    return False
