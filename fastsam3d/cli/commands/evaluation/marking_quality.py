"""`marking-quality`: measures how well clicks and boxes find objects, on scenes whose masks are known."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from fastsam3d.basics.suggestions import suggestion
from fastsam3d.cli.console import say
from fastsam3d.cli.flags import asks_for_help
from fastsam3d.errors import UserError

USAGE = """\
usage: python -m fastsam3d marking-quality [key=value ...]

  scenes=16                procedural scenes, of one to four objects each
  first=0                  number of the first one; fastsam3d/evaluation/marking/quality.py describes the default set
  photographs=FOLDER       26 objects on real photographs instead; the packages that hold them are installed in FOLDER
                           (pip install --target), see fastsam3d/evaluation/photographs/photographs.py
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
    folder = None
    for word in words:
        key, _, value = word.partition("=")
        if key == "photographs" and value:
            folder = value
            continue
        if key not in options or not value.isdecimal():
            known = [*options, "photographs"]
            raise UserError(f"{word!r} is no setting with a whole number. {suggestion(key, known)}")
        options[key] = int(value)
    from fastsam3d.evaluation.marking.quality import marked_scenes, measure, photographed_objects, table
    from fastsam3d.marking.segmentation import segment

    if folder is not None and not Path(folder).is_dir():
        raise UserError(f"photographs={folder} is no folder. Install the packages with photographs into one.")
    objects = marked_scenes(options["first"], options["scenes"]) if folder is None else photographed_objects(folder)
    found, seconds = measure(segment, objects)
    if not len(found):
        raise UserError(f"No photograph was found in {folder}, nor in the installed packages.")
    where = f"in {options['scenes']} scenes" if folder is None else "on photographs"
    sys.stdout.write(f"{len(found)} objects {where}, {seconds:.2f} s an answer\n")
    sys.stdout.write(table(found))
    return 0
