"""Records network evaluations as CUDA graphs, see `fastsam3d.diffusion.exact.graphs.replay`."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import torch

from fastsam3d.diffusion.exact.graphs.replay import Outputs

_recording = threading.Lock()
"""PyTorch allows one recording at a time in a process."""


@functools.cache
def recording_stream(device: int) -> Any:
    """The one stream on which everything is recorded on a device.

    Libraries keep a workspace of tens of MiB for every stream that they have seen, as long as the process lives.
    """
    return torch.cuda.Stream(device)


class CudaRecording:
    """A CUDA graph and its outputs, which lie in the graph's own memory."""

    def __init__(self, graph: Any, outputs: Outputs) -> None:
        self._graph, self.outputs = graph, outputs

    def replay(self) -> None:
        """Runs the graph on the current stream, in order with everything before and after."""
        self._graph.replay()


class CudaCapture:
    """Records on one device. Recordings share a private memory pool: their results are copied before the next runs.

    Args:
        device: that the network computes on.
    """

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self._pool: Any = None

    @property
    def refusal(self) -> str | None:
        """Returns the reason why nothing can be recorded on the device; None where it can."""
        return None if self.device.type == "cuda" else f"{self.device.type} is not a CUDA device"

    def record(self, function: Callable[[], Outputs]) -> CudaRecording:
        """Calls the function twice on its own stream: first to compile kernels, then while it is recorded.

        Raises:
            RuntimeError: it waits for the device or copies from the host, which cannot be recorded, or memory ran out.
        """
        with _recording, torch.cuda.device(self.device):
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            stream = recording_stream(torch.cuda.current_device())
            current, cache = torch.cuda.current_stream(), torch.is_autocast_cache_enabled()
            # Autocast must not keep casts that were made inside a graph.
            torch.set_autocast_cache_enabled(False)
            try:
                stream.wait_stream(current)
                with torch.cuda.stream(stream):
                    function()
                current.wait_stream(stream)
                graph = torch.cuda.CUDAGraph()
                # Other threads of a server may use the device meanwhile.
                with torch.cuda.graph(graph, self._pool, stream, capture_error_mode="thread_local"):
                    outputs = function()
            finally:
                torch.set_autocast_cache_enabled(cache)
                # A recording that failed leaves its own stream behind as the current one.
                torch.cuda.set_stream(current)
        return CudaRecording(graph, outputs)

    def release(self) -> None:
        """Returns the pool to the device; recordings must be gone."""
        if self._pool is not None:
            self._pool = None
            torch.cuda.empty_cache()
