"""An object of known size for networks without meaning: random weights give random structure, a benchmark must not.

Everything is computed for real; only two results are exchanged: the occupancy logits, for those of a spherical shell
with as many voxels as asked for, and the decoded signed distances, for those of the sphere, so that pruning, carving,
aggregation and surface extraction meet an object as large as a real one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastsam3d.acceleration.patching import Patches
from fastsam3d.modules.flexicubes_tables import CORNERS
from fastsam3d.modules.voxels import prune_sparse_structure

THICKNESS = 2.0
"""Of the shell in voxels, as the official decoder's output is one (docs/facts.md, section S6)."""
LARGEST_RADIUS = 0.45
"""Of the shell, in grid sides; beyond it grows thicker instead."""


def shell_logits(resolution: int, voxels: int) -> Tensor:
    """Occupancy logits `[1, 1, R, R, R]` of a shell with about `voxels` voxels after pruning, fp32 on the CPU."""
    axis = torch.arange(resolution) + 0.5 - resolution / 2
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    radius = min((voxels / (4 * torch.pi * THICKNESS)) ** 0.5, LARGEST_RADIUS * resolution)
    distance = ((x * x + y * y + z * z).sqrt() - radius).abs().flatten()
    order = distance.argsort(stable=True)
    wanted = min(voxels, len(order) - 1)
    for _ in range(12):  # pruning drops what lies inside a thick shell
        coords = occupied((distance[order[wanted]] - distance).view(1, 1, resolution, resolution, resolution))
        missing = voxels - len(prune_sparse_structure(coords))
        if missing <= 0 or wanted + missing >= len(order):
            break
        wanted += missing
    return (distance[order[wanted]] - distance).view(1, 1, resolution, resolution, resolution)


def occupied(logits: Tensor) -> Tensor:
    """Voxels `[N, 4]` with a positive logit."""
    return torch.argwhere(logits[:, 0] > 0).int()


def sphere_distances(coords: Tensor) -> Tensor:
    """Signed distances `[M, 8]` at the corners of voxels `[M, 3]`, in voxels, to the sphere that they surround."""
    position = coords.float()
    centre = (position.amin(0) + position.amax(0) + 1) / 2
    radius = (position + 0.5 - centre).norm(dim=1).mean()
    corners = position.unsqueeze(1) + torch.tensor(CORNERS, dtype=torch.float32, device=coords.device)
    return (corners - centre).norm(dim=2) - radius


def fill_zero_matrices(pipeline: Any, seed: int = 0) -> int:
    """Gives every matrix that begins at zero random values; returns how many. Products with zeros run faster."""
    generators: dict[torch.device, torch.Generator] = {}
    filled = 0
    for network in (*pipeline.models.values(), *pipeline.condition_embedders.values()):
        for parameter in network.parameters():
            if parameter.ndim >= 2 and not parameter.any():
                place = parameter.device  # the host, for weights that wait there for their stage
                if place not in generators:
                    generators[place] = torch.Generator(place).manual_seed(seed)
                values = torch.randn(parameter.shape, generator=generators[place], device=place)
                parameter.data.copy_(values * (0.5 / parameter[0].numel() ** 0.5))
                filled += 1
    return filled


class FixedObject:
    """Puts a shell of a given size in the place of what a pipeline's random networks find.

    Args:
        pipeline: a native pipeline.
        voxels: that its latent stage shall get.
    """

    def __init__(self, pipeline: Any, voxels: int) -> None:
        self.logits = shell_logits(pipeline.config.resolution, voxels).to(pipeline.device)
        self._patches = Patches()
        self._pipeline = pipeline

    def __enter__(self) -> FixedObject:
        models: nn.ModuleDict = self._pipeline.models
        self._patches.replace(models["ss_decoder"], "forward", self._decoded)
        if "slat_decoder_mesh" in models:
            self._patches.replace(models["slat_decoder_mesh"], "extract", self._extracted)
        return self

    def __exit__(self, *_: object) -> None:
        self._patches.restore()

    def _decoded(self, original: Any) -> Any:
        def forward(tokens: Tensor) -> Tensor:
            original(tokens)
            return self.logits

        return forward

    @staticmethod
    def _extracted(original: Any) -> Any:
        def extract(output: Any, interior_coords: Tensor | None = None) -> Any:
            feats = output.feats
            # Small offsets and weights: a smooth sphere with one vertex a surface cube, as a real object has.
            feats.nan_to_num_(0.0, 0.0, 0.0).mul_(0.01)
            feats[:, :8] = sphere_distances(output.coords[:, 1:])
            return original(output, interior_coords)

        return extract
