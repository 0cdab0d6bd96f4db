"""`marking-quality`: measures how well clicks and boxes find objects, on scenes whose masks are known."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from fastsam3d.basics.suggestions import suggestion
from fastsam3d.cli.console import say
from fastsam3d.cli.flags import asks_for_help
from fastsam3d.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from fastsam3d.marking.segmentation import Segmenter

USAGE = """\
usage: python -m fastsam3d marking-quality [key=value ...]

  scenes=16                procedural scenes, of one to four objects each
  first=0                  number of the first one; fastsam3d/evaluation/marking/quality.py describes the default set
  photographs=FOLDER       instead of scenes, the photographs of packages that were installed into FOLDER, and of those
                           in this environment (photographs=true: only these); docs/masks.md says how
  marker=learned           as it is used; network: the network alone; plain: colours and edges, without the network
"""
MARKERS = ("learned", "network", "plain")


def main(words: list[str]) -> int:
    """Measures, prints a table; returns the exit code.

    Raises:
        UserError: a word that is no setting.
    """
    if asks_for_help(words):
        say(USAGE)
        return 0
    options: dict[str, Any] = {"scenes": 16, "first": 0, "photographs": None, "marker": "learned"}
    for word in words:
        key, _, value = word.partition("=")
        if key == "photographs" and value:
            options[key] = value
            continue
        if key == "marker":
            if value not in MARKERS:
                raise UserError(f"marker={value} is not possible: choose from {', '.join(MARKERS)}.")
            options[key] = value
            continue
        if key not in options or not value.isdecimal():
            raise UserError(f"{word!r} is no setting with a whole number. {suggestion(key, options)}")
        options[key] = int(value)
    if options["scenes"] < 1:
        raise UserError("scenes=0 leaves nothing to measure. Give 1 or more.")
    from fastsam3d.evaluation.marking.quality import marked_scenes

    segmenter = _segmenter(options["marker"])
    if options["photographs"] is not None:
        return _on_photographs(options["photographs"], segmenter)
    pairs = list(marked_scenes(options["first"], options["scenes"]))
    _report(segmenter, pairs, f"{len(pairs)} objects in {options['scenes']} scenes")
    return 0


def _report(segmenter: Segmenter, pairs: list[tuple[np.ndarray, np.ndarray]], what: str) -> np.ndarray:
    from fastsam3d.evaluation.marking import quality

    found, seconds = quality.measure(segmenter, pairs)
    sys.stdout.write(f"{what}, {seconds:.2f} s an answer\n")
    sys.stdout.write(quality.table(found) + quality.after_box_line(quality.measure_after_box(segmenter, pairs)))
    sys.stdout.write(quality.proposal_line(*quality.measure_proposals(pairs)))
    sys.stdout.write(f"clicks that make the IoU smaller by more than 0.05: {quality.setbacks(found):.0%}\n")
    return found


def _segmenter(name: str) -> Segmenter:
    from fastsam3d.marking.learned import WEIGHTS, load_marker, shipped_marker
    from fastsam3d.marking.segmentation import segment

    if name == "plain":
        return segment
    marker = shipped_marker()
    if marker.note:
        raise UserError(marker.note)
    return load_marker(WEIGHTS, alone=True) if name == "network" else marker.segmenter


def _on_photographs(folder: str, segmenter: Segmenter) -> int:
    from fastsam3d.evaluation.marking.quality import object_rows
    from fastsam3d.evaluation.photographs.photographs import find_objects

    rows = list(find_objects(None if folder.lower() == "true" else folder))
    for reason in dict.fromkeys(row.reason for row in rows if row.reason):
        sys.stderr.write(f"warning: left out: {reason}\n")
    pairs = [(row.image, row.mask) for row in rows if row.image is not None and row.mask is not None]
    if not pairs:
        raise UserError("none of the photographs is here. docs/masks.md says how to get them.")
    found = _report(segmenter, pairs, f"{len(pairs)} of {len(rows)} objects on photographs")
    sys.stdout.write(object_rows([row.name for row in rows if not row.reason], found))
    return 0
