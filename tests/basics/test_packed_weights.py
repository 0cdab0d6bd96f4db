"""Packed weights: bytes by hand, error bounds, and the way through a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fastsam3d.basics.reading.packed_weights import (
    from_bytes,
    pack,
    quantize,
    read_safetensors,
    tight_group,
    to_bytes,
    unpack,
)


def test_six_bit_bytes_by_hand() -> None:
    # -31, 0, 31, 1 are 1, 32, 63, 33 unsigned: 000001 100000 111111 100001
    data = to_bytes(torch.tensor([-31, 0, 31, 1], dtype=torch.int16), 6)
    assert data.tolist() == [0b00000110, 0b00001111, 0b11100001]
    assert from_bytes(data, 6, 4).tolist() == [[-31, 0, 31, 1]]


@pytest.mark.parametrize("bits", [6, 8])
def test_every_integer_survives(bits: int) -> None:
    top = 2 ** (bits - 1) - 1
    integers = torch.arange(-top, top + 2, dtype=torch.int16)[: 2 * top - (2 * top) % 4]
    assert torch.equal(from_bytes(to_bytes(integers, bits), bits, len(integers))[0], integers)


def test_values_on_the_lattice_are_exact_and_zero_stays_zero() -> None:
    values = torch.tensor([[0.0, 31.0, -31.0, 7.0] * 16])
    integers, scale = quantize(values, 6)
    assert scale.tolist() == [1.0] and integers[0, :4].tolist() == [0, 31, -31, 7]


@pytest.mark.parametrize(("bits", "limit"), [(6, 0.03), (8, 0.008)])
def test_relative_error_of_normal_weights(bits: int, limit: float) -> None:
    values = torch.randn(64, 100, generator=torch.Generator().manual_seed(0))
    tensors, metadata = pack({"weight": values}, bits)
    error = (unpack(tensors, metadata)["weight"] - values).norm() / values.norm()
    assert error < limit


def test_file_round_trip(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    state = {
        "conv.weight": torch.randn(16, 3, 3, 3, 16, generator=generator),
        "bias": torch.randn(16, generator=generator),
        "count": torch.tensor([3]),
    }
    path = tmp_path / "weights.safetensors"
    tensors, metadata = pack(state, 8)
    save_file(tensors, path, metadata)
    loaded = read_safetensors(path)
    assert {k: v.shape for k, v in loaded.items()} == {k: v.shape for k, v in state.items()}
    torch.testing.assert_close(loaded["bias"], state["bias"], atol=2e-3, rtol=1e-3)
    assert loaded["count"].item() == 3


def test_plain_files_are_read_as_they_are(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(2, 2)}, tmp_path / "plain.safetensors")
    assert torch.equal(read_safetensors(tmp_path / "plain.safetensors")["weight"], torch.ones(2, 2))


def test_a_missing_part_is_named() -> None:
    tensors, metadata = pack({"weight": torch.ones(64, 64)}, 6)
    del tensors["weight.scale"]
    with pytest.raises(ValueError, match="weight is damaged"):
        unpack(tensors, metadata)


def test_narrow_tensors_are_packed_without_padding() -> None:
    """Rows of 80 values: groups of 64 would pad them to 128. 40 rows then take 40 x (80 + 2) bytes."""
    values = torch.randn(40, 80, generator=torch.Generator().manual_seed(0))
    tensors, metadata = pack({"weight": values}, 8, small=1024, group=None)
    assert metadata["weight"] == "8,80,40,80"
    assert tensors["weight.packed"].numel() + 2 * tensors["weight.scale"].numel() == 40 * 82
    assert (unpack(tensors, metadata)["weight"] - values).abs().max() < 0.02 * values.abs().max()
    assert tight_group(360) == 72 and tight_group(28) == 32
