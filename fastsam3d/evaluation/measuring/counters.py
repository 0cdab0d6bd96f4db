"""Counts what a run costs beside seconds: network evaluations, tokens and floating-point operations.

The networks of an untouched pipeline are watched from outside. Of an accelerated one its report is believed, because a
call of the network may there stand for both branches, for the layout alone, or for a stack of blocks that was skipped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

STAGES = {"nfe_ss": "ss_generator", "nfe_slat": "slat_generator"}
"""Columns of the network evaluations and the samplers that they belong to."""
STAGE_NAMES = {"ss": "sparse_structure", "slat": "structured_latent"}
COUNTED = ("tflop", "tflop_ss", "tflop_slat")
"""Columns of operations: of everything, and of each velocity network."""
TERA = 1e12


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
        not; "tokens_*": transformer tokens that ran in all passes, of a pass that ran in part that part: patches of the
        shape and latents of the layout in the first stage, occupied cells of 2^3 voxels in the second; "tflop*":
        operations of all networks, and of each velocity network, see `fastsam3d.diffusion.operations`.
    """
    report = acceleration.report() if acceleration is not None else None
    each = {"ss": _structure_tokens(pipeline), "slat": _latent_tokens(result)}
    work: dict[str, float] = {}
    for short, stage in STAGE_NAMES.items():
        done = report.stages.get(stage) if report is not None else None
        reported = done is not None and done.runs > 0
        evaluations = done.evaluations if reported else counts[f"nfe_{short}"]
        work[f"nfe_{short}"] = evaluations
        work[f"tokens_{short}"] = float(done.tokens_computed) if reported else evaluations * each[short]
    by_stage = _untouched(pipeline, result) if report is None else _reported(report)
    by_part = {f"tflop_{short}": by_stage.get(stage, math.nan) for short, stage in STAGE_NAMES.items()}
    return work | {"tflop": sum(by_stage.values()) if by_stage else math.nan, **by_part}


def _reported(report: Any) -> dict[str, float]:
    """TFLOP by stage of a run under acceleration; empty where its host does not know the networks."""
    return {name: part.computed / TERA for name, part in report.network_flops.items()}


def _untouched(pipeline: Any, result: Any) -> dict[str, float]:
    """TFLOP by stage of a run of the untouched pipeline, by the formulas of a report; empty where sizes are unknown."""
    from fastsam3d.evaluation.operations.run import DECODERS, planned_flops

    structure = getattr(result, "structure", None)
    if structure is None or not hasattr(pipeline, "config"):
        return {}
    formats = [name for name, stage in DECODERS.items() if stage in result.stage_seconds]
    layout = getattr(result, "has_layout", True)
    return dict(planned_flops(pipeline, structure.coords, formats=formats, layout=layout).stages)


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


def synchronise(device: str) -> None:
    """Waits until the device has done all its work."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)
