"""Says which objects of ScanRefer are the only one of their class among the annotated objects of their scene."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from fastsam3d.basics.paths import require_file, user_path
from fastsam3d.basics.plain_yaml import short
from fastsam3d.basics.reading.json_files import LARGEST_JSON, read_json
from fastsam3d.errors import UserError
from fastsam3d.mllm.benchmarks.entries import read_entries

CLASSES = (
    *("cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter", "desk"),
    *("curtain", "refrigerator", "shower curtain", "toilet", "sink", "bathtub"),
)
"""Classes of ScanRefer; every other name is of the class "others"."""
OTHERS = "others"
UniqueLookup = Mapping[str, Mapping[int, bool]]
"""By scene and object: whether it is unique."""


def read_unique_lookup(path: str | Path) -> dict[str, dict[int, bool]]:
    """Reads the table of `scanrefer_unique_multiple_lookup.json`: by scene and object, 0 is unique and 1 is multiple.

    Raises:
        UserError: the file cannot be read, or is not such a table.
    """
    what = "the table of unique objects"
    values = read_json(path, what)
    lookup: dict[str, dict[int, bool]] = {}
    for scene, objects in values.items() if isinstance(values, dict) else [("", values)]:
        if not isinstance(objects, dict):
            raise UserError(f"{what} {path} holds {short(objects)} in place of the objects of a scene by number.")
        for number, multiple in objects.items():
            if not number.isdecimal() or multiple not in (0, 1):
                raise UserError(f"{what} {path}, {scene}, {number!r}: {short(multiple)} has to be 0 or 1 by number.")
            lookup.setdefault(scene, {})[int(number)] = not multiple
    return lookup


def unique_lookup(descriptions: str | Path, labels: str | Path) -> dict[str, dict[int, bool]]:
    """Makes the table from the files of ScanRefer and ScanNet, as the public code of ScanRefer does.

    Args:
        descriptions: `ScanRefer_filtered.json`.
        labels: `scannetv2-labels.combined.tsv`, whose column `nyu40class` gives the class of a `raw_category`. Classes
            are compared by name, so a class that has another spelling there counts as "others".

    Raises:
        UserError: a file cannot be read, or lacks a field.
    """
    class_of = _classes(labels)
    named: dict[str, dict[int, str]] = defaultdict(dict)
    for entry in read_entries(descriptions, "the descriptions of ScanRefer"):
        name = entry.text("object_name").replace("_", " ")
        number = entry.text("object_id")
        if not number.isdecimal():
            raise UserError(f"{entry.where}: object_id is {number!r}, and has to be a number as text.")
        named[entry.text("scene_id")].setdefault(int(number), class_of.get(name, OTHERS))
    counts = {scene: Counter(objects.values()) for scene, objects in named.items()}
    return {
        scene: {number: counts[scene][kind] == 1 for number, kind in objects.items()}
        for scene, objects in named.items()
    }


def _classes(path: str | Path) -> dict[str, str]:
    """Class of ScanRefer by raw name."""
    what = f"the label table {path}"
    file = require_file(user_path(path), what, LARGEST_JSON)
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            # As in the public code, a quotation mark is a letter: some names begin with one.
            rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{what} cannot be read ({error}). Download it again.") from None
    if not rows or not {"raw_category", "nyu40class"} <= rows[0].keys():
        raise UserError(
            f"{what} has no columns raw_category and nyu40class. Give ScanNet's scannetv2-labels.combined.tsv."
        )
    return {row["raw_category"]: row["nyu40class"] if row["nyu40class"] in CLASSES else OTHERS for row in rows}
