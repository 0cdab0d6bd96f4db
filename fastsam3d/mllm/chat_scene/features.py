"""Reads the feature files of Chat-Scene, with one vector for each object of each scene."""

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
from fastsam3d.mllm.benchmarks.scene_objects import SceneObjects
from fastsam3d.mllm.chat_scene.tokens import MOST_OBJECTS

WIDEST = 1 << 14
"""Most numbers in a vector."""
Vectors = Mapping[str, Mapping[int, Tensor]]
"""Vectors by name of the scene and number of the object."""


@dataclass(frozen=True)
class Scene:
    """What the model sees of a scene.

    Attributes:
        name: name of the scan, such as scene0011_00.
        features_3d: (N, D3) float32, zeros for an object without a vector.
        features_2d: (N, D2) float32, zeros for an object without a vector.
        present: (N,) bool: False for a padding object.

    Raises:
        UserError: the three have different numbers of objects.
    """

    name: str
    features_3d: Tensor
    features_2d: Tensor
    present: Tensor

    def __post_init__(self) -> None:
        if not len(self.features_3d) == len(self.features_2d) == len(self.present):
            raise UserError(
                f"{self.name}: {len(self.features_3d)} vectors in 3D, {len(self.features_2d)} in 2D and "
                f"{len(self.present)} values of present: give one of each for every object."
            )

    def __len__(self) -> int:
        return len(self.present)

    def take(self, objects: int) -> Scene:
        """The scene with only its first `objects` objects."""
        return Scene(self.name, self.features_3d[:objects], self.features_2d[:objects], self.present[:objects])


class FeatureFiles:
    """Vectors of the objects of many scenes, mapped into memory.

    Args:
        vectors_3d, vectors_2d: vectors by scene and number of the object. All vectors of one file have one width.
    """

    def __init__(self, vectors_3d: Vectors, vectors_2d: Vectors) -> None:
        self._vectors = vectors_3d, vectors_2d
        self.names = tuple(sorted({*vectors_3d, *vectors_2d}))

    def __contains__(self, name: str) -> bool:
        return any(name in vectors for vectors in self._vectors)

    def scene(self, name: str, objects: SceneObjects | None = None) -> Scene:
        """Returns the features of one scene.

        Args:
            name: of the scene.
            objects: the objects of this scene in the attribute file. Its boxes say which objects are present, and its
                `obj_ids` give their numbers in the feature files. None: objects are numbered from 0 to the largest
                number in the files, and those with a vector are present.

        Raises:
            UserError: no file has the scene.
        """
        own = [vectors.get(name, {}) for vectors in self._vectors]
        if not any(own):
            raise UserError(f"the feature files have no {name}: give those of the same split.")
        if objects is None:
            numbers: tuple[int, ...] = tuple(range(max({*own[0], *own[1]}) + 1))
        else:
            numbers = objects.feature_ids
        features_3d, features_2d = map(self._stacked, own, (numbers, numbers), self._vectors)
        present = torch.tensor([number in own[0] or number in own[1] for number in numbers])
        if objects is not None:
            present &= torch.tensor(objects.present)
        return Scene(name, features_3d, features_2d, present)

    def _stacked(self, vectors: Mapping[int, Tensor], numbers: tuple[int, ...], of_all: Vectors) -> Tensor:
        width = next(len(vector) for scene in of_all.values() for vector in scene.values())
        stacked = torch.zeros(len(numbers), width)
        for row, number in enumerate(numbers):
            if number in vectors:
                stacked[row] = vectors[number]
        return stacked


def read_features(path_3d: str | Path, path_2d: str | Path) -> FeatureFiles:
    """Reads both feature files of Chat-Scene.

    Args:
        path_3d: such as `scannet_mask3d_uni3d_feats.pt`.
        path_2d: such as `scannet_mask3d_videofeats.pt`.

    Raises:
        UserError: a file cannot be read, or has an entry that is no vector; the message names it.
    """
    return FeatureFiles(_read_vectors(path_3d), _read_vectors(path_2d))


def _read_vectors(path: str | Path) -> dict[str, dict[int, Tensor]]:
    what = "the feature file"
    values = read_archive(path, what)
    if not isinstance(values, Mapping) or not values:
        raise UserError(f"{what} {path} holds no vectors by scene and object. Give another file.")
    found: dict[str, dict[int, Tensor]] = {}
    width: int | None = None
    for key, vector in values.items():
        scene, number = _key(key, f"{what} {path}")
        fits = isinstance(vector, Tensor) and vector.dim() == 1 and vector.is_floating_point()
        if not fits or not 0 < len(vector) <= WIDEST or len(vector) != (width or len(vector)):
            given = f"a tensor of the shape {list(vector.shape)}" if isinstance(vector, Tensor) else short(vector)
            wanted = f"{width} numbers, as before" if width else f"up to {WIDEST} numbers"
            raise UserError(f"{what} {path}, {key}: it is {given}, and has to be a vector of {wanted}.")
        width = len(vector)
        found.setdefault(scene, {})[number] = vector
    return found


def _key(key: Any, where: str) -> tuple[str, int]:
    """Scene and number of "scene0011_00_07"."""
    scene, bar, number = key.rpartition("_") if isinstance(key, str) else ("", "", "")
    if not bar or not number.isdecimal() or len(number) > 6 or int(number) >= MOST_OBJECTS:
        raise UserError(
            f"{where}: the key {short(key)} has to be the name of a scene, an underscore, and a number below "
            f"{MOST_OBJECTS}."
        )
    return scene, int(number)
