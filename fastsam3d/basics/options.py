"""`key=value` options of commands without a Hydra configuration: `bench`, `tune`, `doctor` and others."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import field, fields
from pathlib import Path
from typing import Any, TypeVar

from fastsam3d.basics.paths import user_path
from fastsam3d.basics.suggestions import suggestion
from fastsam3d.errors import UserError

T = TypeVar("T")
NOTHING = ("null", "none", "None", "~", "")
"""Words for "no value", as in Hydra's grammar."""


def option(default: Any, parse: Callable[[str], Any], text: str) -> Any:
    """Makes a dataclass field that can be set on the command line; `text` explains it in the help."""
    return field(default=default, metadata={"parse": parse, "text": text})


def boolean(text: str) -> bool:
    """Parses true/false, yes/no, on/off, 1/0. The ValueError of each parser here names the allowed values."""
    lowered = text.lower()
    if lowered in ("true", "yes", "on", "1"):
        return True
    if lowered in ("false", "no", "off", "0"):
        return False
    raise ValueError("true or false")


def whole(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    """Makes a parser of whole numbers from `minimum` on, up to `maximum` where there is one."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if value < minimum or (maximum is not None and value > maximum):
            limits = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
            raise ValueError(f"a whole number {limits}")
        return value

    return parse


def number_from(minimum: float, maximum: float = math.inf) -> Callable[[str], float]:
    """Makes a parser of numbers in a range."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not minimum <= value <= maximum or math.isinf(value):
            limits = f"of at least {minimum:g}" if math.isinf(maximum) else f"from {minimum:g} to {maximum:g}"
            raise ValueError(f"a number {limits}")
        return value

    return parse


def one_of(*choices: str) -> Callable[[str], str]:
    """Makes a parser that accepts one of some words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return text

    return parse


def words(text: str) -> tuple[str, ...]:
    """Parses a list of words: [a,b,c] or a,b,c."""
    return tuple(part.strip() for part in text.strip().strip("[]()").split(",") if part.strip())


def whole_numbers(minimum: int) -> Callable[[str], tuple[int, ...]]:
    """Makes a parser of lists of one or more whole numbers from `minimum` on."""

    def parse(text: str) -> tuple[int, ...]:
        try:
            values = tuple(map(whole(minimum), words(text)))
        except ValueError:
            values = ()
        if not values:
            raise ValueError(f"one or more whole numbers of at least {minimum}, such as [{minimum},{minimum + 1}]")
        return values

    return parse


def optional(parse: Callable[[str], T]) -> Callable[[str], T | None]:
    """Makes a parser that accepts null, and all values that `parse` accepts."""
    return lambda text: None if text in NOTHING else parse(text)


def optional_text(text: str) -> str | None:
    """Parses a text, or null."""
    return None if text in NOTHING else text


def strengths(text: str) -> tuple[float | None, ...]:
    """Parses one guidance strength or a list of them; null is the model's own."""
    values = []
    for word in words(text):
        try:
            value = None if word in NOTHING else float(word)
        except ValueError:
            value = math.nan
        if value is not None and not 0 <= value < 1000:
            raise ValueError("null, a number of at least 0, or a list such as [2,7]")
        values.append(value)
    return tuple(values) or (None,)


def parse_options(cls: type[T], overrides: Sequence[str], command: str) -> T:
    """Reads `key=value` texts into a dataclass of `option` fields.

    Raises UserError for an unknown key, a text without "=" and a value that does not fit.
    """
    known = {item.name: item for item in fields(cls)}  # type: ignore[arg-type]
    values = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        key = key.strip().lstrip("-+")
        if not equals or key not in known:
            what = f"unknown key {key!r}" if equals else f"{override!r} is not of the form key=value"
            raise UserError(f"{command}: {what}. {suggestion(key, known, len(known))}")
        try:
            values[key] = known[key].metadata["parse"](text.strip())
        except ValueError as error:
            raise UserError(f"{command}: {key}={text.strip()} is not possible: give {error}") from None
    return cls(**values)


def describe_options(cls: type, command: str) -> str:
    """Returns the help text: one line per key, with its default."""
    lines = [f"usage: {command} [key=value ...]", ""]
    for item in fields(cls):
        default = item.default
        if isinstance(default, tuple):
            default = f"[{','.join('null' if part is None else str(part) for part in default)}]"
        shown = "null" if default is None else str(default).lower() if isinstance(default, bool) else default
        lines.append(f"  {item.name + '=' + str(shown):38} {item.metadata['text']}")
    return "\n".join(lines)


def prepare_directory(path: str | Path, command: str) -> Path:
    """Makes the folder if needed, and checks that files can be written in it; UserError otherwise."""
    folder = user_path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-test-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"{command}: cannot write to output={folder} ({error.strerror}): choose another folder"
        ) from None
    return folder
