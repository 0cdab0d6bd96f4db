from __future__ import annotations

import numpy as np
import pytest
import torch

from fastsam3d.diffusion.maths.voxel_lattice import Lattice, subtract_voxels, unique_voxels
from fastsam3d.diffusion.techniques.token_aggregation import (
    TokenAggregation,
    TokenAggregationConfig,
    aggregate,
    choose_factor,
    combined_detail,
)
from fastsam3d.diffusion.vocabulary import VoxelSet
from fastsam3d.errors import UserError

CONFIG = TokenAggregationConfig(enabled=True)


@pytest.mark.parametrize(
    ("picture", "occupancy", "detail", "factor"),
    [(0.72, 0.9, 0.738, 1.25), (0.6, 0.9, 0.63, 1.5), (0.4, 0.9, 0.45, 2.0), (0.0, 0.9, 0.09, 1.0)],
)
def test_tiers(picture, occupancy, detail, factor):
    assert combined_detail(picture, occupancy, 0.9) == pytest.approx(detail)
    assert choose_factor(CONFIG, picture, occupancy, 10_000) == factor


def test_tier_borders_belong_to_the_finer_and_to_the_coarser_side():
    config = TokenAggregationConfig(enabled=True, picture_weight=1.0)
    assert choose_factor(config, 0.7, 0.9, 10_000) == 1.25
    assert choose_factor(config, 0.5, 0.9, 10_000) == 2.0


def test_size_comes_first():
    assert choose_factor(CONFIG, 0.9, 0.9, 42_000) == 2.0
    assert choose_factor(CONFIG, 0.9, 0.9, 41_999) == 1.25
    assert choose_factor(CONFIG, 0.1, 0.9, 2_047) == 1.0
    assert choose_factor(CONFIG, 0.1, 0.9, 2_048) == 2.0


def test_thresholds_in_the_wrong_order_are_refused():
    with pytest.raises(UserError, match="threshold_low"):
        TokenAggregationConfig(threshold_low=0.8, threshold_high=0.7)


def voxels(*sides, offset=(3, 5, 7)):
    grid = np.stack(np.meshgrid(*[np.arange(s) for s in sides], indexing="ij"), -1).reshape(-1, 3) + offset
    return torch.cat([torch.zeros(len(grid), 1), torch.as_tensor(grid)], dim=1).int()


@pytest.mark.parametrize("factor", [1.0, 1.25, 1.5, 2.0, 3.7])
@pytest.mark.parametrize("sides", [(20, 9, 14), (20, 9, 1), (1, 1, 1), (32, 32, 32)])
def test_the_way_back_is_exact(sides, factor):
    coords = voxels(*sides, offset=(0, 0, 0) if sides == (32, 32, 32) else (3, 5, 7))
    lattice = Lattice.centred(coords, factor, 32)
    cells = lattice.to_coarse(coords)
    assert cells.min() >= 0
    assert cells[:, 1:].max() < 32
    assert cells.dtype == coords.dtype
    back = lattice.to_fine(cells[:, 1:].double() + 0.5)
    assert float((back - (coords[:, 1:].double() + 0.5)).abs().max()) <= factor / 2 + 1e-9


@pytest.mark.parametrize("factor", [1.25, 1.5, 2.0])
def test_object_frame_points_come_back_to_their_place(factor):
    coords = voxels(20, 9, 14)
    lattice = Lattice.centred(coords, factor, 32)
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 0.5
    grid = (points + 0.5) * 32
    coarse = (grid - torch.tensor(lattice.origin, dtype=torch.float64)) / factor  # the forward map, by hand
    assert torch.allclose(lattice.object_points_to_fine(coarse / 32 - 0.5), points, atol=1e-12)


@pytest.mark.parametrize("factor", [1.25, 1.5, 2.0])
def test_the_merged_object_is_centred(factor):
    cells = aggregate(voxels(20, 9, 4), factor, 32).coords[:, 1:]
    assert int((cells.amin(0) + cells.amax(0) + 1 - 32).abs().max()) <= 1


