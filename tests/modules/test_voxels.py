"""Voxel lists between the stages."""

from __future__ import annotations

import torch

from fastsam3d.modules.voxels import (
    connected_components,
    downsample_sparse_structure,
    drop_fragments,
    prune_sparse_structure,
    split_interior,
)


def cube(side: int, origin: int = 0) -> torch.Tensor:
    axis = torch.arange(origin, origin + side)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    return torch.cat([torch.zeros_like(grid[:, :1]), grid], dim=1).int()


def test_pruning_a_solid_cube_leaves_its_shell() -> None:
    coords = cube(64)
    shell = prune_sparse_structure(coords)
    assert len(shell) == 64**3 - 62**3 == 23816
    assert shell.dtype == torch.int32
    order = (shell[:, 1] * 64 + shell[:, 2]) * 64 + shell[:, 3]
    assert (order[1:] > order[:-1]).all()


def test_split_by_distance() -> None:
    coords = cube(7, 3)
    assert [len(split_interior(coords, d)[1]) for d in (0, 1, 2, 3)] == [0, 125, 27, 1]
    holed = coords[(coords[:, 1:] != 6).any(1)]
    shell, inside = split_interior(holed)
    assert len(shell) + len(inside) == len(holed)
    assert len(inside) == 125 - 27


def test_small_sets_pass_unchanged() -> None:
    coords = cube(5)
    result, factor = downsample_sparse_structure(coords, max_coords=125)
    assert factor == 1
    assert result is coords


def test_large_sets_are_halved_about_their_centre() -> None:
    coords = cube(8, 4)
    result, factor = downsample_sparse_structure(coords, max_coords=100)
    # Range 4..11, size 8, is mapped to size 4 from 4 + 2: 6..9.
    assert factor == 2
    assert result.dtype == torch.int32
    assert result[:, 1:].amin(0).tolist() == [6, 6, 6]
    assert result[:, 1:].amax(0).tolist() == [9, 9, 9]
    assert len(result) == 64
    again, _ = downsample_sparse_structure(coords, max_coords=50)
    once_more, _ = downsample_sparse_structure(coords, max_coords=50)
    assert len(again) == 50
    assert torch.equal(again, once_more)


def test_fragments_are_dropped_by_size() -> None:
    line = [[0, x, 0, 0] for x in range(10)]
    diagonal = [[0, 20 + i, 20 + i, 20 + i] for i in range(5)]  # joined by corners only
    lone = [[0, 5, 5, 5]]
    coords = torch.tensor([*line, *lone, *diagonal], dtype=torch.int32)
    assert connected_components(coords).tolist() == [0] * 10 + [10] + [11] * 5
    assert drop_fragments(coords, 0.5).tolist() == line + diagonal
    assert drop_fragments(coords, 0.6).tolist() == line
    assert torch.equal(drop_fragments(coords, 0.0), coords)
