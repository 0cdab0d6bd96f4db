"""The benchmark's dense extraction and its stand-in object."""

from __future__ import annotations

import pytest
import torch
from dense_extraction import DenseExtraction
from fixed_object import occupied, shell_logits, sphere_distances

from fastsam3d.modules.flexicubes import CHANNELS, extract_surface
from fastsam3d.modules.voxels import prune_sparse_structure


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_dense_and_sparse_extraction_agree(noise: float) -> None:
    side = 16
    coords = occupied(shell_logits(side, 500))[:, 1:]
    generator = torch.Generator().manual_seed(0)
    features = 0.3 * torch.randn(len(coords), CHANNELS, generator=generator)
    features[:, :8] = sphere_distances(coords) + noise * torch.randn(len(coords), 8, generator=generator)
    sparse, dense = extract_surface(coords, features, side), DenseExtraction(side, "cpu")(coords, features)
    torch.testing.assert_close(dense.vertices, sparse.vertices)
    torch.testing.assert_close(dense.attributes, sparse.attributes)
    # The same triangles; their order and the corner they begin with may differ.
    triangles = [sorted(tuple(sorted(f)) for f in mesh.faces.tolist()) for mesh in (sparse, dense)]
    assert triangles[0] == triangles[1]
    assert len(dense.faces) > 100


@pytest.mark.parametrize(("resolution", "voxels"), [(32, 1000), (64, 10_000), (64, 26_000)])
def test_shell_has_the_voxels_asked_for(resolution: int, voxels: int) -> None:
    kept = prune_sparse_structure(occupied(shell_logits(resolution, voxels)))
    assert abs(len(kept) - voxels) <= 0.02 * voxels