def test_a_block_of_eight_becomes_one():
    merged = aggregate(voxels(20, 10, 8), 2.0, 32)
    assert len(merged.coords) == 10 * 5 * 4
    keys = merged.coords.long() @ torch.tensor([32**3, 32**2, 32, 1])
    assert torch.equal(keys, keys.sort().values)
    assert len(keys.unique()) == len(keys)


@pytest.mark.parametrize("factor", [1.25, 1.5, 2.0])
def test_shell_stays_closed_and_interior_inside(factor):
    # A solid ball: its skin is the shell, the rest is interior.
    grid = torch.argwhere(torch.ones(32, 32, 32, dtype=torch.bool)).int()
    ball = grid[(grid.float() - 15.5).norm(dim=1) < 11]
    inner = grid[(grid.float() - 15.5).norm(dim=1) < 9.5]
    batch = lambda c: torch.cat([torch.zeros(len(c), 1, dtype=torch.int32), c], dim=1)  # noqa: E731
    interior = batch(inner)
    shell = subtract_voxels(batch(ball), interior, 32)
    merged = aggregate(shell, factor, 32, interior)
    both = torch.cat([merged.coords, merged.interior_coords])
    assert len(unique_voxels(both, 32)[0]) == len(both)  # nothing is both shell and interior
    solid = torch.zeros(34, 34, 34, dtype=torch.bool)
    x, y, z = (both[:, 1:].long() + 1).unbind(1)
    solid[x, y, z] = True
    x, y, z = (merged.interior_coords[:, 1:].long() + 1).unbind(1)
    for dx, dy, dz in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):  # no interior cell touches the outside
        assert bool(solid[x + dx, y + dy, z + dz].all())
        assert bool(solid[x - dx, y - dy, z - dz].all())


def test_logits_take_the_largest_of_each_cell():
    coords = voxels(4, 2, 2, offset=(13, 15, 16))
    logits = torch.full((1, 1, 32, 32, 32), -5.0)
    x, y, z = coords[:, 1:].long().unbind(1)
    logits[0, 0, x, y, z] = torch.arange(16.0)
    merged = aggregate(coords, 2.0, 32, None, logits)
    x, y, z = merged.coords[:, 1:].long().unbind(1)
    assert merged.logits is not None
    assert merged.logits[0, 0, x, y, z].tolist() == [7.0, 15.0]
    assert float(merged.logits.min()) == -5.0


def test_policy_leaves_small_and_unknown_objects_alone():
    coords = voxels(20, 9, 14)
    assert TokenAggregation(CONFIG).reduce(VoxelSet(coords, 32)) is None
    permissive = TokenAggregation(TokenAggregationConfig(enabled=True, minimum_voxels=0))
    assert permissive.reduce(VoxelSet(coords, 32)) is None  # no picture is known
    assert permissive.reduce(VoxelSet(coords[:0], 32)) is None


def test_policy_merges_plain_objects_more_than_intricate_ones():
    policy = TokenAggregation(TokenAggregationConfig(enabled=True, minimum_voxels=0))
    coords = voxels(20, 9, 14)
    logits = torch.full((1, 1, 32, 32, 32), -1.0)
    x, y, z = coords[:, 1:].long().unbind(1)
    logits[0, 0, x, y, z] = 1.0
    mask = torch.zeros(128, 128, dtype=torch.bool)
    mask[20:108, 20:108] = True
    ramp = torch.linspace(0, 255, 128)[:, None, None].expand(128, 128, 3)
    noise = torch.rand(128, 128, 3, generator=torch.Generator().manual_seed(0)) * 255
    plain = policy.reduce(VoxelSet(coords, 32, None, logits, ramp, mask))
    intricate = policy.reduce(VoxelSet(coords, 32, None, logits, noise, mask))
    assert plain.lattice.factor == 2.0
    assert intricate.lattice.factor == 1.25
    assert len(plain.coords) < len(intricate.coords) < len(coords)
