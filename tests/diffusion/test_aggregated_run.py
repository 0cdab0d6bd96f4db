from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from fastsam3d.acceleration.handle import accelerate
from fastsam3d.meshes.gaussians import Gaussian

ALWAYS = {"enabled": True, "minimum_voxels": 0, "maximum_voxels": 1}  # every object is large: factor_large decides


def test_a_factor_of_one_is_the_plain_run(pipeline, picture):
    plain = pipeline.run(*picture, seed=1)
    with accelerate(pipeline, "off", token_aggregation={**ALWAYS, "factor_large": 1.0}):
        result = pipeline.run(*picture, seed=1)
    assert np.array_equal(result.mesh.vertices, plain.mesh.vertices)


def test_fewer_voxels_same_place(pipeline, picture):
    plain = pipeline.run(*picture, seed=1)
    with accelerate(pipeline, "off", token_aggregation=ALWAYS) as acceleration:
        result = pipeline.run(*picture, seed=1)
        report = acceleration.report()
    assert report.voxels_before == len(plain.structure.coords)
    assert report.voxels_after == len(result.feats) < report.voxels_before
    assert torch.equal(result.structure.coords, plain.structure.coords)
    for key in ("rotation", "translation", "scale"):
        assert np.allclose(np.asarray(getattr(result.pose, key)), np.asarray(getattr(plain.pose, key)))
    # The surface spans the occupied box again; a cell of slack on each side for what merging rounds.
    cell = 2.0 / 16
    for side in ("min", "max"):
        a, b = (getattr(m.mesh.vertices, side)(0) for m in (result, plain))
        assert np.abs(a - b).max() <= 1.5 * cell


@pytest.mark.parametrize("kind", ["mesh", "gaussian"])
def test_decoded_points_go_through_the_exact_inverse(pipeline, kind):
    """A decoder that puts one point in the middle of each voxel it is given."""
    coords = torch.tensor([[0, x, y, 5] for x in range(2, 14) for y in range(4, 9)], dtype=torch.int32)
    logits = torch.full((1, 1, 16, 16, 16), -1.0)
    structure = StandInStructure(coords, logits, coords[:0])
    given = {}

    def sample_slat(condition, structure, generator):
        return torch.zeros(len(structure.coords), 8)

    def decode_slat(feats, structure, formats=("mesh",)):
        given["coords"] = structure.coords
        centres = (structure.coords[:, 1:].float() + 0.5) / 16 - 0.5
        if kind == "mesh":
            return {"mesh": StandInMesh(centres.numpy())}
        one = torch.zeros(len(centres), 1)
        raw = Gaussian(centres + 0.5, one[:, :, None].expand(-1, 1, 3), one.expand(-1, 3), one.expand(-1, 4), one)
        return {"gaussian": raw}

    pipeline.sample_slat, pipeline.decode_slat = sample_slat, decode_slat
    with accelerate(pipeline, "off", token_aggregation=ALWAYS):
        feats = pipeline.sample_slat(None, structure, None)
        decoded = pipeline.decode_slat(feats, structure, (kind,))[kind]
    plain = decode_slat(feats, structure)[kind]
    merged = given["coords"]
    assert len(feats) == len(decoded.vertices if kind == "mesh" else decoded.xyz)
    if kind == "mesh":
        points = torch.as_tensor(decoded.vertices)
        assert decoded.vertices.dtype == np.float32
    else:
        points = decoded.get_xyz
        assert torch.allclose(decoded.get_scaling, 2.0 * plain.get_scaling[:1].expand(len(points), -1), rtol=1e-4)
    # Every original voxel centre has a decoded point within half a cell on each axis.
    centres = (coords[:, 1:].float() + 0.5) / 16 - 0.5
    nearest = (centres[:, None] - points[None]).abs().amax(-1).amin(1)
    assert float(nearest.max()) <= 1.0 / 16 + 1e-6
    assert int(merged[:, 1:].max()) < 16


@dataclasses.dataclass(frozen=True)
class StandInStructure:
    coords: torch.Tensor
    logits: torch.Tensor
    interior_coords: torch.Tensor
    downsample_factor: int = 1


@dataclasses.dataclass(frozen=True)
class StandInMesh:
    vertices: np.ndarray


def test_a_grid_that_was_halved_already_is_left_alone(pipeline):
    coords = torch.tensor([[0, x, y, 5] for x in range(2, 14) for y in range(4, 9)], dtype=torch.int32)
    structure = StandInStructure(coords, torch.zeros(1, 1, 16, 16, 16), coords[:0], downsample_factor=2)
    pipeline.sample_slat = lambda condition, structure, generator: torch.zeros(len(structure.coords), 8)
    with accelerate(pipeline, "off", token_aggregation=ALWAYS):
        assert len(pipeline.sample_slat(None, structure, None)) == len(coords)
