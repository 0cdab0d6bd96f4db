"""Shards of training data: procedural objects with their distance grid and rendered crops.

A shard is an uncompressed `.npz` with, for N objects and V views each:

- `table` float32 `[N, 48, 17]` primitive rows (see `fastsam3d.procedural.primitives`), `parts` int16
  `[N]` the number of rows used
- `family` int16 `[N]` index into `FAMILIES + EVERYDAY_FAMILIES`, `seed` int64 `[N]`
- `sdf` int8 `[N, 32, 32, 32]`, index order x, y, z: distance clipped at 0.2, times 127 / 0.2
- `rgba` uint8 `[N, V, 64, 64, 4]` crop around the object (box factor 1.2), alpha = mask
- `points` float16 `[N, V, 64, 64, 3]` (p_cam - t) / s, NaN off the object; being relative they are
  exact enough in float16
- `window` float32 `[N, V, 3]` the crop in the full frame: left, top, size as fractions of the frame
- `quaternion` `[N, V, 4]` wxyz, `translation` `[N, V, 3]`, `scale` and `half_tangent` `[N, V]`, float32
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastsam3d.procedural.cameras import quaternion_from_matrix, sample_camera
from fastsam3d.procedural.objects import EVERYDAY_FAMILIES, FAMILIES, training_object
from fastsam3d.procedural.primitives import COLUMNS
from fastsam3d.procedural.render import crop_window, render_windows
from fastsam3d.procedural.shading import sample_light
from fastsam3d.procedural.tracing import TracedObject

SHARD_SIZE = 512
CROP_SIZE = 64
MAXIMUM_PARTS = 48
SDF_CLIP = 0.2


def object_record(seed: int, views: int) -> dict[str, np.ndarray]:
    """All arrays of one object, named and shaped as in a shard without the first axis."""
    item = training_object(seed)
    traced = TracedObject.prepare(item)
    surface = traced.surface_points()
    rng = np.random.default_rng([7, seed])
    requests = []
    for _ in range(views):
        camera = sample_camera(rng, surface)
        requests.append((camera, sample_light(rng), crop_window(camera, surface)))
    rgba = np.zeros((views, CROP_SIZE, CROP_SIZE, 4), np.uint8)
    points = np.zeros((views, CROP_SIZE, CROP_SIZE, 3), np.float16)
    for index, (rgb, mask, pointmap) in enumerate(render_windows(traced, requests, CROP_SIZE)):
        camera = requests[index][0]
        rgba[index, ..., :3] = (rgb * 255 + 0.5).to(torch.uint8).numpy()
        rgba[index, ..., 3] = mask.numpy() * np.uint8(255)
        points[index] = (pointmap.numpy() - camera.translation) / camera.scale
    table = np.zeros((MAXIMUM_PARTS, COLUMNS), np.float32)
    table[: len(item.table)] = item.table
    cameras = [request[0] for request in requests]
    windows = [request[2] for request in requests]
    return {
        "table": table,
        "parts": np.int16(len(item.table)),
        "family": np.int16((FAMILIES + EVERYDAY_FAMILIES).index(item.family)),
        "seed": np.int64(seed),
        "sdf": (traced.grid.clamp(-SDF_CLIP, SDF_CLIP) * (127 / SDF_CLIP)).round().to(torch.int8).numpy(),
        "rgba": rgba,
        "points": points,
        "window": np.array([[w.left, w.top, w.size] for w in windows], np.float32),
        "quaternion": np.array([quaternion_from_matrix(c.rotation) for c in cameras], np.float32),
        "translation": np.array([c.translation for c in cameras], np.float32),
        "scale": np.array([c.scale for c in cameras], np.float32),
        "half_tangent": np.array([c.half_tangent for c in cameras], np.float32),
    }


def generate_shard(path: Path | str, first_seed: int, count: int, views: int = 2) -> Path:
    """Writes the objects of `count` seeds from `first_seed` on to `path`, atomically; kept if it exists."""
    path = Path(path)
    if path.exists():
        return path
    torch.set_num_threads(1)
    records = [object_record(seed, views) for seed in range(first_seed, first_seed + count)]
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part")
    with open(temporary, "wb") as stream:
        arrays: dict[str, Any] = {name: np.stack([record[name] for record in records]) for name in records[0]}
        np.savez(stream, **arrays)
    os.replace(temporary, path)
    return path


def shard_path(directory: Path | str, first_seed: int) -> Path:
    """Place of the shard that starts at a seed."""
    return Path(directory) / f"objects_{first_seed:010d}.npz"


def lowest_level(sdf: Tensor) -> Tensor:
    """Height z, in grid units, of the lowest occupied layer of distance grids `[B, R, R, R]`; `[B]`."""
    side = sdf.shape[-1]
    return (sdf < 0).flatten(1, 2).any(dim=1).int().argmax(dim=1) / float(side) - 0.5
