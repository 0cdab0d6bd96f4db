"""Describes what a measurement depends on beside its options: machine, versions, steps, weights and code."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path
from typing import Any

from fastsam3d.basics.record_log import CODE, Record
from fastsam3d.evaluation.measuring.counters import STAGES

NOT_MEASURED = ("app", "cli", "cluster", "jobs", "marking", "mllm", "training")
"""Parts of the package that no measured run goes through."""
MEASURING = ("measuring", "metrics", "operations")
"""Folders of the evaluation that make records; the others turn records into tables and plots."""


def environment(pipeline: Any, device: str) -> Record:
    """Machine, versions, steps, and fingerprints (16 hexadecimal digits) of weights, constants and code.

    Args:
        pipeline: the one that is measured.
        device: "cpu" or "cuda".
    """
    import numpy
    import torch

    from fastsam3d.basics.version import __version__

    threads = torch.get_num_threads()
    cuda = device.startswith("cuda")
    name = torch.cuda.get_device_name(device) if cuda else f"CPU, {threads} thread{'s' * (threads != 1)}"
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__}
    return {
        "device_name": name,
        "threads": threads,
        "platform": platform.platform(),
        "versions": {**versions, "fastsam3d": __version__},
        "steps": {stage: pipeline.models[stage].inference_steps for stage in STAGES.values()},
        "weights": weights_fingerprint(pipeline),
        "model_config": config_fingerprint(pipeline),
        CODE: code_fingerprint(),
    }


def weights_fingerprint(pipeline: Any) -> str:
    """Fingerprint of all weights: it changes when any of them does."""
    digest = hashlib.sha256()
    embedders = getattr(pipeline, "condition_embedders", {})
    for module in [pipeline.models, *(embedders[name] for name in sorted(embedders))]:
        for name, value in module.state_dict().items():
            digest.update(f"{name} {value.double().abs().sum().item():.10e}".encode())
    return digest.hexdigest()[:16]


def config_fingerprint(pipeline: Any) -> str:
    """Fingerprint of the model's sizes and constants, such as its guidance interval; "" of a pipeline without."""
    config = getattr(pipeline, "config", None)
    return "" if config is None else hashlib.sha256(repr(config).encode()).hexdigest()[:16]


def code_fingerprint(package: Path | None = None) -> str:
    """Fingerprint of the source files that a measured run goes through, and of their names.

    Those are the files of the package but for `NOT_MEASURED`, and of the evaluation those in `MEASURING`: how tables
    and plots are made of records does not change the records. Settings of the methods, the model's constants and the
    weights are no code; the identity of a run holds them beside it.

    Args:
        package: folder of the package; by default this one.
    """
    root = package or Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        place = path.relative_to(root)
        measured = place.parts[1] in MEASURING if place.parts[0] == "evaluation" else place.parts[0] not in NOT_MEASURED
        if measured:
            digest.update(f"{place.as_posix()}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
