"""Random Drop and Uniform Merge, by the definitions that their files state."""

from __future__ import annotations

import pytest
import torch

from fastsam3d.diffusion.techniques.rivals.random_drop import RandomDrop, RandomDropConfig
from fastsam3d.diffusion.techniques.rivals.uniform_merge import UniformMerge, UniformMergeConfig
from fastsam3d.diffusion.vocabulary import VoxelSet


def block(side=6, offset=5, resolution=32):
    cells = torch.argwhere(torch.ones(side, side, side)) + offset
    coords = torch.cat([torch.zeros(len(cells), 1, dtype=torch.int64), cells], dim=1).int()
    return VoxelSet(coords, resolution)


def test_merge_by_two_leaves_an_eighth_of_a_solid_block_and_leads_back():
    voxels = block()
    merged = UniformMerge(UniformMergeConfig(enabled=True)).reduce(voxels)
    assert len(merged.coords) == 6**3 // 8
    back = merged.lattice.to_fine(merged.lattice.to_coarse(voxels.coords)[:, 1:].float() + 0.5)
    assert (back - (voxels.coords[:, 1:] + 0.5)).abs().max() <= 1.0  # half a cell edge
    assert UniformMerge(UniformMergeConfig(enabled=True, factor=1.0)).reduce(voxels) is None


def test_small_objects_are_merged_like_large_ones():
    assert len(UniformMerge(UniformMergeConfig(enabled=True)).reduce(block(2)).coords) == 1


@pytest.mark.parametrize(("fraction", "kept"), [(0.5, 108), (0.1, 195), (0.95, 11)])
def test_drop_keeps_the_stated_share_in_order_and_in_place(fraction, kept):
    voxels = block()
    state = torch.random.get_rng_state()
    rest = RandomDrop(RandomDropConfig(enabled=True, dropped_fraction=fraction)).reduce(voxels)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert len(rest.coords) == kept
    rows = [voxels.coords.tolist().index(row) for row in rest.coords.tolist()]
    assert rows == sorted(set(rows))
    points = torch.rand(20, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    assert torch.allclose(rest.lattice.object_points_to_fine(points), points, atol=1e-6)


def test_drop_is_random_and_repeatable():
    first, again, other = (
        RandomDrop(RandomDropConfig(enabled=True, seed=seed)).reduce(block()).coords for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    # Half of the dropped voxels lie in either half of the block, within four standard deviations of the draw.
    assert abs(int((first[:, 1] < 8).sum()) - 54) < 15
    assert RandomDrop(RandomDropConfig(enabled=True, dropped_fraction=0.0)).reduce(block()) is None
