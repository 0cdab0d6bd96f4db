"""Reads the attribute files of Chat-Scene: names and boxes of objects, which are segmented or annotated ("true")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastsam3d.basics.plain_yaml import short
from fastsam3d.basics.reading.torch_archives import read_archive
from fastsam3d.errors import UserError
from fastsam3d.mllm.benchmarks.metrics.boxes import Box

MOST_OBJECTS = 10_000
"""Largest number of objects in a scene."""
WHAT = "the attribute file"


@dataclass(frozen=True)
class SceneObjects:
    """Objects of one scene, numbered from 0.

    Attributes:
        names: class names; there may be fewer names than boxes.
        boxes: centre x, y, z and full extents x, y, z of each object, in metres; z is up. Six zeros: a padding object.
        feature_ids: number of each object in the keys of the feature files.
    """

    names: tuple[str, ...]
    boxes: tuple[Box, ...]
    feature_ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def present(self) -> tuple[bool, ...]:
        """For each row, whether it is an object; False for a padding object."""
        return tuple(any(box) for box in self.boxes)

    def padded_boxes(self, count: int) -> Tensor:
        """Boxes of the objects 0 to `count` - 1, (count, 6) float32, as attention predictors read them.

        Rows without an object are zeros.
        """
        boxes = torch.zeros(count, 6)
        known = self.boxes[:count]
        if known:
            boxes[: len(known)] = torch.tensor(known)
        return boxes


def read_attributes(path: str | Path) -> dict[str, SceneObjects]:
    """Reads the objects of every scene in an attribute file, such as `scannet_mask3d_val_attributes.pt`.

    Raises:
        UserError: the file cannot be read, or a scene has other values than names and boxes. The message names it.
    """
    values = read_archive(path, WHAT)
    if not isinstance(values, Mapping):
        raise UserError(f"{WHAT} {path} holds no scenes by name but a {type(values).__name__}. Give another file.")
    return {
        _scene_name(scene, path): _scene_objects(value, f"{WHAT} {path}, {scene}") for scene, value in values.items()
    }


def _scene_name(scene: Any, path: str | Path) -> str:
    if not isinstance(scene, str):
        raise UserError(f"{WHAT} {path} has a scene called {short(scene)}, which is no text. Give another file.")
    return scene


def _scene_objects(value: Any, where: str) -> SceneObjects:
    given: Mapping[str, Any] = value if isinstance(value, Mapping) else {}
    boxes, names, numbers = given.get("locs"), given.get("objects"), given.get("obj_ids")
    if not isinstance(boxes, Tensor) or boxes.dim() != 2 or boxes.shape[1] != 6 or len(boxes) > MOST_OBJECTS:
        shape = list(boxes.shape) if isinstance(boxes, Tensor) else short(boxes)
        raise UserError(f"{where}: locs is {shape}, and has to be a tensor of up to {MOST_OBJECTS} rows of 6 numbers.")
    if not bool(torch.isfinite(boxes.double()).all()):
        raise UserError(f"{where}: locs holds numbers that are not finite. Write the file again.")
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{where}: objects is {short(names)}, and has to be a list of names.")
    if numbers is None:
        numbers = range(len(boxes))
    listed = numbers.tolist() if isinstance(numbers, Tensor) and numbers.dim() == 1 else numbers
    if not isinstance(listed, (list, tuple, range)) or not all(isinstance(number, int) for number in listed):
        raise UserError(f"{where}: obj_ids is {short(numbers)}, and has to be a list of whole numbers.")
    if not len(names) <= len(boxes) == len(listed):
        raise UserError(
            f"{where}: {len(boxes)} boxes, {len(names)} names and {len(listed)} obj_ids do not belong together. "
            "Give one obj_id for each box, and not more names than boxes."
        )
    rows = tuple(map(tuple, boxes.double().tolist()))
    return SceneObjects(tuple(names), rows, tuple(listed))
