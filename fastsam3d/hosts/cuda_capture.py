"""Records network evaluations as CUDA graphs, see `fastsam3d.hosts.graph_replay`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fastsam3d.hosts.graph_replay import Outputs


class CudaRecording:
    """A CUDA graph and its outputs, which lie in the graph's own memory."""

    def __init__(self, graph: Any, outputs: Outputs) -> None:
        self._graph, self.outputs = graph, outputs

    def replay(self) -> None:
        """Runs it on the current stream, in order with everything before and after."""
        self._graph.replay()


class CudaCapture:
    """Recordings of one stage. They share one private memory pool: only one runs at a time, and what comes out is
    copied before the next one runs."""

    def __init__(self) -> None:
        self._pool: Any = None

    def refusal(self, device: torch.device) -> str | None:
        """Why nothing can be recorded on `device`, or None."""
        return None if device.type == "cuda" else f"{device.type} is not a CUDA device"

    def record(self, function: Callable[[], Outputs]) -> CudaRecording:
        """Calls the function twice: on a stream of its own, so that kernels are compiled and libraries have their
        workspaces, and once more while it is recorded.

        Raises:
            RuntimeError: it waits for the device or copies from the host, which cannot be recorded, or memory ran out.
        """
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        # Autocast must not keep casts that were made inside a graph.
        cache = torch.is_autocast_cache_enabled()
        torch.set_autocast_cache_enabled(False)
        try:
            with torch.cuda.stream(stream):
                function()
            torch.cuda.current_stream().wait_stream(stream)
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            graph = torch.cuda.CUDAGraph()
            # Other threads of a server may use the device meanwhile.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                outputs = function()
        finally:
            torch.set_autocast_cache_enabled(cache)
        return CudaRecording(graph, outputs)

    def release(self) -> None:
        """Returns the pool to the device; recordings must be gone."""
        self._pool = None
        torch.cuda.empty_cache()
