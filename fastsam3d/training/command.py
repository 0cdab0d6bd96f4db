"""`python -m fastsam3d train`: trains the mini model stage by stage, or one stage of it.

    python -m fastsam3d train output=runs minutes=180                all stages, sharing the time
    python -m fastsam3d train stage=ss_flow output=runs minutes=90   one stage
    python -m fastsam3d train device=cuda objects=200000 workers=16 minutes=10

On a CPU the objects are written to shards first; on a GPU they are made there when the run starts.

Every stage writes its checkpoints under `output/<stage>`, resumes from there after an interruption, and logs its
losses to `losses.jsonl`.
"""

from __future__ import annotations

import difflib
import importlib
import math
import sys
from collections.abc import Mapping
from pathlib import Path

from fastsam3d.errors import UserError

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

DEFAULTS = {
    "stage": "all",
    "output": "runs",
    "minutes": "180",
    "objects": "24000",
    "workers": "1",
    "seed": "0",
    "device": "cpu",
    "model": "mini",
}

HELP = f"""usage: python -m fastsam3d train [key=value ...]

Trains the mini model on procedural objects. Interrupt and repeat the command to resume.

  stage=all        {', '.join(STAGES)}, or all of them in this order
  output=runs      folder of checkpoints, logs and data
  minutes=180      training time; a whole run shares it between its stages
  objects=24000    procedural training objects
  workers=1        processes that generate them
  seed=0           of weights and batches
  device=cpu       or cuda
  model=mini       file in configs/model that gives the sizes
"""


def parse(arguments: list[str]) -> dict[str, str]:
    """Settings from `key=value` words.

    Raises:
        UserError: a word is no `key=value`, a key is unknown, or a value cannot be used.
    """
    settings = dict(DEFAULTS)
    for word in arguments:
        key, separator, value = word.partition("=")
        if not separator or key not in DEFAULTS:
            close = difflib.get_close_matches(key, DEFAULTS, n=1)
            hint = f" Did you mean {close[0]}=?" if close else f" Known: {', '.join(DEFAULTS)}."
            raise UserError(f"train: {word!r} is not a setting.{hint}")
        settings[key] = value
    if settings["stage"] not in (*STAGES, "all"):
        raise UserError(f"train: unknown stage {settings['stage']!r}; choose all, {', '.join(STAGES)}.")
    try:
        minutes = float(settings["minutes"])
    except ValueError:
        minutes = math.nan
    if not 0 < minutes < 1e5:
        raise UserError(f"train: minutes={settings['minutes']} must be a positive number of minutes.")
    for key in ("objects", "workers", "seed"):
        if not settings[key].isdigit():
            raise UserError(f"train: {key}={settings[key]} must be a whole number, 0 or more.")
    return settings


def stage_arguments(stage: str, settings: Mapping[str, str]) -> list[str]:
    """The command line of one stage's module."""
    root = Path(settings["output"])
    data = str(root / "data")
    if stage == "data":
        return ["--output", data, "--objects", settings["objects"], "--workers", settings["workers"]]
    if stage == "export":
        runs = {"ss-vae": "ss_vae", "ss-flow": "ss_flow", "slat-vae": "slat_vae", "slat-flow": "slat_flow"}
        return [word for flag, run in runs.items() for word in (f"--{flag}", str(root / run))]
    share = STAGES[stage] if settings["stage"] == "all" else 1.0
    words = ["--output", str(root / stage), "--minutes", f"{share * float(settings['minutes']):.4g}"]
    words += ["--seed", settings["seed"], "--device", settings["device"], "--model", settings["model"]]
    if settings["device"] != "cpu":
        words += ["--objects", settings["objects"], "--workers", settings["workers"], *GPU_SETTINGS[stage]]
    elif stage != "slat_vae":
        words += ["--data", data]
    if stage == "ss_flow":
        words += ["--vae", str(root / "ss_vae" / "checkpoint.pt")]
    if stage == "slat_flow" and settings["stage"] == "all":
        words += ["--embedder", str(root / "ss_flow" / "checkpoint.pt")]
    return words


def main(arguments: list[str]) -> int:
    """Runs the command; returns the exit code.

    Raises:
        UserError: see `parse`.
    """
    if any(word in ("-h", "--help", "help") for word in arguments):
        sys.stdout.write(HELP)
        return 0
    settings = parse(arguments)
    stages = list(STAGES) if settings["stage"] == "all" else [settings["stage"]]
    if settings["device"] != "cpu":
        stages = [stage for stage in stages if stage != "data"]
    for stage in stages:
        module = importlib.import_module(f"fastsam3d.training.{MODULES[stage]}")
        module.main(stage_arguments(stage, settings))
    return 0
