"""Training data on disk: shards of procedural objects with their distance grid and rendered crops.

A shard is an uncompressed `.npz` with, for N objects and V views each:

- `table` float32 `[N, 48, 17]` primitive rows (see `fastsam3d.procedural.primitives`), `parts` int16 `[N]` rows used
- `family` int16 `[N]` index into `FAMILIES`, `seed` int64 `[N]`
- `sdf` int8 `[N, 32, 32, 32]`, index order x, y, z: distance clipped at 0.2, times 127 / 0.2
- `rgba` uint8 `[N, V, 64, 64, 4]` crop around the object (box factor 1.2), alpha = mask
- `points` float16 `[N, V, 64, 64, 3]` (p_cam - t) / s, NaN off the object; relative values keep float16 exact enough
- `window` float32 `[N, V, 3]` the crop in the full frame: left, top, size as fractions of the frame
- `quaternion` `[N, V, 4]` wxyz, `translation` `[N, V, 3]`, `scale` `[N, V]`, `half_tangent` `[N, V]`, all float32
"""

from __future__ import annotations

import argparse
import logging
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ..errors import UserError
from ..procedural.cameras import quaternion_from_matrix, sample_camera
from ..procedural.objects import FAMILIES, HELD_OUT_SEED, make_object
from ..procedural.primitives import COLUMNS
from ..procedural.render import crop_window, render_windows
from ..procedural.shading import sample_light
from ..procedural.tracing import TracedObject

logger = logging.getLogger(__name__)

SHARD_SIZE = 512
CROP_SIZE = 64
MAXIMUM_PARTS = 48
SDF_CLIP = 0.2


def object_record(seed: int, views: int) -> dict[str, np.ndarray]:
    """All arrays of one object, named and shaped as in a shard without the first axis."""
    item = make_object(seed)
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
    table[:len(item.table)] = item.table
    cameras = [request[0] for request in requests]
    windows = [request[2] for request in requests]
    return {
        "table": table, "parts": np.int16(len(item.table)), "family": np.int16(FAMILIES.index(item.family)),
        "seed": np.int64(seed),
        "sdf": (traced.grid.clamp(-SDF_CLIP, SDF_CLIP) * (127 / SDF_CLIP)).round().to(torch.int8).numpy(),
        "rgba": rgba, "points": points,
        "window": np.array([[w.left, w.top, w.size] for w in windows], np.float32),
        "quaternion": np.array([quaternion_from_matrix(c.rotation) for c in cameras], np.float32),
        "translation": np.array([c.translation for c in cameras], np.float32),
        "scale": np.array([c.scale for c in cameras], np.float32),
        "half_tangent": np.array([c.half_tangent for c in cameras], np.float32),
    }


def generate_shard(path: Path | str, first_seed: int, count: int, views: int = 2) -> Path:
    """Write the objects of seeds `first_seed ... first_seed + count - 1` to `path` (atomically; kept if it exists)."""
    path = Path(path)
    if path.exists():
        return path
    torch.set_num_threads(1)
    records = [object_record(seed, views) for seed in range(first_seed, first_seed + count)]
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part")
    with open(temporary, "wb") as stream:
        np.savez(stream, **{name: np.stack([record[name] for record in records]) for name in records[0]})
    os.replace(temporary, path)
    return path


def shard_path(directory: Path | str, first_seed: int) -> Path:
    """Place of the shard that starts at a seed."""
    return Path(directory) / f"objects_{first_seed:010d}.npz"


def generate(directory: Path | str, objects: int, first_seed: int = 0, views: int = 2, workers: int = 1) -> None:
    """Write as many shards of 512 objects as needed; existing shards are kept, so a broken run can be resumed.

    Raises:
        UserError: the seeds reach into the held-out range, or the directory cannot be written.
    """
    if first_seed < HELD_OUT_SEED < first_seed + objects:
        raise UserError(f"training data: seeds {first_seed} to {first_seed + objects} cross the start of the held-out "
                        f"range, {HELD_OUT_SEED}; choose a smaller first seed")
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"training data: cannot create {directory}: {error.strerror}; choose another --output") from error
    starts = range(first_seed, first_seed + objects, SHARD_SIZE)
    jobs = [(shard_path(directory, start), start, min(SHARD_SIZE, first_seed + objects - start), views)
            for start in starts]
    with tqdm(total=objects, unit="object") as bar:
        if workers <= 1:
            for job in jobs:
                generate_shard(*job)
                bar.update(job[2])
            return
        with ProcessPoolExecutor(workers) as pool:
            pending = [pool.submit(generate_shard, *job) for job in jobs]
            for future, job in zip(pending, jobs):
                future.result()
                bar.update(job[2])


def main(arguments: list[str] | None = None) -> None:
    """Command line: `python -m fastsam3d.training.dataset --output DIR --objects N`."""
    parser = argparse.ArgumentParser(description="Generate procedural training data.")
    parser.add_argument("--output", required=True, help="directory of the shards")
    parser.add_argument("--objects", type=int, default=24_000)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args(arguments)
    try:
        generate(options.output, options.objects, options.first_seed, options.views, options.workers)
    except UserError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
