"""Sparse index tables and convolutions against dense twins and values by hand."""

from __future__ import annotations

import pytest
import torch

from fastsam3d.modules import sparse_tensor
from fastsam3d.modules.sparse_convolution import GroupNorm32, SubMConvolution
from fastsam3d.modules.sparse_tensor import SparseIndex


def random_coords(count: int, side: int, seed: int = 0, batch: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randperm(side**3, generator=generator)[:count]
    columns = [torch.full_like(cells, batch), cells // side**2, cells // side % side, cells % side]
    return torch.stack(columns, dim=1).int()


def dense_convolution(
    feats: torch.Tensor, coords: torch.Tensor, conv: SubMConvolution, side: int
) -> torch.Tensor:
    x, y, z = coords[:, 1:].long().unbind(1)
    grid = (
        torch.zeros(side, side, side, feats.shape[1])
        .index_put((x, y, z), feats)
        .permute(3, 0, 1, 2)
        .unsqueeze(0)
    )
    weight = conv.weight.permute(0, 4, 1, 2, 3)
    return torch.nn.functional.conv3d(grid, weight, conv.bias, padding=1)[0, :, x, y, z].t()


def test_convolution_equals_dense_convolution_at_occupied_sites() -> None:
    coords = random_coords(70, 6)
    conv = SubMConvolution(5, 4, 3)
    torch.nn.init.normal_(conv.bias)
    feats = torch.randn(70, 5, requires_grad=True)
    sparse = conv.apply_to(feats, SparseIndex(coords))
    dense = dense_convolution(feats, coords, conv, 6)
    torch.testing.assert_close(sparse, dense, atol=1e-5, rtol=1e-5)
    probe = torch.randn(70, 4)
    inputs = [feats, conv.weight, conv.bias]
    for ours, theirs in zip(
        torch.autograd.grad((sparse * probe).sum(), inputs),
        torch.autograd.grad((dense * probe).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_neighbours_by_search_equal_neighbours_by_table(monkeypatch: pytest.MonkeyPatch) -> None:
    coords = torch.cat([random_coords(50, 6, 1, 0), random_coords(40, 6, 2, 1)])
    by_table = SparseIndex(coords).neighbours()
    monkeypatch.setattr(sparse_tensor, "DENSE_LOOKUP_CELLS", {"cpu": 0})
    assert torch.equal(SparseIndex(coords).neighbours(), by_table)
    assert torch.equal(by_table[:, 13], torch.arange(90))


def test_objects_of_a_batch_are_not_neighbours() -> None:
    coords = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 2], [1, 1, 1, 1]], dtype=torch.int32)
    table = SparseIndex(coords).neighbours()
    assert (table[0] < 3).sum() == 1
    assert table[1, 12] == 2
    assert table[2, 14] == 1


def test_convolution_on_children_equals_convolution_of_repeated_features() -> None:
    index = SparseIndex(random_coords(40, 5))
    conv = SubMConvolution(3, 4, 3)
    feats = torch.randn(40, 3)
    repeated = conv.apply_to(feats.repeat_interleave(8, dim=0), index.subdivision())
    torch.testing.assert_close(conv.apply_to_children(feats, index), repeated, atol=1e-5, rtol=1e-5)


def test_convolution_on_copies_equals_convolution_of_copied_features() -> None:
    index = SparseIndex(random_coords(60, 6))
    pooling = index.pooling()
    conv = SubMConvolution(3, 4, 3)
    feats = torch.randn(len(pooling.index), 3, requires_grad=True)
    short = conv.apply_to_copies(feats, pooling, index)
    full = conv.apply_to(pooling.upsample(feats), index)
    torch.testing.assert_close(short, full, atol=1e-5, rtol=1e-5)
    probe = torch.randn(60, 4)
    for ours, theirs in zip(
        torch.autograd.grad((short * probe).sum(), [feats, conv.weight]),
        torch.autograd.grad((full * probe).sum(), [feats, conv.weight]),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_pointwise_weight_is_read_without_transposing() -> None:
    conv = SubMConvolution(2, 3, 1)
    with torch.no_grad():
        conv.weight.copy_(torch.arange(6.0).reshape(3, 1, 1, 1, 2))
    # The buffer 0..5 read as [2, 3]: rows (0, 1, 2) and (3, 4, 5).
    assert conv.pointwise(torch.tensor([[1.0, 10.0]])).tolist() == [[30.0, 41.0, 52.0]]


def test_pooling_divides_by_one_more_than_the_count() -> None:
    coords = torch.tensor([[0, 2, 0, 0], [0, 0, 0, 1], [0, 1, 1, 1]], dtype=torch.int32)
    pooling = SparseIndex(coords).pooling()
    assert pooling.index.coords.tolist() == [[0, 0, 0, 0], [0, 1, 0, 0]]
    feats = torch.tensor([[4.0], [1.0], [2.0]])
    assert pooling.downsample(feats).tolist() == [[1.0], [2.0]]
    assert pooling.upsample(torch.tensor([[7.0], [9.0]])).tolist() == [[9.0], [7.0], [7.0]]


def test_subdivision_order() -> None:
    fine = SparseIndex(torch.tensor([[0, 1, 2, 3]], dtype=torch.int32)).subdivision().coords
    assert fine[0].tolist() == [0, 2, 4, 6]
    assert fine[1].tolist() == [0, 2, 4, 7]
    assert fine[4].tolist() == [0, 3, 4, 6]


def test_tables_are_built_once() -> None:
    index = SparseIndex(random_coords(10, 4))
    assert index.neighbours() is index.neighbours()
    assert index.pooling() is index.pooling()
    assert index.windows(8, 4) is index.windows(8, 4)


def test_group_norm_is_per_object() -> None:
    coords = torch.cat([random_coords(20, 4, 0, 0), random_coords(30, 4, 1, 1)])
    norm = GroupNorm32(2, 4)
    feats = torch.randn(50, 4) * 3 + 1
    out = norm.apply_to(feats, SparseIndex(coords))
    first = feats[:20, :2]
    expected = (first - first.mean()) / torch.sqrt(first.var(unbiased=False) + 1e-5)
    torch.testing.assert_close(out[:20, :2], expected, atol=1e-5, rtol=1e-4)
