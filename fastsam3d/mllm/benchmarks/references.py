"""What answers are compared with, beside the references of each question: boxes of scenes, and a corpus of captions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastsam3d.basics.paths import user_path
from fastsam3d.basics.plain_yaml import short
from fastsam3d.basics.reading.json_files import read_json
from fastsam3d.errors import UserError
from fastsam3d.mllm.benchmarks.metrics.boxes import Box, box_iou
from fastsam3d.mllm.benchmarks.scene_objects import SceneObjects, read_attributes
from fastsam3d.mllm.benchmarks.unique_multiple import UniqueLookup, read_unique_lookup

SEGMENTED_FILE = "scannet_mask3d_{split}_attributes.pt"
TRUE_FILE = "scannet_{split}_attributes.pt"
UNIQUE_FILE = "scanrefer_unique_multiple_lookup.json"
CORPUS_FILE = "scan2cap_{split}_corpus.json"

Corpus = Mapping[tuple[str, int], tuple[str, ...]]
"""Captions of the true objects, by scene and number of the object."""


@dataclass(frozen=True)
class References:
    """What the benchmarks compare answers with. `Benchmark.needs` says which parts a benchmark needs.

    Attributes:
        segmented: by scene, the objects that the model sees: `<OBJ007>` is number 7 of them.
        true: by scene, the annotated objects.
        unique: which true objects are the only one of their class (ScanRefer); None: not known.
        corpus: captions of the true objects (Scan2Cap).
    """

    segmented: Mapping[str, SceneObjects] | None = None
    true: Mapping[str, SceneObjects] | None = None
    unique: UniqueLookup | None = None
    corpus: Corpus | None = None

    def has_scene(self, scene: str) -> bool:
        """Whether the segmented and the true objects of a scene are known."""
        return scene in (self.segmented or {}) and scene in (self.true or {})

    def segmented_box(self, scene: str, number: int) -> Box | None:
        """Box of a segmented object; None where the scene has no such object."""
        objects = (self.segmented or {})[scene]
        return objects.boxes[number] if 0 <= number < len(objects) else None

    def true_box(self, scene: str, number: int) -> Box:
        """Box of a true object.

        Raises:
            UserError: the scene has no such object.
        """
        objects = (self.true or {})[scene]
        if not 0 <= number < len(objects):
            raise UserError(
                f"{scene} has {len(objects)} true objects, and a question is about number {number}: give the attribute "
                "file of the true objects that belongs to the annotations."
            )
        return objects.boxes[number]

    def overlap(self, scene: str, segmented: int, true: int) -> float:
        """IoU of a segmented and a true object; 0 where the scene has no such segmented object.

        Raises:
            UserError: the scene has no such true object.
        """
        target, box = self.true_box(scene, true), self.segmented_box(scene, segmented)
        return 0.0 if box is None else box_iou(box, target)


def read_references(folder: str | Path, split: str = "val") -> References:
    """Reads those reference files that an annotation folder in the layout of Chat-Scene has.

    A missing file is no error here: its attribute is None. `score` refuses a benchmark that needs it.

    Raises:
        UserError: no such folder, or one of the files cannot be read.
    """
    place = user_path(folder)
    if not place.is_dir():
        raise UserError(f"the annotation folder {place} does not exist. Check the path.")

    def path_of(name: str) -> Path | None:
        path = place / name.format(split=split)
        return path if path.exists() else None

    segmented, true, unique, corpus = map(path_of, (SEGMENTED_FILE, TRUE_FILE, UNIQUE_FILE, CORPUS_FILE))
    return References(
        None if segmented is None else read_attributes(segmented),
        None if true is None else read_attributes(true),
        None if unique is None else read_unique_lookup(unique),
        None if corpus is None else read_corpus(corpus),
    )


def read_corpus(path: str | Path) -> dict[tuple[str, int], tuple[str, ...]]:
    """Reads a corpus file of Scan2Cap: lists of captions by "scene|object".

    Raises:
        UserError: the file cannot be read, or an entry is something else.
    """
    what = "the corpus"
    values = read_json(path, what)
    if not isinstance(values, dict) or not values:
        raise UserError(f"{what} {path} holds no captions by scene and object. Give another file.")
    corpus = {}
    for key, captions in values.items():
        scene, bar, number = key.rpartition("|")
        if not bar or not number.isdecimal():
            raise UserError(f'{what} {path}: the key {key!r} has to be "scene|number".')
        if not isinstance(captions, list) or not captions or not all(isinstance(text, str) for text in captions):
            raise UserError(f"{what} {path}, {key}: {short(captions)} has to be a list of texts that is not empty.")
        corpus[scene, int(number)] = tuple(captions)
    return corpus
