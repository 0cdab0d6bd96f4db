"""What a transformer block does between its matrix products: in separate operations, or fused on a GPU.

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

from fastsam3d.modules.layers import LayerNorm32, modulate

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
    """The definition."""

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

        if update is not None and update.stride(-1) != 1:
            update = update.contiguous()
        parameters = None
        if norm is not None and shift is not None and scale is not None:
            parameters = (scale, shift, 1.0, norm.eps)
        elif norm is not None:
            parameters = (norm.weight, norm.bias, 0.0, norm.eps)
        with _on(h.device):
            summed, normalised = fused_kernels.add_normalise(h.contiguous(), update, gate, parameters, compute_dtype(h))
        return summed, summed if normalised is None else normalised


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Triton launches on the current device, whichever holds the tensors; PyTorch's own operations see to that."""
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
    """Whether Triton is there and its kernels compile, run and agree with the plain operations on this device."""
    if importlib.util.find_spec("triton") is None:
        return False
    generator = torch.Generator().manual_seed(0)
    h, update = (torch.randn(2, 3, 48, generator=generator).to(device) for _ in range(2))
    gate, shift, scale = (torch.randn(2, 48, generator=generator).to(device) for _ in range(3))
    norm = LayerNorm32(48, affine=False)
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            expected = PLAIN.add_normalise(h, update, gate, norm, shift, scale)
            actual = FUSED.add_normalise(h, update, gate, norm, shift, scale)
            agree = all(torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in zip(actual, expected, strict=True))
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
