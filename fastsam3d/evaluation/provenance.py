"""What a measurement depends on beside its options: machine, versions, steps, weights and code."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path
from typing import Any

from fastsam3d.evaluation.counting import STAGES
from fastsam3d.evaluation.records import CODE, Record


def environment(pipeline: Any, device: str) -> Record:
    """Machine, versions, weights and steps."""
    import numpy
    import torch

    from fastsam3d import __version__

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
        CODE: code_fingerprint(),
    }


def weights_fingerprint(pipeline: Any) -> str:
    """Changes when any weight does."""
    digest = hashlib.sha256()
    embedders = getattr(pipeline, "condition_embedders", {})
    for module in [pipeline.models, *(embedders[name] for name in sorted(embedders))]:
        for name, value in module.state_dict().items():
            digest.update(f"{name} {value.double().abs().sum().item():.10e}".encode())
    return digest.hexdigest()[:16]


def code_fingerprint() -> str:
    """Changes when any source file of the package does that a measured run goes through."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        if path.relative_to(root).parts[0] not in ("evaluation", "cli", "app", "training"):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
