"""`python -m fastsam3d flops`: operations of every stage under every preset, at any size, without weights or a GPU."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from fastsam3d.acceleration.presets import AccelerationConfig, load_preset
from fastsam3d.basics.config_files import preset_names
from fastsam3d.diffusion.exact.switches import ExactConfig
from fastsam3d.diffusion.vocabulary import SPARSE_STRUCTURE, STRUCTURED_LATENT, AccelerationWarning
from fastsam3d.errors import UserError
from fastsam3d.evaluation.operations.counting import ShallowCounter
from fastsam3d.evaluation.operations.options import FlopsOptions
from fastsam3d.evaluation.operations.plan import Plan, Planner
from fastsam3d.evaluation.operations.run import run_flops
from fastsam3d.sam3d.models.config import ModelConfig
from fastsam3d.sam3d.models.flops import SHELL_NEIGHBOURS, SHELL_VOXELS_A_CELL, VoxelCounts

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
    counter, planner = _Counter(config, options.voxels), Planner(config)
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
        rows.append({"acceleration": preset.name} | counter.row(preset, plan))
    plain = load_preset("off")["exact"]
    first, second = (counter.sampling(plain, stage, options.voxels) for stage in (SPARSE_STRUCTURE, STRUCTURED_LATENT))
    return {
        "meta": {
            "model": options.model,
            "voxels": options.voxels,
            "tokens": round(options.voxels / SHELL_VOXELS_A_CELL),
            "untouched_tflop": run_flops(config, options.voxels, formats=("mesh", "gaussian")).total,
            "notes": _notes(config),
        },
        "evaluation_tflop": {
            SPARSE_STRUCTURE: first.later[0] / TERA,
            STRUCTURED_LATENT: second.later[0] / TERA,
        },
        "rows": rows,
    }


class _Counter:
    """Counted networks of one model, each counted once."""

    def __init__(self, config: ModelConfig, voxels: int) -> None:
        self._config, self._voxels = config, voxels
        self._networks: dict[Any, ShallowCounter] = {}
        self._counted: dict[Any, Any] = {}

    def sampling(self, exact: ExactConfig, stage: str, voxels: float) -> Any:
        counts = None if stage == SPARSE_STRUCTURE else VoxelCounts.shell(voxels)
        return self._once((exact, stage, counts), lambda: self._network(exact).sampling(stage, counts))

    def row(self, preset: AccelerationConfig, plan: Plan) -> dict[str, Any]:
        exact, voxels = preset["exact"], self._voxels * plan.voxels_kept
        network, counts = self._network(exact), VoxelCounts.shell(voxels)
        stages = {
            "ss_condition": self._once("ss", lambda: network.embedding(SPARSE_STRUCTURE)),
            SPARSE_STRUCTURE: self.sampling(exact, SPARSE_STRUCTURE, voxels).run(plan.passes[SPARSE_STRUCTURE]),
            "ss_decode": self._once("decoder", network.structure_decoder),
            "slat_condition": self._once("slat", lambda: network.embedding(STRUCTURED_LATENT)),
            STRUCTURED_LATENT: self.sampling(exact, STRUCTURED_LATENT, voxels).run(plan.passes[STRUCTURED_LATENT]),
            "mesh_decode": self._once(("mesh", voxels), lambda: network.decoder("slat_decoder_mesh", counts)),
            "gaussian_decode": self._once(("gs", voxels), lambda: network.decoder("slat_decoder_gs", counts)),
        }
        tflop = {name: value / TERA for name, value in stages.items()}
        latent = plan.passes[STRUCTURED_LATENT]
        passes = latent.conditional + latent.unconditional
        return {
            "evaluations": {stage: int(p.conditional + p.unconditional) for stage, p in plan.passes.items()},
            "layout_passes": plan.layout_passes,
            "tokens_kept": (latent.conditional_tokens + latent.unconditional_tokens) / passes if passes else 1.0,
            "voxels_kept": plan.voxels_kept,
            "tflop": tflop,
            "total_tflop": sum(tflop.values()),
        }

    def _network(self, exact: ExactConfig) -> ShallowCounter:
        if exact not in self._networks:
            self._networks[exact] = ShallowCounter(self._config, exact)
        return self._networks[exact]

    def _once(self, key: Any, count: Any) -> Any:
        if key not in self._counted:
            self._counted[key] = count()
        return self._counted[key]


def _notes(config: ModelConfig) -> list[str]:
    cells, voxels, children, grandchildren = SHELL_NEIGHBOURS
    return [
        "Matrix products of the networks themselves, counted by PyTorch on the meta device, two operations a "
        "multiply-add; a network is counted with one and with two blocks, and its depth follows.",
        f"By formula: sparse convolutions, {voxels:g} occupied neighbours of 27 at voxels, {cells:g} at cells, "
        f"{children:g} and {grandchildren:g} at their children, {SHELL_VOXELS_A_CELL:g} voxels a cell (surfaces).",
        "Evaluations, tokens and voxels that a preset keeps are those of its own policies on a run of the shipped "
        f"small model at {config.ss_sampler.inference_steps} and {config.slat_sampler.inference_steps} steps; where a "
        "policy decides by what it sees, another object differs a little. One object, so nothing is shared; "
        "passes of the layout's four tokens alone are left out.",
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
