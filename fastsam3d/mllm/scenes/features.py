"""Makes the noisy features of objects that the small model reads: one of their shape, and one of pictures of them.

They stand for the two features of Chat-Scene: of the point cloud ("3D") and of several views ("2D"). Neither contains a
box. The feature of shape holds class, size and place. The feature of pictures holds colour, class and, with more noise,
the place.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from fastsam3d.mllm.scenes.rooms import Room
from fastsam3d.mllm.scenes.vocabulary import CLASSES, COLOURS, SIZES

CLASS_CODE, PICTURE_CODE = 32, 24
WAVES = (1.5, 3.0, 6.0)  # a place also comes as sine and cosine of these multiples
PLACE = 2 + 4 * len(WAVES)
GEOMETRY, APPEARANCE = CLASS_CODE + PLACE + 1, 2 * PICTURE_CODE + PLACE
"""How many numbers the two features have."""
HALF_SPAN = 5.0  # metres that are 1 in the feature
PLACE_SCALE, WAVE_SCALE, SIZE_SCALE, CLASS_IN_PICTURES = 2.0, 2.0, 3.0, 0.7
CLASS_NOISE, PLACE_NOISE, PICTURE_NOISE, PICTURE_PLACE_NOISE = 0.5, 0.02, 0.5, 0.04
_CODES_SEED = 20251027


@dataclass(frozen=True)
class Features:
    """Features of N objects.

    Attributes:
        geometry: (N, `GEOMETRY`) float32, of shape.
        appearance: (N, `APPEARANCE`) float32, of pictures.
    """

    geometry: Tensor
    appearance: Tensor


@cache
def _codes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes of the classes by shape and in pictures, and of the colours: fixed random vectors of unit variance."""
    rng = np.random.default_rng(_CODES_SEED)
    sizes = ((len(CLASSES), CLASS_CODE), (len(CLASSES), PICTURE_CODE), (len(COLOURS), PICTURE_CODE))
    shape, picture, colour = (rng.standard_normal(size) for size in sizes)
    return shape, picture, colour


def features_of(room: Room, seed: int | None = None) -> Features:
    """Makes the features of the objects of a room.

    Args:
        room: with N objects.
        seed: seed of the noise; None: that of the room.
    """
    shape, picture, colour = _codes()
    rng = np.random.default_rng([room.seed if seed is None else seed, 1])
    factor = np.log(np.array(list(SIZES.values())))[room.sizes, None] * SIZE_SCALE
    geometry = np.concatenate(
        [
            shape[room.classes] + rng.normal(0, CLASS_NOISE, (len(room), CLASS_CODE)),
            factor + rng.normal(0, 0.1, factor.shape),
            _place(room, rng, PLACE_NOISE),
        ],
        axis=1,
    )
    codes = np.concatenate([CLASS_IN_PICTURES * picture[room.classes], colour[room.colours]], axis=1)
    codes = codes + rng.normal(0, PICTURE_NOISE, codes.shape)
    appearance = np.concatenate([codes, _place(room, rng, PICTURE_PLACE_NOISE)], axis=1)
    return Features(*(torch.from_numpy(values.astype(np.float32)) for values in (geometry, appearance)))


def _place(room: Room, rng: np.random.Generator, noise: float) -> np.ndarray:
    """Where the objects are, (N, `PLACE`): coordinates, and waves of them, with noise on the coordinates."""
    place = room.places / HALF_SPAN + rng.normal(0, noise, room.places.shape)
    waves = [WAVE_SCALE * wave(np.pi / 2 * factor * place) for factor in WAVES for wave in (np.sin, np.cos)]
    return np.concatenate([PLACE_SCALE * place, *waves], axis=1)
