"""What a run costs beside seconds: network evaluations, tokens, floating-point operations, peak memory.

The networks of an untouched pipeline are watched from outside. Of an accelerated one its report is believed, because a
call of the network may there stand for both branches, for the layout alone, or for a stack of blocks that was skipped.
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
STAGE_NAMES = {"ss": "sparse_structure", "slat": "structured_latent"}
COUNTED = ("tflop", "tflop_ss", "tflop_slat")
"""Columns of operations: of everything, and of each velocity network."""
MEBIBYTE = 2**20


def backbones(pipeline: Any) -> dict[str, Any]:
    """The velocity networks of both stages by their column."""
    return {column: pipeline.models[name].reverse_fn.backbone for column, name in STAGES.items()}


@contextmanager
def counted_evaluations(pipeline: Any) -> Iterator[dict[str, int]]:
    """Counts, from zero, the calls of the networks of both stages."""
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


def counted_work(pipeline: Any, result: Any, counts: Mapping[str, int], acceleration: Any) -> dict[str, float]:
    """Evaluations, tokens and operations of one run, by column; NaN where a pipeline does not say.

    Args:
        counts: of `counted_evaluations` around the run.
        acceleration: that was attached for this run alone, or None.

    Returns:
        "nfe_*": network evaluations of both branches, those on a part of the tokens included, those of the layout alone
        not; "tokens_*": transformer tokens of all of them, patches of the shape and latents of the layout in the first
        stage, occupied cells of 2^3 voxels in the second; "tflop*": see `fastsam3d.evaluation.operations.run`.
    """
    report = acceleration.report() if acceleration is not None else None
    each = {"ss": _structure_tokens(pipeline), "slat": _latent_tokens(result)}
    work: dict[str, float] = {}
    for short, stage in STAGE_NAMES.items():
        done = report.stages.get(stage) if report is not None else None
        reported = done is not None and done.runs > 0
        evaluations = done.evaluations if reported else counts[f"nfe_{short}"]
        tokens = done.tokens_computed if reported else 0
        work[f"nfe_{short}"] = evaluations
        work[f"tokens_{short}"] = float(tokens) if tokens else evaluations * each[short]
    return work | _operations(pipeline, result, report)


def _operations(pipeline: Any, result: Any, report: Any) -> dict[str, float]:
    from fastsam3d.evaluation.operations.run import run_flops

    structure = getattr(result, "structure", None)
    if structure is None or not hasattr(pipeline, "config"):
        return dict.fromkeys(COUNTED, math.nan)
    operations = run_flops(pipeline, structure.coords, report)
    by_stage = {f"tflop_{short}": operations.stages[stage] for short, stage in STAGE_NAMES.items()}
    return {"tflop": operations.total, **by_stage}


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
