"""The order in which tensors are rearranged, worked out by hand, and that PyTorch compiles modules that do so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastsam3d.modules.layers import grid_positions, sinusoidal_position_embedding
from fastsam3d.modules.sparse_convolution import SubMConvolution
from fastsam3d.sam3d.models.dino import Dino, PatchEmbed
from fastsam3d.sam3d.models.point_patch import PointPatchEmbed
from fastsam3d.sam3d.models.sparse_structure_decoder import SparseStructureDecoder, grid_to_tokens, pixel_shuffle_3d


def test_channels_to_space_by_hand() -> None:
    """Two cells along z of eight channels and one more group of eight: channel `8 c + 4 i + 2 j + k`."""
    x = torch.arange(32.0).reshape(1, 16, 1, 1, 2)  # the value is 2 * channel + z
    fine = pixel_shuffle_3d(x)
    assert fine.shape == (1, 2, 2, 2, 4)
    for group, i, j, z in [(0, 0, 0, 0), (0, 0, 0, 1), (1, 0, 1, 2), (1, 1, 0, 3)]:
        assert fine[0, group, i, j, z] == 2 * (8 * group + 4 * i + 2 * j + z % 2) + z // 2


def test_tokens_and_grid_by_hand() -> None:
    """Token `16 x + 4 y + z` of a grid of four cells a side, and the way back for each patch."""
    grid = torch.arange(64.0).reshape(1, 1, 4, 4, 4)
    assert grid_to_tokens(grid).flatten().tolist() == list(range(64))
    patched = grid_to_tokens(grid, 2)
    assert patched[0, 0].tolist() == [0, 1, 4, 5, 16, 17, 20, 21]
    assert patched[0, 1].tolist() == [2, 3, 6, 7, 18, 19, 22, 23]
    for patch in (1, 2):
        decoder = SparseStructureDecoder(1, (2,), 0, 0, patch)
        assert torch.equal(decoder.tokens_to_grid(grid_to_tokens(grid, patch)), grid)


def test_positions_by_hand() -> None:
    assert grid_positions(2).tolist()[:5] == [[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1], [1, 0, 0]]
    # One wave an axis: sine and cosine of x, of y, of z, then a zero.
    embedding = sinusoidal_position_embedding(torch.tensor([[0, 1, 2]]), 7)[0]
    angles = torch.tensor([0.0, 1.0, 2.0])
    expected = torch.stack([angles.sin(), angles.cos()], dim=1).flatten()
    torch.testing.assert_close(embedding, torch.cat([expected, torch.zeros(1)]))


@torch.no_grad()
def test_patches_and_windows_by_hand() -> None:
    patches = PatchEmbed(1, 1)
    patches.proj.weight.fill_(1.0)
    patches.proj.bias.zero_()
    picture = torch.arange(4.0).reshape(1, 1, 2, 2).expand(1, 3, 2, 2)
    assert patches(picture).flatten().tolist() == [0.0, 3.0, 6.0, 9.0]  # row by row, summed over the colours
    windows = PointPatchEmbed(4, 2, 3, 1)
    windows.point_proj.weight.copy_(torch.eye(3))
    windows.point_proj.bias.zero_()
    points = torch.arange(48.0).reshape(1, 3, 4, 4)  # the value is 16 * axis + 4 * row + column
    tokens, batch, side = windows.embed_pointmap_windows(points)
    assert (batch, side, tokens.shape) == (1, 2, (4, 4, 3))
    assert tokens[1].tolist() == [[v, v + 16, v + 32] for v in (2.0, 3.0, 6.0, 7.0)]  # rows 0 and 1, columns 2 and 3


def test_taps_by_hand() -> None:
    convolution = SubMConvolution(2, 4, 3)
    assert torch.equal(convolution.taps()[9 * 2 + 3 * 1 + 0], convolution.weight[:, 2, 1, 0, :].t())


@pytest.mark.parametrize(
    ("kind", "sizes", "shape"),
    [
        (Dino, (28, 14, 24, 1, 2, 1), (2, 3, 28, 28)),
        (PointPatchEmbed, (16, 8, 24, 2), (2, 3, 16, 16)),
        (SparseStructureDecoder, (2, (4, 4), 1, 1, 2), (2, 8, 16)),
    ],
    ids=["picture", "points", "occupancy"],
)
def test_compiled_in_one_graph_with_the_same_values(
    kind: Callable[..., nn.Module], sizes: tuple[Any, ...], shape: tuple[int, ...]
) -> None:
    module = kind(*sizes)
    x: Tensor = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    with torch.inference_mode():
        assert torch.equal(compiled(x), module(x))
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(compiled(x), module(x))
