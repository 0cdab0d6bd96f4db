"""`python -m fastsam3d train`: trains the mini model stage by stage, or one stage of it.

    python -m fastsam3d train output=runs minutes=180                all stages, sharing the time
    python -m fastsam3d train stage=ss_flow output=runs minutes=90   one stage
    python -m fastsam3d train device=cuda objects=200000 workers=16 minutes=10

On a CPU the objects are written to shards first; on a GPU they are made there when the run starts.

Every stage writes its checkpoints under `output/<stage>`, resumes from there after an interruption, and logs its
losses to `losses.jsonl`, which `python -m fastsam3d.training.loss_curves log=FILE` draws.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

from fastsam3d.basics.options import describe_options, number_from, option, parse_options, whole

STAGES = {"data": 0.0, "ss_vae": 0.07, "slat_vae": 0.15, "ss_flow": 0.48, "slat_flow": 0.30, "export": 0.0}
"""Stages in order, with the share of the minutes that each takes of a whole run."""

MODULES = {
    "data": "dataset",
    "ss_vae": "sparse_structure_vae",
    "ss_flow": "sparse_structure_flow",
    "slat_vae": "structured_latent_vae",
    "slat_flow": "structured_latent_flow",
    "export": "export",
}
"""Module of `fastsam3d.training` whose command line runs a stage."""

GPU_SETTINGS = {
    "ss_vae": ["--batch", "128"],
    "ss_flow": ["--images", "256", "--learning-rate", "1e-3", "--matrix-learning-rate", "3e-3", "--compile"],
    "slat_vae": ["--batch", "16"],
    "slat_flow": ["--images", "32", "--noises", "4", "--learning-rate", "1e-3", "--matrix-learning-rate", "2.5e-3"],
}
"""What a stage does otherwise on a GPU, where large batches cost little more than small ones."""

COMMAND = "python -m fastsam3d train"
ABOUT = (
    "Trains the mini model on procedural objects. Interrupt and repeat the command to resume.\n"
    "python -m fastsam3d.training.loss_curves log=OUTPUT/STAGE/losses.jsonl draws the losses of a stage."
)


def _stage(text: str) -> str:
    if text not in (*STAGES, "all"):
        raise ValueError(f"all, {', '.join(STAGES)}")
    return text


@dataclass(frozen=True)
class TrainOptions:
    """Options of the training."""

    stage: str = option("all", _stage, f"{', '.join(STAGES)}, or all of them in this order")
    output: str = option("runs", str, "folder of checkpoints, logs and data")
    minutes: float = option(180.0, number_from(0.001, 1e5), "training time; a whole run shares it between its stages")
    objects: int = option(24_000, whole(0), "procedural training objects")
    workers: int = option(1, whole(0), "processes that generate them")
    seed: int = option(0, whole(0), "of weights and batches")
    device: str = option("cpu", str, "cpu or cuda")
    model: str = option("mini", str, "file in configs/model that gives the sizes")


def stage_arguments(stage: str, options: TrainOptions) -> list[str]:
    """The command line of one stage's module."""
    root = Path(options.output)
    data = str(root / "data")
    made = ["--objects", str(options.objects), "--workers", str(options.workers)]
    if stage == "data":
        return ["--output", data, *made]
    if stage == "export":
        runs = [name for name, share in STAGES.items() if share > 0]
        return [word for run in runs for word in (f"--{run.replace('_', '-')}", str(root / run))]
    share = STAGES[stage] if options.stage == "all" else 1.0
    words = ["--output", str(root / stage), "--minutes", f"{share * options.minutes:.4g}"]
    words += ["--seed", str(options.seed), "--device", options.device, "--model", options.model]
    if options.device != "cpu":
        words += [*made, *GPU_SETTINGS[stage]]
    elif stage != "slat_vae":
        words += ["--data", data]
    if stage == "ss_flow":
        words += ["--vae", str(root / "ss_vae" / "checkpoint.pt")]
    if stage == "slat_flow" and options.stage == "all":
        words += ["--embedder", str(root / "ss_flow" / "checkpoint.pt")]
    return words


def main(arguments: list[str]) -> int:
    """Runs the command; returns the exit code.

    Raises:
        UserError: a word is no `key=value`, a key is unknown, or a value cannot be used.
    """
    if any(word in ("-h", "--help", "help") for word in arguments):
        print(f"{describe_options(TrainOptions, COMMAND)}\n\n{ABOUT}")
        return 0
    options = parse_options(TrainOptions, arguments, "train")
    stages = list(STAGES) if options.stage == "all" else [options.stage]
    if options.device != "cpu":
        stages = [stage for stage in stages if stage != "data"]
    for stage in stages:
        module = importlib.import_module(f"fastsam3d.training.{MODULES[stage]}")
        module.main(stage_arguments(stage, options))
    return 0
