"""Training data made and kept on the training device.

The interface of `training.data.dataset.ProceduralDataset` without files: tables of primitives come from worker
processes, distances and views are computed in batches where the networks are. An H100 makes thousands of objects a
second; 200,000 objects with two views take 22 GB of its memory.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from fastsam3d.errors import UserError
from fastsam3d.procedural import HELD_OUT_SEED
from fastsam3d.procedural.batch import TableBatch, padded_tables
from fastsam3d.procedural.batch_views import grid_distances, render_crops, sample_cameras
from fastsam3d.procedural.objects import training_object
from fastsam3d.training.data.shards import CROP_SIZE, MAXIMUM_PARTS, SDF_CLIP, lowest_level

SEEDS_A_TASK = 1024


def make_tables(first_seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Tables `[count, 48, 17]` of the objects of consecutive seeds, and their numbers of rows `[count]`."""
    tables = [training_object(seed).table for seed in range(first_seed, first_seed + count)]
    return padded_tables(tables, MAXIMUM_PARTS)


def all_tables(first_seed: int, count: int, workers: int) -> tuple[np.ndarray, np.ndarray]:
    """`make_tables` shared between processes.

    Raises:
        UserError: the seeds reach into the held-out range.
    """
    if first_seed + count > HELD_OUT_SEED:
        raise UserError(
            f"training data: seeds {first_seed} to {first_seed + count} reach into the held-out range, "
            f"{HELD_OUT_SEED} and above; choose a smaller first seed"
        )
    starts = range(first_seed, first_seed + count, SEEDS_A_TASK)
    counts = [min(SEEDS_A_TASK, first_seed + count - start) for start in starts]
    if workers <= 1:
        parts = [make_tables(start, size) for start, size in zip(starts, counts, strict=True)]
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            parts = list(pool.map(make_tables, starts, counts))
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


class DeviceDataset:
    """Objects with their distance grids and rendered crops, as tensors on one device.

    Args:
        count: objects; their seeds are `first_seed` and those after it.
        device: where everything is made and kept.
        views: pictures an object.
        workers: processes that make the tables.
        seed: of cameras and lights.
        batch: objects rendered at a time; memory grows with it.
    """

    def __init__(
        self,
        count: int,
        device: torch.device | str,
        first_seed: int = 0,
        views: int = 2,
        workers: int = 1,
        seed: int = 0,
        batch: int = 64,
    ) -> None:
        self.device, self.views = torch.device(device), views
        self.tables, self.parts = all_tables(first_seed, count, workers)
        side = CROP_SIZE

        def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty(count, *shape, dtype=dtype, device=self.device)

        self.sdf = empty(32, 32, 32, dtype=torch.int8)
        self.arrays = {
            "rgba": empty(views, side, side, 4, dtype=torch.uint8),
            "points": empty(views, side, side, 3, dtype=torch.float16),
            "window": empty(views, 3),
            "rotation": empty(views, 3, 3),
            "translation": empty(views, 3),
            "scale": empty(views),
            "half_tangent": empty(views),
        }
        generator = torch.Generator(self.device).manual_seed(seed)
        with tqdm(total=count, unit="object", desc="training data") as bar:
            for begin in range(0, count, batch):
                rows = slice(begin, min(begin + batch, count))
                self._make(rows, generator)
                bar.update(rows.stop - rows.start)

    def __len__(self) -> int:
        return len(self.sdf)

    @torch.no_grad()
    def _make(self, rows: slice, generator: torch.Generator) -> None:
        tables = self.table_batch(rows)
        grid = grid_distances(tables)
        cameras = sample_cameras(grid, self.views, generator)
        rgba, points = render_crops(tables, grid, cameras, generator, CROP_SIZE)
        self.sdf[rows] = (grid.clamp(-SDF_CLIP, SDF_CLIP) * (127 / SDF_CLIP)).round().to(torch.int8)
        self.arrays["rgba"][rows], self.arrays["points"][rows] = rgba, points
        for name in ("window", "rotation", "translation", "scale", "half_tangent"):
            self.arrays[name][rows] = getattr(cameras, name)

    def table_batch(self, rows: slice | np.ndarray) -> TableBatch:
        """The tables of some rows, ready for evaluation on the dataset's device."""
        return TableBatch.from_tables(self.tables[rows], self.parts[rows], self.device)

    @staticmethod
    def to_sdf(stored: Tensor) -> Tensor:
        """Stored int8 distances to float, grid units, clipped at 0.2."""
        return stored.float() * (SDF_CLIP / 127)

    def sdf_bytes(self) -> Tensor:
        """Stored distances of all objects, int8 `[N, 32, 32, 32]`, index order x, y, z."""
        return self.sdf

    def sample_sdf(self, count: int, generator: torch.Generator) -> Tensor:
        """Distances `[count, 32, 32, 32]` of random objects, half of them mirrored in x."""
        rows = torch.randint(len(self), (count,), generator=generator, device=self.device)
        sdf = self.to_sdf(self.sdf[rows])
        mirrored = torch.rand(count, generator=generator, device=self.device) < 0.5
        return torch.where(mirrored[:, None, None, None], sdf.flip(1), sdf)

    def gather(self, indices: Tensor, view: Tensor) -> dict[str, Tensor]:
        """One view each of object rows `[B]`; see `ProceduralDataset.gather`."""
        raw = {name: values[indices, view] for name, values in self.arrays.items()}
        raw["rgba"] = raw["rgba"].permute(0, 3, 1, 2)
        raw["points"] = raw["points"].permute(0, 3, 1, 2)
        raw["sdf"] = self.to_sdf(self.sdf[indices])
        raw["bottom"] = lowest_level(raw["sdf"])
        return raw
