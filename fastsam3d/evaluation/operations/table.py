"""`python -m fastsam3d flops`: operations of every stage under every preset, at any size, without weights or a GPU."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from fastsam3d.acceleration.presets import AccelerationConfig, load_preset
from fastsam3d.basics.config_files import preset_names
from fastsam3d.diffusion.vocabulary import SPARSE_STRUCTURE, STAGES, STRUCTURED_LATENT, AccelerationWarning
from fastsam3d.errors import UserError
from fastsam3d.evaluation.operations.options import FlopsOptions
from fastsam3d.evaluation.operations.plan import Plan, Planner
from fastsam3d.evaluation.operations.run import DECODERS, planned_flops
from fastsam3d.sam3d.models.config import ModelConfig
from fastsam3d.sam3d.models.flops import SHELL_NEIGHBOURS, SHELL_VOXELS_A_CELL, ModelFlops, VoxelCounts

TERA = 1e12
ALL = "all"
STAGE_HEADS = {
    "ss_condition": "encoder SS",
    "sparse_structure": "structure",
    "ss_decode": "its decoder",
    "slat_condition": "encoder SLaT",
    "structured_latent": "latents",
    "mesh_decode": "mesh",
    "gaussian_decode": "Gaussians",
}


def count_presets(options: FlopsOptions) -> dict[str, Any]:
    """The table as plain values: `meta`, `evaluation_tflop` of one plain pass a stage, and `rows`, one a preset."""
    from fastsam3d.sam3d.checkpoints.loading import model_config

    config = model_config(options.model)
    names = preset_names() if ALL in options.acceleration else options.acceleration
    presets = [load_preset(name) for name in names]
    planner, costs = Planner(config), ModelFlops(config)
    rows = []
    for preset in presets:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", AccelerationWarning)
                plan = planner.plan(preset, options.voxels)
        except UserError:
            if ALL not in options.acceleration:
                raise
            continue  # one of many that the small model cannot show
        rows.append({"acceleration": preset.name} | _row(config, preset, plan, options.voxels))
    one = {stage: costs.sampling(stage, VoxelCounts.shell(options.voxels)).total / TERA for stage in STAGES}
    return {
        "meta": {
            "model": options.model,
            "voxels": options.voxels,
            "tokens": round(options.voxels / SHELL_VOXELS_A_CELL),
            "untouched_tflop": planned_flops(config, options.voxels, formats=tuple(DECODERS)).total,
            "notes": _notes(config),
        },
        "evaluation_tflop": one,
        "rows": rows,
    }


def _row(config: ModelConfig, preset: AccelerationConfig, plan: Plan, voxels: float) -> dict[str, Any]:
    exact = [name for name, on in vars(preset["exact"]).items() if on]
    left = voxels * plan.voxels_kept
    flops = planned_flops(config, left, plan.passes, exact=exact, steps=plan.steps, formats=tuple(DECODERS))
    return {
        "evaluations": plan.evaluations,
        "layout_passes": plan.layout_passes,
        "tokens_kept": plan.tokens_kept,
        "voxels_kept": plan.voxels_kept,
        "tflop": dict(flops.stages),
        "total_tflop": flops.total,
    }


def _notes(config: ModelConfig) -> list[str]:
    cells, voxels, children, grandchildren = SHELL_NEIGHBOURS
    return [
        "Matrix products of the networks from their sizes, two operations a multiply-add, as reports count them.",
        f"Sparse convolutions: {voxels:g} occupied neighbours of 27 at voxels, {cells:g} at cells, "
        f"{children:g} and {grandchildren:g} at their children, {SHELL_VOXELS_A_CELL:g} voxels a cell (surfaces).",
        "Evaluations, tokens and voxels that a preset keeps are those of its own policies on a run of the shipped "
        f"small model at {config.ss_sampler.inference_steps} and {config.slat_sampler.inference_steps} steps; where a "
        "policy decides by what it sees, another object differs a little. One object, so nothing is shared.",
    ]


def render(table: Mapping[str, Any]) -> str:
    """The table for people."""
    meta, each = table["meta"], table["evaluation_tflop"]
    shown = [name for name in STAGE_HEADS if any(row["tflop"][name] for row in table["rows"])]
    head = ["preset", "SS", "SLaT", "tokens", "voxels", *(STAGE_HEADS[name] for name in shown), "total", "saved"]
    lines = []
    for row in table["rows"]:
        counts = [str(row["evaluations"][stage]) for stage in (SPARSE_STRUCTURE, STRUCTURED_LATENT)]
        shares = [f"{row['tokens_kept']:.0%}", f"{row['voxels_kept']:.0%}"]
        parts = [_number(row["tflop"][name]) for name in shown]
        saved = f"{max(0.0, 1 - row['total_tflop'] / meta['untouched_tflop']):.0%}"
        lines.append([row["acceleration"], *counts, *shares, *parts, _number(row["total_tflop"]), saved])
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]

    def text(line: Sequence[str]) -> str:
        cells = [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]
        return "  ".join(cells)

    title = f"TFLOP of one object: {meta['model']}, {meta['voxels']:,} voxels in {meta['tokens']:,} tokens"
    one = ", ".join(f"{STAGE_HEADS[name]} {_number(value)}" for name, value in each.items())
    above = "runs".center(widths[1] + widths[2] + 2)
    kept = "kept".center(widths[3] + widths[4] + 2)
    lines_above = " " * (widths[0] + 2) + above + "  " + kept
    rule = "─" * len(text(head))
    notes = [f"- {note}" for note in meta["notes"]]
    body = [lines_above.rstrip(), text(head), rule, *map(text, lines), rule]
    wrapped = [textwrap.fill(note, 110, subsequent_indent="  ") for note in notes]
    return "\n".join([title, f"one plain evaluation: {one}", "", *body, *wrapped])


def _number(value: float) -> str:
    return f"{value:.1f}" if value >= 100 else f"{value:.2f}" if value >= 1 else f"{value:.3g}"
