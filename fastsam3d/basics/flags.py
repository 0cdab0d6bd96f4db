"""Programs whose settings are a dataclass: each field made by `flag` is a `--flag-name VALUE` of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import MISSING, field, fields
from typing import Any, TypeVar

from fastsam3d.basics.options import boolean

T = TypeVar("T")


def flag(parse: Callable[[str], Any], text: str, default: Any = MISSING, *, one_of: str | None = None) -> Any:
    """Makes a dataclass field that is set by a flag. Without a default the flag is required.

    Args:
        parse: converts a text to the value; `boolean` makes a flag without a value.
        text: explains it in the help.
        one_of: name of a group of flags; exactly one flag of the group must be given.
    """
    metadata = {"parse": parse, "text": text, "one_of": one_of}
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


def parse_flags(cls: type[T], words: Sequence[str], program: str, description: str | None = None) -> T:
    """Reads command-line words into a dataclass of `flag` fields.

    Args:
        program: its name in the help.
        description: description of the program for the help; not reformatted.

    Raises:
        SystemExit: after --help; for words that cannot be used, with the reason on stderr.
    """
    parser = argparse.ArgumentParser(
        prog=program, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    groups: dict[str, Any] = {}
    for item in fields(cls):  # type: ignore[arg-type]
        given = item.metadata
        place: Any = parser
        if given["one_of"] is not None:
            if given["one_of"] not in groups:
                groups[given["one_of"]] = parser.add_mutually_exclusive_group(required=True)
            place = groups[given["one_of"]]
        name, text = f"--{item.name.replace('_', '-')}", given["text"]
        if given["parse"] is boolean:
            place.add_argument(name, action="store_true", help=text)
        elif item.default is MISSING:
            place.add_argument(name, type=given["parse"], required=True, help=text)
        else:
            shown = "" if item.default in (None, ()) else f" (default {item.default})"
            place.add_argument(name, type=given["parse"], default=item.default, help=text + shown)
    return cls(**vars(parser.parse_args(list(words))))
