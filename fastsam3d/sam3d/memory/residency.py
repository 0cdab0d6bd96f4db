"""Places a pipeline's weights: all on the device, or on the host with one stage's on the device at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fastsam3d.modules.tensor_versions import count_change

RUN_ORDER = (
    "ss_condition_embedder",
    "ss_generator",
    "ss_decoder",
    "slat_condition_embedder",
    "slat_generator",
    "slat_decoder_mesh",
    "slat_decoder_gs",
)
"""Networks in the order in which a run needs them."""
ALIGNMENT = 64
"""Elements; every tensor of a packed network begins at a multiple, as kernels like it."""


class Residency(Protocol):
    """Makes sure that a network's weights are on the device while it runs."""

    def using(self, name: str, *, last: bool = False) -> Any:
        """Context in which network `name` is on the device. `last`: no other network follows in this run."""

    def running(self) -> Any:
        """Context of a whole run; nothing that was copied ahead outlives it."""


class Resident:
    """All weights stay on the device."""

    @contextmanager
    def using(self, name: str, *, last: bool = False) -> Iterator[None]:
        """Does nothing: all weights are on the device."""
        yield

    @contextmanager
    def running(self) -> Iterator[None]:
        """Does nothing: all weights are on the device."""
        yield


@dataclass
class _Part:
    """Tensors of one dtype of one network, packed on the host: one copy moves them all."""

    tensors: list[Tensor]
    offsets: list[int]
    host: Tensor

    def take_over(self) -> None:
        """Copies in what somebody has assigned to a tensor (`parameter.data = values`) while it was on the host."""
        size = self.host.element_size()
        for tensor, offset in zip(self.tensors, self.offsets, strict=True):
            place = self.host.data_ptr() + offset * size
            if tensor.numel() and tensor.data_ptr() != place:
                own = self.host[offset : offset + tensor.numel()]
                own.copy_(tensor.detach().flatten())
                tensor.data = own.view(tensor.shape)
                count_change([tensor])

    def point_to(self, packed: Tensor) -> None:
        for tensor, offset in zip(self.tensors, self.offsets, strict=True):
            tensor.data = packed[offset : offset + tensor.numel()].view(tensor.shape)


class StagedWeights:
    """Weights live on the host; a network's are on the device while it is used, and no longer.

    On a CUDA device they lie in pinned memory and are copied on a stream of their own. With `overlap` the network
    that is used next is copied while the present one computes, at the price of both on the device together.

    Args:
        networks: by name, on any device; their tensors are moved to the host.
        device: that they compute on.
        overlap: copy ahead.
    """

    def __init__(self, networks: Mapping[str, nn.Module], device: torch.device, overlap: bool = True) -> None:
        self.device, self.overlap = device, overlap
        self.order = [name for name in RUN_ORDER if name in networks]
        self._pinned = device.type == "cuda" and torch.cuda.is_available()
        self._parts = {name: self._pack(networks[name]) for name in self.order}
        self._loaded: dict[str, Any] = {}
        self._uses: dict[str, int] = {}
        self._stream: Any = torch.cuda.Stream(device) if self._pinned else None

    @property
    def on_device(self) -> tuple[str, ...]:
        """Networks whose weights are on the device at the moment."""
        return tuple(self._loaded)

    @contextmanager
    def using(self, name: str, *, last: bool = False) -> Iterator[None]:
        """The network's weights are on the device inside. May be nested, also for one and the same network."""
        self._fetch(name)
        if self._loaded[name] is not None:
            torch.cuda.current_stream(self.device).wait_event(self._loaded[name])
        self._uses[name] = self._uses.get(name, 0) + 1
        try:
            if self.overlap and not last:
                following = self.order.index(name) + 1
                if following < len(self.order):
                    self._fetch(self.order[following])
            yield
        finally:
            self._uses[name] -= 1
            if self._uses[name] == 0:
                self._release(name)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Takes weights that were copied ahead in vain off the device at the end, also after an error."""
        try:
            yield
        finally:
            for name in [name for name in self._loaded if not self._uses.get(name)]:
                self._release(name)

    def _pack(self, network: nn.Module) -> list[_Part]:
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for tensor in (*network.parameters(), *network.buffers()):
            by_type.setdefault(tensor.dtype, []).append(tensor)
        parts = []
        for dtype, tensors in by_type.items():
            offsets, size = [], 0
            for tensor in tensors:
                offsets.append(size)
                size += -(-tensor.numel() // ALIGNMENT) * ALIGNMENT
            host = torch.empty(size, dtype=dtype, device="cpu", pin_memory=self._pinned)
            for tensor, offset in zip(tensors, offsets, strict=True):
                host[offset : offset + tensor.numel()].copy_(tensor.detach().flatten())
            part = _Part(tensors, offsets, host)
            part.point_to(host)
            parts.append(part)
        return parts

    def _fetch(self, name: str) -> None:
        if name in self._loaded:
            return
        for part in self._parts[name]:
            part.take_over()
        # Memory is taken on the stream that computes, which also gives it back; only the copy runs beside it.
        packed = [torch.empty_like(part.host, device=self.device, pin_memory=False) for part in self._parts[name]]
        event = None
        if self._stream is None:
            for part, target in zip(self._parts[name], packed, strict=True):
                target.copy_(part.host)
        else:
            self._stream.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(self._stream):
                for part, target in zip(self._parts[name], packed, strict=True):
                    target.copy_(part.host, non_blocking=True)
                event = self._stream.record_event()
        for part, target in zip(self._parts[name], packed, strict=True):
            part.point_to(target)
        self._loaded[name] = event

    def _release(self, name: str) -> None:
        event = self._loaded.pop(name, None)
        if event is not None:
            # A copy that was never used may still be under way when its memory is given to somebody else.
            torch.cuda.current_stream(self.device).wait_event(event)
        for part in self._parts[name]:
            part.point_to(part.host)
