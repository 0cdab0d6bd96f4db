"""Triton kernels against their plain twins: on a GPU, or anywhere in Triton's interpreter (TRITON_INTERPRET=1).

`test_elementwise.py` runs this file in the interpreter.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import pytest
import torch

from fastsam3d.modules.elementwise import FUSED, PLAIN, fused_kernels_work
from fastsam3d.modules.layers import LayerNorm32, MultiHeadRMSNorm

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = pytest.mark.gpu
if importlib.util.find_spec("triton") is None or not (INTERPRETED or torch.cuda.is_available()):
    pytest.skip("needs Triton, and a CUDA device or TRITON_INTERPRET=1", allow_module_level=True)

# Of results of a few units. The interpreter cuts a bfloat16 off where a GPU rounds it: up to one step of 2^-7.
TOLERANCE = {
    torch.float32: {"rtol": 1e-5, "atol": 1e-5},
    torch.float16: {"rtol": 2e-3, "atol": 4e-3},
    torch.bfloat16: {"rtol": 2e-2, "atol": 4e-2},
}
# The plain operations round in between, the kernels do not.
LOOSE = {
    torch.float32: {"rtol": 1e-5, "atol": 1e-5},
    torch.float16: {"rtol": 1e-2, "atol": 2e-2},
    torch.bfloat16: {"rtol": 5e-2, "atol": 1.5e-1},
}
TYPES = list(TOLERANCE)


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def affine_norm(channels: int) -> LayerNorm32:
    norm = LayerNorm32(channels).to(DEVICE)
    norm.weight.data, norm.bias.data = randn(channels, seed=2), randn(channels, seed=3)
    return norm


def assert_twins(actual: Any, expected: Any, **tolerance: float) -> None:
    """Tensors, or tuples of them, of `FUSED` and of `PLAIN`."""
    torch.testing.assert_close(actual, expected, **(tolerance or TOLERANCE[torch.float32]))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("channels", [1, 5, 33, 48, 1000, 1024, 2049])
@pytest.mark.parametrize("gated", [True, False])
@torch.no_grad()
def test_add_and_normalise(dtype: torch.dtype, channels: int, gated: bool) -> None:
    h, update = randn(2, 5, channels, dtype=dtype), randn(2, 5, channels, seed=1, dtype=dtype)
    modulation = randn(2, 6 * channels, seed=2, dtype=dtype)  # chunks of it are not contiguous
    shift, scale, gate = modulation.chunk(6, dim=-1)[:3]
    norm = LayerNorm32(channels, affine=False)
    arguments = (h, update, gate if gated else None, norm, shift, scale)
    total, normalised = FUSED.add_normalise(*arguments)
    # Reference in double precision.
    x = h.double() + (gate.double().unsqueeze(1) if gated else 1) * update.double()
    # What is normalised is the sum as it was stored.
    y = torch.nn.functional.layer_norm(total.double(), (channels,), eps=norm.eps)
    y = y * (1 + scale.double().unsqueeze(1)) + shift.double().unsqueeze(1)
    torch.testing.assert_close(total.double(), x, **TOLERANCE[dtype])
    torch.testing.assert_close(normalised.double(), y, **TOLERANCE[dtype])
    assert_twins((total, normalised), PLAIN.add_normalise(*arguments), **LOOSE[dtype])


@torch.no_grad()
def test_add_and_normalise_by_hand() -> None:
    """`[1, 1] + 2 * [1, -1] = [3, -1]`: mean 1, deviation 2, normalised [1, -1]; times 1 + 2, plus 0.5."""
    h, update = torch.ones(1, 1, 2, device=DEVICE), torch.tensor([[[1.0, -1.0]]], device=DEVICE)
    gate, shift = torch.full((1, 2), 2.0, device=DEVICE), torch.full((1, 2), 0.5, device=DEVICE)
    total, normalised = FUSED.add_normalise(h, update, gate, LayerNorm32(2, affine=False), shift, gate)
    assert total.tolist() == [[[3.0, -1.0]]]
    assert normalised.flatten().tolist() == pytest.approx([3.5, -2.5], abs=1e-5)


@torch.no_grad()
def test_repeated_rows_affine_norm_and_single_modulation() -> None:
    h = randn(3, 4, 40)
    constant = randn(1, 1, 40, seed=1).expand(3, 4, -1)  # what the zero condition gives every token
    norm = affine_norm(40)
    assert_twins(FUSED.add_normalise(h, constant, None, norm), PLAIN.add_normalise(h, constant, None, norm))
    gate = randn(1, 40, seed=4)
    assert_twins(FUSED.add(h, constant, gate), PLAIN.add(h, constant, gate))
    assert_twins(FUSED.normalise(h, norm), PLAIN.normalise(h, norm))


@pytest.mark.parametrize("rows", [(1, 3), (3, 1), (1, 1)])
@torch.no_grad()
def test_shift_and_scale_need_not_lie_alike(rows: tuple[int, int]) -> None:
    """One row for the whole batch, or a row an object; contiguous, or a part of a wider tensor."""
    h, norm = randn(3, 4, 40), LayerNorm32(40, affine=False)
    shift, scale = randn(rows[0], 40, seed=1), randn(rows[1], 80, seed=2)[:, 40:]
    assert_twins(FUSED.normalise(h, norm, shift, scale), PLAIN.normalise(h, norm, shift, scale))
    assert_twins(FUSED.normalise(h, norm, scale, shift), PLAIN.normalise(h, norm, scale, shift))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("modulated", [True, False])
@torch.no_grad()
def test_every_norm_with_and_without_modulation(affine: bool, modulated: bool) -> None:
    h, norm = randn(2, 3, 24), affine_norm(24) if affine else LayerNorm32(24, affine=False)
    modulation = (randn(2, 24, seed=4), randn(2, 24, seed=5)) if modulated else ()
    assert_twins(FUSED.normalise(h, norm, *modulation), PLAIN.normalise(h, norm, *modulation))


@torch.no_grad()
def test_any_layout_in_memory_and_broadcast_updates() -> None:
    norm = LayerNorm32(24, affine=False)
    h, update = randn(2, 24, 5).transpose(1, 2), randn(2, 24, 5, seed=1).transpose(1, 2)
    gate, shift, scale = (randn(24, 2, seed=seed).t() for seed in (2, 3, 4))
    for part in (update, update[:1], update[:, :1], update[:, :0]):
        rows = h[:, : part.shape[1]] if part.shape[1] == 0 else h
        arguments = (rows, part, gate, norm, shift, scale)
        assert_twins(FUSED.add_normalise(*arguments), PLAIN.add_normalise(*arguments))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("heads", "width"), [(1, 1), (2, 64), (3, 20), (5, 7), (16, 64)])
@torch.no_grad()
def test_normalise_heads(dtype: torch.dtype, heads: int, width: int) -> None:
    qkv = randn(2, 5, 3, heads, width, dtype=dtype)
    qkv[0, 0, 0, 0] = 0.0  # a head without length stays zero
    norms = [MultiHeadRMSNorm(width, heads).to(DEVICE) for _ in range(2)]
    for seed, norm in enumerate(norms):
        norm.gamma.data = randn(heads, width, seed=seed + 5)
    actual = FUSED.normalise_heads(qkv, *norms)
    assert_twins(actual, PLAIN.normalise_heads(qkv, *norms), **TOLERANCE[dtype])
    for part, norm, result in zip(qkv.double().unbind(2), norms, actual, strict=False):
        lengths = part.square().sum(-1, keepdim=True).sqrt().clamp_min(1e-12)
        expected = part / lengths * norm.gamma.double() * width**0.5
        torch.testing.assert_close(result.double(), expected, **TOLERANCE[dtype])


@torch.no_grad()
def test_heads_that_are_not_finite_or_very_short() -> None:
    """A NaN spreads over its head and no further, as in PyTorch; very short and very long heads keep their rule."""
    qkv = randn(1, 4, 3, 2, 8)
    qkv[0, 0, 0, 0, 0] = float("nan")
    qkv[0, 1, 0, 0, 0] = float("inf")
    qkv[0, 2, 1, 0] *= 1e-14  # shorter than the limit of 1e-12
    norm = MultiHeadRMSNorm(8, 2).to(DEVICE)
    actual, expected = (do.normalise_heads(qkv, norm, norm) for do in (FUSED, PLAIN))
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6, equal_nan=True)
    assert actual[0][0, 0, 0].isnan().all() and not actual[0][0, 0, 1].isnan().any()


@pytest.mark.parametrize("broken", ["", "add_normalise", "normalise_heads"])
def test_kernels_that_disagree_are_not_used(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastsam3d.modules import fused_kernels

    if broken:
        right = getattr(fused_kernels, broken)
        monkeypatch.setattr(fused_kernels, broken, lambda *a: tuple(x + 1 for x in right(*a)))
    assert fused_kernels_work.__wrapped__(torch.device(DEVICE)) is not bool(broken)
