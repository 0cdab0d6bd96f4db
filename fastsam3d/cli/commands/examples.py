"""`examples`: the bundled example pictures, made again from held-out seeds."""

from __future__ import annotations

from dataclasses import dataclass

from fastsam3d.basics.flags import flag, parse_flags
from fastsam3d.basics.paths import user_path

PROGRAM = "python -m fastsam3d examples"


@dataclass(frozen=True)
class ExamplesOptions:
    """Flags of the command."""

    output: str = flag(str, "folder of the examples")


def main(words: list[str]) -> int:
    """Writes all examples; returns the exit code."""
    options = parse_flags(ExamplesOptions, words, PROGRAM, "Write the bundled example inputs.")
    from fastsam3d.procedural.examples import EXAMPLES, write_example

    for name in EXAMPLES:
        write_example(name, user_path(options.output))
    return 0
