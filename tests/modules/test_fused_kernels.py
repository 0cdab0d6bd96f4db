"""Triton kernels against their plain twins: on a GPU, or anywhere in Triton's interpreter (TRITON_INTERPRET=1)."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest
import torch

from fastsam3d.modules.attention import MultiHeadRMSNorm
from fastsam3d.modules.elementwise import FUSED, PLAIN, operations_for
from fastsam3d.modules.layers import LayerNorm32

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or not (INTERPRETED or torch.cuda.is_available()),
    reason="needs Triton, and a CUDA device or TRITON_INTERPRET=1",
)


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def test_kernels_are_launched_on_the_device_of_their_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton launches on the current device, which need not be the one that holds the tensors."""
    current = ["cuda:0"]

    @contextmanager
    def device(wanted: torch.device) -> Iterator[None]:
        before, current[0] = current[0], str(wanted)
        yield
        current[0] = before

    class Kernels(ModuleType):
        def add_normalise(self, h: Any, *_: Any) -> tuple[Any, Any]:
            assert current[0] == str(h.device)
            return h, None

        def normalise_heads(self, qkv: Any, *_: Any) -> tuple[Any, Any]:
            assert current[0] == str(qkv.device)
            return qkv, qkv

    class There(torch.Tensor):
        device = torch.device("cuda", 1)

    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setitem(sys.modules, "fastsam3d.modules.fused_kernels", Kernels("fused_kernels"))
    h = torch.zeros(1, 2, 8).as_subclass(There)
    norm, heads = LayerNorm32(8), MultiHeadRMSNorm(4, 2)
    FUSED.add_normalise(h, h, None, norm)
    FUSED.normalise_heads(torch.zeros(1, 2, 3, 2, 4).as_subclass(There), heads, heads)
    assert current == ["cuda:0"]


def test_plain_operations_without_a_gpu() -> None:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert operations_for(torch.zeros(1, 2, 8)) is PLAIN


@pytest.mark.gpu
@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("channels", [48, 1024])
@pytest.mark.parametrize("gated", [True, False])
@torch.no_grad()
def test_add_and_normalise(dtype: torch.dtype, channels: int, gated: bool) -> None:
    h, update = randn(2, 5, channels, dtype=dtype), randn(2, 5, channels, seed=1, dtype=dtype)
    modulation = randn(2, 6 * channels, seed=2, dtype=dtype)  # chunks of it are not contiguous
    shift, scale, gate = modulation.chunk(6, dim=-1)[:3]
    norm = LayerNorm32(channels, affine=False)
    arguments = (h, update, gate if gated else None, norm, shift, scale)
    # Reference in double precision: half-precision operations round in between, the kernels do not.
    x = h.double() + (gate.double().unsqueeze(1) if gated else 1) * update.double()
    rounded = x.to(dtype).double()
    y = torch.nn.functional.layer_norm(rounded, (channels,), eps=norm.eps)
    y = y * (1 + scale.double().unsqueeze(1)) + shift.double().unsqueeze(1)
    total, normalised = FUSED.add_normalise(*arguments)
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-3, "atol": 4e-3}
    torch.testing.assert_close(total.double(), x, **tolerance)
    torch.testing.assert_close(normalised.double(), y, **tolerance)
    plain = PLAIN.add_normalise(*arguments)
    loose = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-2, "atol": 2e-2}
    torch.testing.assert_close(total, plain[0], **loose)
    torch.testing.assert_close(normalised, plain[1], **loose)


@pytest.mark.gpu
@needs_triton
@torch.no_grad()
def test_repeated_rows_affine_norm_and_single_modulation() -> None:
    h = randn(3, 4, 40)
    constant = randn(1, 1, 40, seed=1).expand(3, 4, -1)  # what the zero condition gives every token
    norm = LayerNorm32(40).to(DEVICE)
    norm.weight.data, norm.bias.data = randn(40, seed=2), randn(40, seed=3)
    for actual, expected in zip(
        FUSED.add_normalise(h, constant, None, norm),
        PLAIN.add_normalise(h, constant, None, norm),
        strict=True,
    ):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    gate = randn(1, 40, seed=4)
    torch.testing.assert_close(
        FUSED.add(h, constant, gate), PLAIN.add(h, constant, gate), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(FUSED.normalise(h, norm), PLAIN.normalise(h, norm), rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
@needs_triton
@pytest.mark.parametrize(("heads", "width"), [(2, 64), (3, 20), (16, 64)])
@torch.no_grad()
def test_normalise_heads(heads: int, width: int) -> None:
    qkv = randn(2, 5, 3, heads, width)
    qkv[0, 0, 0, 0] = 0.0  # a head without length stays zero
    norms = [MultiHeadRMSNorm(width, heads).to(DEVICE) for _ in range(2)]
    for seed, norm in enumerate(norms):
        norm.gamma.data = randn(heads, width, seed=seed + 5)
    for actual, expected in zip(
        FUSED.normalise_heads(qkv, *norms), PLAIN.normalise_heads(qkv, *norms), strict=True
    ):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
