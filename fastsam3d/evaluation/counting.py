"""What a run costs beside seconds: network evaluations, tokens, floating-point operations, peak memory.

Everything here watches the networks and the process from outside and does not ask a technique what it says of itself;
only the tokens of a carved evaluation, which nobody outside can see, come from the acceleration's own report.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STAGES = {"nfe_ss": "ss_generator", "nfe_slat": "slat_generator"}
"""Columns of the network evaluations and the samplers that they belong to."""
TOKENS = {"tokens_ss": ("nfe_ss", "sparse_structure"), "tokens_slat": ("nfe_slat", "structured_latent")}
COUNTED = ("tflop", "tflop_ss", "tflop_slat")
"""Columns of counted operations: everything, and what ran inside each velocity network."""
MEBIBYTE = 2**20


def backbones(pipeline: Any) -> dict[str, Any]:
    """The velocity networks of both stages by their column."""
    return {column: pipeline.models[name].reverse_fn.backbone for column, name in STAGES.items()}


@contextmanager
def counted_evaluations(pipeline: Any) -> Iterator[dict[str, int]]:
    """Counts, from zero, the network evaluations of both stages, conditional and unconditional ones alike.

    An evaluation on a part of the tokens counts as one.
    """
    counts = dict.fromkeys(STAGES, 0)

    def count_into(column: str) -> Any:
        def count(_module: Any, arguments: Any) -> None:
            state = arguments[0]
            # Both branches may go through in one pass, as a batch of two.
            counts[column] += len(next(iter(state.values())) if isinstance(state, dict) else state)

        return count

    handles = [network.register_forward_pre_hook(count_into(name)) for name, network in backbones(pipeline).items()]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def counted_flops(pipeline: Any) -> Iterator[dict[str, float]]:
    """Counts, from zero, the floating-point operations of matrix products, convolutions and attention, in TFLOP.

    "tflop" is everything that ran inside, "tflop_ss" and "tflop_slat" what ran inside the velocity networks; the
    values are there when the context has ended. A multiplication with its addition is two operations. Counting takes
    time: what is counted is not timed.
    """
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False, custom_mapping=_attention_on_the_cpu())
    totals = {"tflop": 0.0, "tflop_ss": 0.0, "tflop_slat": 0.0}
    started = [0]

    def begin(_module: Any, _arguments: Any) -> None:
        started[0] = counter.get_total_flops()

    def end_into(column: str) -> Any:
        def end(_module: Any, _arguments: Any, _output: Any) -> None:
            totals[column] += (counter.get_total_flops() - started[0]) / 1e12

        return end

    handles = []
    for name, network in backbones(pipeline).items():
        handles.append(network.register_forward_pre_hook(begin))
        handles.append(network.register_forward_hook(end_into(name.replace("nfe", "tflop"))))
    try:
        with counter:
            yield totals
        totals["tflop"] = counter.get_total_flops() / 1e12
    finally:
        for handle in handles:
            handle.remove()


def _attention_on_the_cpu() -> dict[Any, Any]:
    """Formulas for the attention kernels that PyTorch's counter does not know: 2 products of [L, D] with [S, D]."""
    import torch

    def count(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
        *batch, length, width = query
        return 2 * math.prod(batch) * length * key[-2] * (width + value[-1])

    names = ("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_attention_math")
    return {getattr(torch.ops.aten, name): count for name in names if hasattr(torch.ops.aten, name)}


def counted_tokens(pipeline: Any, result: Any, counts: Mapping[str, int], acceleration: Any) -> dict[str, float]:
    """Transformer tokens that both stages computed, all evaluations together; NaN where a pipeline does not say.

    Of the first stage a token is a patch of the shape or one latent of the layout, of the second an occupied cell of
    2^3 voxels.
    """
    stages = acceleration.report().stages if acceleration is not None else {}
    each = {"tokens_ss": _structure_tokens(pipeline), "tokens_slat": _latent_tokens(result)}
    tokens = {}
    for column, (evaluations, stage) in TOKENS.items():
        reported = stages[stage].tokens_computed if stage in stages else 0
        tokens[column] = float(reported) if reported else counts[evaluations] * each[column]
    return tokens


def layout_evaluations(acceleration: Any) -> int:
    """Passes of the layout's few tokens alone, which the networks were called for but which are no evaluations."""
    stages = acceleration.report().stages if acceleration is not None else {}
    return sum(getattr(stage, "layout_evaluations", 0) for stage in stages.values())


def _structure_tokens(pipeline: Any) -> float:
    shapes = getattr(backbones(pipeline)["nfe_ss"], "latent_shapes", None)
    return math.nan if shapes is None else float(sum(shape[1] for shape in shapes(1).values()))


def _latent_tokens(result: Any) -> float:
    structure = getattr(result, "structure", None)
    if structure is None:
        return math.nan
    cells = structure.coords.clone()
    cells[:, 1:] //= 2
    return float(len(cells.unique(dim=0)))


class PeakMemory:
    """Context manager that measures the most memory held inside it: `mebibytes`, NaN where the system does not tell.

    On a CUDA device what PyTorch allocated there; on the CPU the resident memory of the whole process, weights and
    interpreter included (Linux only: elsewhere the peak cannot be set back between runs).
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._cuda = device.startswith("cuda")
        self.mebibytes = math.nan

    def __enter__(self) -> PeakMemory:
        if self._cuda:
            import torch

            torch.cuda.reset_peak_memory_stats(self._device)
        elif sys.platform == "linux":
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back to what is resident now
        return self

    def __exit__(self, *_: object) -> None:
        if self._cuda:
            import torch

            self.mebibytes = torch.cuda.max_memory_allocated(self._device) / MEBIBYTE
        elif sys.platform == "linux":
            with contextlib.suppress(OSError, ValueError, IndexError):
                status = Path("/proc/self/status").read_text()
                self.mebibytes = int(status.split("VmHWM:")[1].split()[0]) / 1024


def synchronise(device: str) -> None:
    """Wait until the device has done all its work."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)
