"""Short measurements that explain a full-size run: what the card can do, and which way of running a step is fastest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def milliseconds(function: Callable[[], Any], repeats: int = 5, warmup: int = 2) -> float:
    """Median time of a call on the device, by events."""
    for _ in range(warmup):
        function()
    times = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        function()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return sorted(times)[len(times) // 2]


def ceilings(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """Rate of a large matrix product, TFLOP/s, and of a large copy, TB/s (bytes read plus bytes written)."""
    size = 8192
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    product = milliseconds(lambda: a @ b)
    source = torch.empty(1 << 30, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    copy = milliseconds(lambda: target.copy_(source))
    return {"matrix_tflops": 2 * size**3 / product / 1e9, "copy_tbs": 2 * source.nbytes / copy / 1e9}


def attention(device: torch.device, dtype: torch.dtype, shapes: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """Milliseconds and TFLOP/s of attention (16 heads of 64) by shape and kernel; None where a kernel refuses."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    kernels = {
        "default": None,
        "cudnn": SDPBackend.CUDNN_ATTENTION,
        "flash": SDPBackend.FLASH_ATTENTION,
        "efficient": SDPBackend.EFFICIENT_ATTENTION,
    }
    results: dict[str, Any] = {}
    for name, (queries, keys) in shapes.items():
        # Laid out as the networks have them: heads beside each other in a row.
        q = torch.randn(1, queries, 16, 64, device=device, dtype=dtype).transpose(1, 2)
        k, v = (torch.randn(1, keys, 16, 64, device=device, dtype=dtype).transpose(1, 2) for _ in range(2))
        for kernel, backend in kernels.items():
            try:
                if backend is None:
                    taken = milliseconds(lambda: F.scaled_dot_product_attention(q, k, v))  # noqa: B023
                else:
                    with sdpa_kernel(backend):
                        taken = milliseconds(lambda: F.scaled_dot_product_attention(q, k, v))  # noqa: B023
            except RuntimeError:
                results[f"{name} {kernel}"] = None
                continue
            results[f"{name} {kernel}"] = {"ms": taken, "tflops": 4 * queries * keys * 1024 / taken / 1e9}
    return results


@torch.no_grad()
def structure_step(pipeline: Any, condition: Tensor) -> dict[str, Any]:
    """Milliseconds of one conditional evaluation of the first stage's network: plain, fused, and as a CUDA graph."""
    from fastsam3d.modules.elementwise import set_fused

    backbone = pipeline.models["ss_generator"].reverse_fn.backbone
    device = pipeline.device
    x = {name: torch.randn(shape, device=device) for name, shape in backbone.latent_shapes().items()}
    time = torch.full((1,), 300.0, device=device)

    def evaluate() -> Any:
        with torch.autocast(device.type, pipeline.autocast, enabled=pipeline.autocast is not None):
            return backbone(x, time, condition)

    results: dict[str, Any] = {}
    try:
        set_fused(backbone, False)
        results["plain"] = milliseconds(evaluate)
    finally:
        set_fused(backbone, True)
    results["fused"] = milliseconds(evaluate)
    try:
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            evaluate()
        torch.cuda.current_stream(device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            evaluate()
        results["fused, CUDA graph"] = milliseconds(graph.replay)
        del graph
    except Exception as error:
        results["fused, CUDA graph"] = None
        results["graph error"] = str(error).splitlines()[0]
        torch.cuda.synchronize(device)
    return results
