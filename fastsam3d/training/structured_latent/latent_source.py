"""Makes the latents of a batch's objects when the training of the flow needs them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastsam3d.modules.voxels import split_interior
from fastsam3d.procedural.objects import training_object
from fastsam3d.sam3d.pipeline.preprocessing import mean_color
from fastsam3d.training.data.condition_batch import build_condition_batch
from fastsam3d.training.data.data_source import Dataset
from fastsam3d.training.data.device_dataset import DeviceDataset
from fastsam3d.training.structured_latent.batch import PlacementBatch, voxel_samples
from fastsam3d.training.structured_latent.data import (
    COLOR_CHANNELS,
    Placement,
    VoxelSample,
    occupied_voxels,
    voxel_sample,
)

RAGGED = 0.3
"""Share of objects whose voxels deviate from the true ones, as predicted voxels do."""
RAGGED_NOISE = 0.35
"""How far, in voxels: standard deviation of what is added to the distances."""


class LatentSource:
    """Normalised latents of stored objects, made when they are needed.

    Colours are relative to the mean colour of the object in its picture (`mean_color`), which the pipeline adds
    again: what a thousand voxels have in common need not pass through the noise.
    """

    def __init__(self, resolution: int, dataset: Dataset, count: int = 128) -> None:
        self.resolution, self.dataset = resolution, dataset
        device = dataset.device if isinstance(dataset, DeviceDataset) else torch.device("cpu")
        self.mean, self.std = torch.zeros(1, device=device), torch.ones(1, device=device)
        generator, rng = torch.Generator(device).manual_seed(12), np.random.default_rng(12)
        batch = build_condition_batch(dataset, None, generator, count=count)
        _, values = self.batch(batch, rng)
        self.mean, self.std = values.mean(0), values.std(0)

    def batch(self, batch: dict[str, Tensor], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Voxels `[N, 4]`, object by object, and normalised latents `[N, C]` of the objects of a condition batch."""
        colors = mean_color(batch["image"], batch["mask"])
        ragged = rng.random(len(colors)) < RAGGED
        if isinstance(self.dataset, DeviceDataset):
            coords, values = self._on_device(batch, torch.from_numpy(ragged), rng)
        else:
            coords, values = self._one_by_one(batch, ragged, rng)
        values[:, list(COLOR_CHANNELS)] -= colors[coords[:, 0].long()]
        return coords, (values - self.mean) / self.std

    def _one_by_one(
        self, batch: dict[str, Tensor], ragged: np.ndarray, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        seeds = self.dataset.array("seed", batch["object"]).tolist()  # type: ignore[union-attr]
        coords, values = [], []
        for number, (seed, mirrored) in enumerate(zip(seeds, batch["mirrored"].tolist(), strict=True)):
            sample = self._sample(seed, Placement(mirrored=mirrored), bool(ragged[number]), rng)
            coords.append(sample.coords.clone())
            coords[-1][:, 0] = number
            values.append(sample.latents())
        return torch.cat(coords), torch.cat(values)

    def _sample(self, seed: int, placement: Placement, ragged: bool, rng: np.random.Generator) -> VoxelSample:
        item = training_object(seed)
        noise = None
        if ragged:
            shape = (self.resolution,) * 3
            noise = torch.from_numpy(rng.normal(0, RAGGED_NOISE, shape).astype(np.float32))
        coords = occupied_voxels(lambda p: item.sdf(placement.into_object(p)), self.resolution, noise=noise)
        return voxel_sample(item, *split_interior(coords), self.resolution, placement, with_normals=False)

    def _on_device(
        self, batch: dict[str, Tensor], ragged: Tensor, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        assert isinstance(self.dataset, DeviceDataset)
        device = self.dataset.device
        generator = torch.Generator(device).manual_seed(int(rng.integers(2**31)))
        shape = (len(ragged), *[self.resolution] * 3)
        noise = RAGGED_NOISE * torch.randn(shape, generator=generator, device=device)
        noise = noise * ragged.to(device)[:, None, None, None]
        tables = self.dataset.table_batch(batch["object"].cpu().numpy())
        sample = voxel_samples(tables, self.resolution, PlacementBatch.plain(batch["mirrored"], noise))
        return sample.coords, sample.latents()
