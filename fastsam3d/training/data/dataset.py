"""Training data: generation of shards from the command line, and their loader.

python -m fastsam3d train data --output DIR --objects 24000 --workers 2
"""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from fastsam3d.errors import UserError
from fastsam3d.meshes.rotations import quaternion_to_matrix
from fastsam3d.procedural import HELD_OUT_SEED
from fastsam3d.training.data.shards import SDF_CLIP, SHARD_SIZE, generate_shard, lowest_level, shard_path

REFRESH_SECONDS = 15.0


class ProceduralDataset:
    """Shards of one directory as one list of objects.

    Shards are read when first needed and kept in memory (115 KB an object with two views). Shards that appear
    later are found by `sample_sdf` and `refresh`; they only ever extend the list.

    Args:
        directory: where `generate` wrote.

    Raises:
        UserError: no shard there.
    """

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        self._paths: list[Path] = []
        self._sizes: list[int] = []
        self._arrays: dict[tuple[int, str], Tensor] = {}
        self._sdf = torch.empty(0, 32, 32, 32, dtype=torch.int8)
        self.refresh()
        if not self._paths:
            raise UserError(
                f"training data: no shards in {self.directory}; make some with "
                f"python -m fastsam3d train data --output {self.directory}"
            )
        self.views = self._array(0, "scale").shape[1]

    def refresh(self) -> None:
        """Appends shards that have appeared since."""
        known = set(self._paths)
        for path in sorted(self.directory.glob("objects_*.npz")):
            if path not in known:
                self._paths.append(path)
                self._sizes.append(len(self._array(len(self._paths) - 1, "seed")))
        self._ends = torch.tensor(self._sizes, dtype=torch.long).cumsum(0)
        self._refreshed = time.monotonic()

    def __len__(self) -> int:
        return sum(self._sizes)

    def _array(self, shard: int, name: str) -> Tensor:
        key = (shard, name)
        if key not in self._arrays:
            with np.load(self._paths[shard]) as stored:
                self._arrays[key] = torch.from_numpy(stored[name])
        return self._arrays[key]

    def array(self, name: str, indices: Tensor) -> Tensor:
        """Stored array `name` for object rows `[B]`, see `fastsam3d.training.data.shards`."""
        shards = torch.bucketize(indices, self._ends, right=True)
        starts = self._ends - torch.tensor(self._sizes)
        return torch.stack(
            [
                self._array(shard, name)[row]
                for shard, row in zip(shards.tolist(), (indices - starts[shards]).tolist(), strict=True)
            ]
        )

    @staticmethod
    def to_sdf(stored: Tensor) -> Tensor:
        """Stored int8 distances to float, grid units, clipped at 0.2."""
        return stored.float() * (SDF_CLIP / 127)

    def sdf_bytes(self) -> Tensor:
        """Stored distances of all objects, int8 `[N, 32, 32, 32]`, index order x, y, z."""
        if len(self._sdf) != len(self):
            self._sdf = torch.cat([self._array(shard, "sdf") for shard in range(len(self._paths))])
            for shard in range(len(self._paths)):  # the parts become views: no second copy in memory
                first = int(self._ends[shard]) - self._sizes[shard]
                self._arrays[shard, "sdf"] = self._sdf[first : first + self._sizes[shard]]
        return self._sdf

    def sample_sdf(self, count: int, generator: torch.Generator) -> Tensor:
        """Distances `[count, 32, 32, 32]` of random objects, half of them mirrored in x."""
        if time.monotonic() - self._refreshed > REFRESH_SECONDS:
            self.refresh()
        rows = torch.randint(len(self), (count,), generator=generator)
        sdf = self.to_sdf(self.sdf_bytes()[rows])
        mirrored = torch.rand(count, generator=generator) < 0.5
        return torch.where(mirrored[:, None, None, None], sdf.flip(1), sdf)

    def gather(self, indices: Tensor, view: Tensor) -> dict[str, Tensor]:
        """One view each of object rows `[B]`, channels first, pose as matrix.

        Returns:
            `rgba` uint8 `[B, 4, 64, 64]`, `points` float16 `[B, 3, 64, 64]` relative to the pose, `window`
            `[B, 3]`, `rotation` `[B, 3, 3]`, `translation` `[B, 3]`, `scale`, `half_tangent` and `bottom`
            (lowest z) `[B]`, `sdf` `[B, 32, 32, 32]`.
        """
        rows = torch.arange(len(indices))
        raw = {
            name: self.array(name, indices)[rows, view]
            for name in ("rgba", "points", "window", "quaternion", "translation", "scale", "half_tangent")
        }
        raw["rgba"] = raw["rgba"].permute(0, 3, 1, 2)
        raw["points"] = raw["points"].permute(0, 3, 1, 2)
        raw["rotation"] = quaternion_to_matrix(raw.pop("quaternion"))
        raw["sdf"] = self.to_sdf(self.array("sdf", indices))
        raw["bottom"] = lowest_level(raw["sdf"])
        return raw


def generate(directory: Path | str, objects: int, first_seed: int = 0, views: int = 2, workers: int = 1) -> None:
    """Writes as many shards of 512 objects as needed; existing ones are kept, so a broken run can be resumed.

    Raises:
        UserError: the seeds reach into the held-out range, or the directory cannot be written.
    """
    if first_seed < HELD_OUT_SEED < first_seed + objects:
        raise UserError(
            f"training data: seeds {first_seed} to {first_seed + objects} cross the start of the held-out "
            f"range, {HELD_OUT_SEED}; choose a smaller first seed"
        )
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"training data: cannot create {directory}: {error.strerror}; choose another --output"
        ) from error
    starts = range(first_seed, first_seed + objects, SHARD_SIZE)
    jobs = [
        (shard_path(directory, start), start, min(SHARD_SIZE, first_seed + objects - start), views) for start in starts
    ]
    with tqdm(total=objects, unit="object") as bar:
        if workers <= 1:
            for job in jobs:
                generate_shard(*job)
                bar.update(job[2])
            return
        with ProcessPoolExecutor(workers) as pool:
            pending = [pool.submit(generate_shard, *job) for job in jobs]
            for future, job in zip(pending, jobs, strict=True):
                future.result()
                bar.update(job[2])
