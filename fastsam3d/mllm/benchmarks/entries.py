"""Reads fields of JSON entries, and names the file, the entry and the field where one is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastsam3d.basics.plain_yaml import short
from fastsam3d.basics.reading.json_files import read_json
from fastsam3d.errors import UserError

MOST_ENTRIES = 1_000_000


class Entry:
    """One entry of a list in a JSON file.

    Args:
        where: the file and the number of the entry, for messages.
        values: values of its fields by name.

    All methods but `get` raise a `UserError` where the value is missing or of another kind. The `optional_` methods say
    when they give None instead.
    """

    def __init__(self, where: str, values: Mapping[str, Any]) -> None:
        self.where = where
        self._values = values

    def get(self, name: str) -> Any:
        """The unchanged value; None where it is missing."""
        return self._values.get(name)

    def text(self, name: str) -> str:
        """A text that has to be there."""
        return self._checked(name, "a text", lambda value: isinstance(value, str))

    def number(self, name: str) -> int:
        """A whole number that has to be there."""
        return self._checked(name, "a whole number", _is_whole)

    def optional_text(self, name: str) -> str | None:
        """A text; None where it is missing or null."""
        return None if self._values.get(name) is None else self.text(name)

    def optional_number(self, name: str) -> int | None:
        """A whole number; None where it is missing or is anything else, as in some data sets."""
        value = self._values.get(name)
        return value if _is_whole(value) else None

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts that has to be there."""
        return tuple(
            self._checked(name, "a list of texts", lambda value: _is_list(value, lambda item: isinstance(item, str)))
        )

    def numbers(self, name: str) -> tuple[int, ...]:
        """A list of whole numbers that has to be there."""
        return tuple(self._checked(name, "a list of whole numbers", lambda value: _is_list(value, _is_whole)))

    def choice(self, name: str, choices: Sequence[Any]) -> Any:
        """A value that has to be there and has to be one of `choices`."""
        listed = ", ".join(map(repr, choices))
        return self._checked(name, f"one of {listed}", lambda value: value in choices and not isinstance(value, bool))

    def _checked(self, name: str, kind: str, fits: Callable[[Any], bool]) -> Any:
        value = self._values.get(name)
        if name not in self._values:
            raise UserError(f"{self.where} has no {name}, which has to be {kind}. Check the file.")
        if not fits(value):
            raise UserError(f"{self.where}: {name} is {short(value)}, and has to be {kind}. Check the file.")
        return value


def read_entries(path: str | Path, what: str) -> list[Entry]:
    """Reads the entries of a JSON file that holds a list of objects with fields.

    Args:
        path: of the file.
        what: what the file is, for messages.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    values = read_json(path, what)
    if not isinstance(values, list) or len(values) > MOST_ENTRIES:
        raise UserError(f"{what} {path} does not hold a list of at most {MOST_ENTRIES} entries. Give another file.")
    for number, entry in enumerate(values):
        if not isinstance(entry, dict):
            raise UserError(f"{what} {path}, entry {number}: {short(entry)} is no object with fields. Check the file.")
    return [Entry(f"{what} {path}, entry {number}", entry) for number, entry in enumerate(values)]


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_list(value: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(fits, value))
