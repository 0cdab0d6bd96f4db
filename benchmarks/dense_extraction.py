"""Surface extraction on full grids, as the official pipeline executes it: the baseline of `full_size.py`.

The same surface as `fastsam3d.modules.flexicubes.extract_surface`, found the official way (docs/facts.md,
section S8.2): corner values averaged through a row-wise unique, scattered to (R + 1)^3 and R^3 grids, positions and
weights activated for every cube, occupancy gathered for every cube, and the edges of all surface cubes made unique.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastsam3d.modules.flexicubes import Surface, _cases, _dual_vertices, _split_quads, _unlinear
from fastsam3d.modules.flexicubes_tables import CORNERS, EDGES, ring_tables
from fastsam3d.modules.sparse_tensor import SparseTensor


class DenseExtraction:
    """Extraction for grids of one size. Its cube index is built once and kept, as upstream keeps it.

    Args:
        resolution: voxels a side.
        device: of the grids.
    """

    def __init__(self, resolution: int, device: torch.device | str) -> None:
        self.resolution, self.side = resolution, resolution + 1
        self.strides = torch.tensor([self.side**2, self.side, 1], device=device)
        axis = torch.arange(resolution, device=device)
        grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
        self.cubes = (grid * self.strides).sum(1)
        self.offsets = (torch.tensor(CORNERS, device=device) * self.strides).sum(1)
        self.corners_of_cubes = self.cubes.unsqueeze(1) + self.offsets  # [R^3, 8] int64: 1.07 GB at 256

    def tensors(self) -> tuple[Tensor, ...]:
        """What is kept between calls."""
        return self.strides, self.cubes, self.offsets, self.corners_of_cubes

    def extract(self, output: SparseTensor, interior_coords: Tensor | None = None) -> Surface:
        """In the place of `MeshDecoder.extract`; upstream knows no interior."""
        return self(output.coords[:, 1:], output.feats)

    def __call__(self, coords: Tensor, features: Tensor) -> Surface:
        """Surface of voxels `[M, 3]` with the decoder's features `[M, 101]`."""
        features = features.float()
        corners, weights = self._scatter(coords.long(), features)
        sdf, colours = corners[:, 0], torch.sigmoid(corners[:, 4:])
        moved = (1 - 1e-8) / (2 * self.resolution) * torch.tanh(corners[:, 1:4])
        everywhere = torch.arange(self.side**3, device=sdf.device)
        positions = _unlinear(everywhere, self.strides, self.side) / self.resolution - 0.5 + moved
        # Upstream activates the weights of all cubes before it knows which it needs.
        activated = torch.tanh(weights[:, :20]), torch.sigmoid(weights[:, 20])
        inside = (sdf < 0)[self.corners_of_cubes]
        count = inside.sum(1)
        surface = (count > 0) & (count < 8)
        cubes, inside, weights = self.cubes[surface], inside[surface], weights[surface]
        del activated
        if len(cubes) == 0:
            empty = features.new_zeros
            return Surface(empty(0, 3), cubes.new_zeros(0, 3), empty(0, 6))
        cases = torch.zeros(self.resolution**3, 5, dtype=torch.int64, device=sdf.device)
        cases[surface] = (inside.long() << torch.arange(8, device=sdf.device)).sum(1, keepdim=True)
        patch_of_edge, patches = _cases(cubes, inside, self.strides, self.resolution)
        rows = cubes.unsqueeze(1) + self.offsets
        vertices, attributes = _dual_vertices(
            positions[rows], sdf[rows], colours[rows], weights, patch_of_edge, patches
        )
        faces = self._faces(cubes, rows, sdf < 0, patch_of_edge, patches, weights)
        return Surface(vertices, faces, attributes)

    def _scatter(self, coords: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Corner values `[(R + 1)^3, 10]`, outside where no voxel is, and raw weights `[R^3, 21]`."""
        corners = (coords.unsqueeze(1) + coords.new_tensor(CORNERS)).flatten(0, 1)
        unique, inverse, counts = torch.unique(corners, dim=0, return_inverse=True, return_counts=True)
        values = torch.cat(
            [
                features[:, :8].unsqueeze(2) - 1.0 / self.resolution,
                features[:, 8:32].unflatten(1, (8, 3)),
                features[:, 53:101].unflatten(1, (8, 6)),
            ],
            dim=2,
        )
        mean = values.new_zeros(len(unique), 10).index_add_(0, inverse, values.flatten(0, 1)) / counts.unsqueeze(1)
        grid = values.new_zeros(self.side**3, 10)
        grid[:, 0] = 1.0
        grid[(unique * self.strides).sum(1)] = mean
        weights = values.new_zeros(self.resolution**3, 21)
        cell = coords[:, 0] * self.resolution**2 + coords[:, 1] * self.resolution + coords[:, 2]
        weights[cell] = features[:, 32:53]
        return grid, weights

    def _faces(
        self, cubes: Tensor, rows: Tensor, inside: Tensor, patch_of_edge: Tensor, patches: Tensor, weights: Tensor
    ) -> Tensor:
        ends = rows[:, torch.tensor(EDGES, device=rows.device)].flatten(0, 1)
        edges, counts = torch.unique(ends.sort(1).values, dim=0, return_counts=True)
        kept = (inside[edges[:, 0]] != inside[edges[:, 1]]) & (counts == 4)
        base, span = edges[kept, 0], edges[kept, 1] - edges[kept, 0]
        axis = torch.where(span == 1, 2, torch.where(span == self.side, 1, 0))
        steps, ring_edges = (torch.from_numpy(t).to(base.device) for t in ring_tables())
        ring = ((_unlinear(base, self.strides, self.side).unsqueeze(1) + steps[axis]) * self.strides).sum(-1)
        cube_of = torch.searchsorted(cubes, ring)
        first = patches.cumsum(0) - patches
        quads = first[cube_of] + patch_of_edge[cube_of, ring_edges[axis]]
        gamma = (0.99 * torch.sigmoid(weights[:, 20]) + 0.005)[cube_of]
        return _split_quads(quads, gamma, axis, inside[base])
