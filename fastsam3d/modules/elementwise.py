"""Operations of a transformer block between its matrix products: one by one, or fused on a GPU.

Those products are fast enough on a GPU that the operations between them take a third of the time if each reads and
writes its tensors anew. `PLAIN` is the definition; `FUSED` gives the same up to rounding, with one kernel a line of
the block. `operations_for` chooses.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fastsam3d.modules.layers import LayerNorm32, MultiHeadRMSNorm, modulate

logger = logging.getLogger(__name__)

HALF = (torch.float16, torch.bfloat16)


class Operations(Protocol):
    """`h`, `update` `[B, T, C]`; `gate`, `shift`, `scale` `[B, C]`."""

    def normalise(
        self, h: Tensor, norm: LayerNorm32, shift: Tensor | None = None, scale: Tensor | None = None
    ) -> Tensor:
        """`norm(h)`, with `(1 + scale)` and `shift` where they are given."""

    def add(self, h: Tensor, update: Tensor, gate: Tensor) -> Tensor:
        """`h + gate * update`."""

    def add_normalise(
        self,
        h: Tensor,
        update: Tensor,
        gate: Tensor | None,
        norm: LayerNorm32,
        shift: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """`h + gate * update` (without `gate`: `h + update`), and that after `normalise`."""

    def normalise_heads(self, qkv: Tensor, q_norm: nn.Module, k_norm: nn.Module) -> tuple[Tensor, Tensor]:
        """Queries and keys of `[B, T, 3, H, D]`, each through its `MultiHeadRMSNorm`: two of `[B, T, H, D]`."""


class Plain:
    """Plain PyTorch operations: the definition."""

    def normalise(
        self, h: Tensor, norm: LayerNorm32, shift: Tensor | None = None, scale: Tensor | None = None
    ) -> Tensor:
        normalised = norm(h)
        return normalised if shift is None or scale is None else modulate(normalised, shift, scale)

    def add(self, h: Tensor, update: Tensor, gate: Tensor) -> Tensor:
        return h + gate.unsqueeze(1) * update

    def add_normalise(
        self,
        h: Tensor,
        update: Tensor,
        gate: Tensor | None,
        norm: LayerNorm32,
        shift: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        h = h + update if gate is None else self.add(h, update, gate)
        return h, self.normalise(h, norm, shift, scale)

    def normalise_heads(self, qkv: Tensor, q_norm: nn.Module, k_norm: nn.Module) -> tuple[Tensor, Tensor]:
        q, k, _ = qkv.unbind(dim=2)
        return q_norm(q), k_norm(k)


class Fused:
    """The same in Triton kernels; statistics and sums in fp32, results in the type that the next product takes."""

    def normalise(
        self, h: Tensor, norm: LayerNorm32, shift: Tensor | None = None, scale: Tensor | None = None
    ) -> Tensor:
        return self._run(h, None, None, norm, shift, scale)[1]

    def add(self, h: Tensor, update: Tensor, gate: Tensor) -> Tensor:
        return self._run(h, update, gate, None, None, None)[0]

    def add_normalise(
        self,
        h: Tensor,
        update: Tensor,
        gate: Tensor | None,
        norm: LayerNorm32,
        shift: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        return self._run(h, update, gate, norm, shift, scale)

    def normalise_heads(self, qkv: Tensor, q_norm: nn.Module, k_norm: nn.Module) -> tuple[Tensor, Tensor]:
        from fastsam3d.modules import fused_kernels

        with _on(qkv.device):
            return fused_kernels.normalise_heads(qkv.contiguous(), q_norm.gamma, k_norm.gamma, q_norm.scale)

    @staticmethod
    def _run(
        h: Tensor,
        update: Tensor | None,
        gate: Tensor | None,
        norm: LayerNorm32 | None,
        shift: Tensor | None,
        scale: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        from fastsam3d.modules import fused_kernels

        if update is not None:
            update = _dense_channels(update if update.shape == h.shape else update.expand_as(h))
        gate = None if gate is None else _dense_channels(gate)
        parameters = None if norm is None else _affine_form(h, norm, shift, scale)
        with _on(h.device):
            summed, normalised = fused_kernels.add_normalise(h.contiguous(), update, gate, parameters, compute_dtype(h))
        return summed, summed if normalised is None else normalised


def _dense_channels(x: Tensor) -> Tensor:
    """`x [..., C]` with its channels next to each other in memory, which the kernels assume."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _affine_form(
    h: Tensor, norm: LayerNorm32, shift: Tensor | None, scale: Tensor | None
) -> tuple[Tensor, Tensor, float, float]:
    """`Plain.normalise` as `layer_norm(h) * (offset + a) + b`: (a, b, offset, eps), `a` and `b` `[B, C]` or `[C]`."""
    if shift is None or scale is None:
        if norm.weight is None:
            zeros = h.new_zeros(h.shape[-1])
            return zeros, zeros, 1.0, norm.eps
        return norm.weight, norm.bias, 0.0, norm.eps
    if norm.weight is None:
        return _dense_channels(scale), _dense_channels(shift), 1.0, norm.eps
    factor = 1 + scale.float()
    return norm.weight * factor, norm.bias * factor + shift, 0.0, norm.eps


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Makes the tensors' device the current one, because Triton launches there; PyTorch needs no such help."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


PLAIN, FUSED = Plain(), Fused()


def operations_for(h: Tensor, allowed: bool = True) -> Operations:
    """Fused operations where a GPU computes in half precision without gradients, else the plain ones."""
    if not allowed or h.device.type != "cuda" or torch.is_grad_enabled() or compute_dtype(h) not in HALF:
        return PLAIN
    return FUSED if fused_kernels_work(h.device) else PLAIN


def compute_dtype(h: Tensor) -> torch.dtype:
    """The type that a matrix product of `h` runs in."""
    kind = h.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else h.dtype


@functools.cache
def fused_kernels_work(device: torch.device) -> bool:
    """Tells whether Triton is there and its kernels run and agree with the plain operations on this device."""
    if importlib.util.find_spec("triton") is None:
        return False
    generator = torch.Generator().manual_seed(0)
    h, update = (torch.randn(2, 3, 48, generator=generator).to(device) for _ in range(2))
    gate, shift, scale = (torch.randn(2, 48, generator=generator).to(device) for _ in range(3))
    qkv = torch.randn(2, 3, 3, 3, 16, generator=generator).to(device)
    norm, heads = LayerNorm32(48, affine=False), MultiHeadRMSNorm(16, 3).to(device)

    def results(operations: Operations) -> list[Tensor]:
        summed = operations.add_normalise(h, update, gate, norm, shift, scale)
        return [*summed, *operations.normalise_heads(qkv, heads, heads)]

    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            pairs = zip(results(FUSED), results(PLAIN), strict=True)
            agree = all(torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in pairs)
    except Exception as error:  # whatever a compiler tool chain may raise: the plain operations do the same
        logger.warning("Triton kernels do not run on %s (%s); the plain operations are used", device, error)
        return False
    if not agree:
        logger.warning("Triton kernels on %s disagree with the plain operations, which are used instead", device)
    return agree


def set_fused(network: nn.Module, fused: bool) -> None:
    """Allows or forbids fused operations in every block of a network that has them. Allowed by default."""
    for module in network.modules():
        if hasattr(type(module), "fused"):
            setattr(module, "fused", fused)  # noqa: B010 - PyTorch types attributes of modules as tensors
