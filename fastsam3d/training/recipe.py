"""The whole training of the small model, stage by stage.

Every stage writes its checkpoints under `output/<stage>`, resumes from there after an interruption, and logs its losses
to `losses.jsonl`. On a CPU the objects are written to shards first; on a GPU they are made there when the run starts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastsam3d.training.options import (
    STAGES,
    ExportOptions,
    RecipeOptions,
    SparseStructureFlowOptions,
    SparseStructureVaeOptions,
    StructuredLatentFlowOptions,
    StructuredLatentVaeOptions,
)

GPU_SETTINGS: dict[str, dict[str, Any]] = {
    "ss_vae": {"batch": 128},
    "ss_flow": {"images": 256, "learning_rate": 1e-3, "matrix_learning_rate": 3e-3, "compile": True},
    "slat_vae": {"batch": 16},
    "slat_flow": {"images": 32, "noises": 4, "learning_rate": 1e-3, "matrix_learning_rate": 2.5e-3},
}
"""What a stage does otherwise on a GPU, where large batches cost little more than small ones."""


def stages_of(options: RecipeOptions) -> list[str]:
    """The stages that are run, in order; on a GPU without that of the data."""
    stages = list(STAGES) if options.stage == "all" else [options.stage]
    return [stage for stage in stages if stage != "data" or options.device == "cpu"]


def stage_settings(stage: str, options: RecipeOptions) -> dict[str, Any]:
    """Settings of a stage that trains, by the names of its options' fields."""
    root = Path(options.output)
    share = STAGES[stage] if options.stage == "all" else 1.0
    settings: dict[str, Any] = {
        "output": str(root / stage),
        "minutes": share * options.minutes,
        "seed": options.seed,
        "device": options.device,
        "model": options.model,
    }
    if options.device != "cpu":
        settings |= {"objects": options.objects, "workers": options.workers, **GPU_SETTINGS[stage]}
    elif stage != "slat_vae":
        settings["data"] = str(root / "data")
    if stage == "ss_flow":
        settings["vae"] = str(root / "ss_vae" / "checkpoint.pt")
    if stage == "slat_flow" and options.stage == "all":
        settings["embedder"] = str(root / "ss_flow" / "checkpoint.pt")
    return settings


def run_stage(stage: str, options: RecipeOptions) -> None:
    """Runs one stage, or goes on with it.

    Raises:
        UserError: what it builds on is missing, or a folder cannot be written.
    """
    from fastsam3d.training import export
    from fastsam3d.training.data import dataset
    from fastsam3d.training.sparse_structure import flow as sparse_structure_flow
    from fastsam3d.training.sparse_structure import vae as sparse_structure_vae
    from fastsam3d.training.structured_latent import flow as structured_latent_flow
    from fastsam3d.training.structured_latent import vae as structured_latent_vae

    root = Path(options.output)
    if stage == "data":
        dataset.generate(root / "data", options.objects, workers=options.workers)
    elif stage == "export":
        export.export(ExportOptions(**{name: str(root / name) for name, share in STAGES.items() if share > 0}))
    elif stage == "ss_vae":
        sparse_structure_vae.train(SparseStructureVaeOptions(**stage_settings(stage, options)))
    elif stage == "ss_flow":
        sparse_structure_flow.train(SparseStructureFlowOptions(**stage_settings(stage, options)))
    elif stage == "slat_vae":
        structured_latent_vae.train(StructuredLatentVaeOptions(**stage_settings(stage, options)))
    elif stage == "slat_flow":
        structured_latent_flow.train(StructuredLatentFlowOptions(**stage_settings(stage, options)))


def run(options: RecipeOptions) -> None:
    """Runs the stages that the options name, or goes on with them.

    Raises:
        UserError: see `run_stage`.
    """
    for stage in stages_of(options):
        run_stage(stage, options)
