"""`marking-quality`: measures how well clicks and boxes find objects, on scenes whose masks are known."""

from __future__ import annotations

import sys
from typing import Any

from fastsam3d.basics.suggestions import suggestion
from fastsam3d.cli.console import say
from fastsam3d.cli.flags import asks_for_help
from fastsam3d.errors import UserError

USAGE = """\
usage: python -m fastsam3d marking-quality [key=value ...]

  scenes=16                procedural scenes, of one to four objects each
  first=0                  number of the first one; fastsam3d/evaluation/marking/quality.py describes the default set
"""


def main(words: list[str]) -> int:
    """Measures, prints a table; returns the exit code.

    Raises:
        UserError: a word that is no setting.
    """
    if asks_for_help(words):
        say(USAGE)
        return 0
    options: dict[str, Any] = {"scenes": 16, "first": 0}
    for word in words:
        key, _, value = word.partition("=")
        if key not in options or not value.isdecimal():
            raise UserError(f"{word!r} is no setting with a whole number. {suggestion(key, options)}")
        options[key] = int(value)
    from fastsam3d.evaluation.marking.quality import measure, table
    from fastsam3d.marking.segmentation import segment

    found, seconds = measure(segment, options["first"], options["scenes"])
    sys.stdout.write(f"{len(found)} objects in {options['scenes']} scenes, {seconds:.2f} s an answer\n")
    sys.stdout.write(table(found))
    return 0
