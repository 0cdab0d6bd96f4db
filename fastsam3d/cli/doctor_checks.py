"""Checks of `doctor`: packages, devices, checkpoint files, and memory. No optional package is imported.

Every function returns plain values, for the table and for `--json` alike.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import platform
import time
from collections.abc import Iterable
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastsam3d.basics.threads.adaptation import suitable_threads
from fastsam3d.basics.threads.limits import core_limits
from fastsam3d.basics.threads.load import LoadMeter
from fastsam3d.basics.threads.openmp import waiting
from fastsam3d.cli.known_packages import PACKAGES, Package
from fastsam3d.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from fastsam3d.sam3d.checkpoints.folder import CheckpointFolder
    from fastsam3d.sam3d.models.config import ModelConfig


UPSTREAM_NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "pipeline/inference_pipeline.py": {
        "InferencePipeline": ("sample_sparse_structure", "sample_slat", "decode_slat", "embed_condition",
                              "get_condition_input", "run"),
    },
    "pipeline/inference_pipeline_pointmap.py": {"InferencePipelinePointMap": ("run", "compute_pointmap")},
    "model/backbone/generator/flow_matching/model.py": {"FlowMatching": ("generate_iter", "_generate_dynamics")},
    "model/backbone/generator/shortcut/model.py": {"ShortCut": ("generate_iter", "_generate_dynamics")},
    "model/backbone/generator/classifier_free_guidance.py": {"ClassifierFreeGuidance": ("inner_forward", "forward")},
}  # fmt: skip
"""Classes and methods of sam3d_objects that acceleration attaches to, by file (docs/facts.md, section S12)."""


LISTED = 2
"""Names of each kind of unfitting tensors; loading the folder names more."""


def packages() -> list[dict[str, Any]]:
    """Every package of `PACKAGES` with its version; None where it is missing. Nothing is imported."""
    distributions = metadata.packages_distributions()
    return [asdict(p) | {"version": _version(p, distributions.get(p.module, ()))} for p in PACKAGES]


def _version(package: Package, distributions: Iterable[str]) -> str | None:
    try:
        if importlib.util.find_spec(package.module) is None:
            return None
    except (ImportError, ValueError):
        return None
    # A package may be installed by another name (spconv-cu121), or lie on the path without any.
    for name in (package.distribution, *distributions):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "of unknown version"


def environment() -> dict[str, Any]:
    """Python, PyTorch, Hydra and the devices."""
    import torch

    from fastsam3d.basics.version import __version__

    devices = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        devices.append(
            {
                "name": properties.name,
                "memory_bytes": properties.total_memory,
                "capability": f"{properties.major}.{properties.minor}",
                "bfloat16": properties.major >= 8,
            }
        )
    hydra = metadata.version("hydra-core")
    return {
        "fastsam3d": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": str(torch.__version__),
        "cuda_of_torch": torch.version.cuda,
        "devices": devices,
        "processor": processor(),
        "hydra": hydra,
        "hydra_patch": "python patching/hydra tells whether it is needed" if hydra == "1.3.2" else None,
    }


def processor(seconds: float = 0.2) -> dict[str, Any]:
    """What decides about threads: cores, quota, cores that are free, threads of an operation, and how they wait.

    Args:
        seconds: that the load is measured for.
    """
    import torch

    limits = core_limits()
    meter = LoadMeter(limits.cores)
    meter.begin()
    time.sleep(seconds)
    others, threads = meter.others(), torch.get_num_threads()
    free = None if others is None else len(limits.cores) - others
    return {
        "cores": len(limits.cores),
        "quota": limits.quota,
        "free_cores": free,
        "threads": threads,
        "threads_now": threads if free is None else suitable_threads(threads, free),
        "waiting": waiting(os.environ),
    }


def upstream_differences(package: Path | None = None) -> list[str] | None:
    """Lists names that acceleration needs and the installed `sam3d_objects` lacks; None where it is missing.

    Its source is read, not run: importing it needs a GPU and takes long. A pipeline that is loaded can be asked more
    closely: `fastsam3d.describe_differences(pipeline)`.
    """
    if package is None:
        try:
            spec = importlib.util.find_spec("sam3d_objects")
        except (ImportError, ValueError):
            spec = None
        if spec is None or not spec.submodule_search_locations:
            return None
        package = Path(next(iter(spec.submodule_search_locations)))
    lines = []
    for name, classes in UPSTREAM_NAMES.items():
        try:
            tree = ast.parse((package / name).read_text(encoding="utf-8"))
        except (OSError, SyntaxError, UnicodeDecodeError):
            lines.append(f"{name} is missing or unreadable")
            continue
        found = {
            node.name: {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
            for node in tree.body
            if isinstance(node, ast.ClassDef)
        }
        for kind, methods in classes.items():
            if kind not in found:
                lines.append(f"{name} has no class {kind}")
            else:
                lines += [f"{kind} has no method {method}" for method in methods if method not in found[kind]]
    return lines


def networks_on_meta(config: ModelConfig) -> dict[str, nn.Module]:
    """Every network of a model without its numbers: names, shapes and counts."""
    import torch

    from fastsam3d.sam3d.models.build import build_networks

    with torch.device("meta"):
        return dict(build_networks(config))


def checkpoint(directory: str | Path, config: ModelConfig, networks: dict[str, nn.Module]) -> dict[str, Any]:
    """State of a checkpoint folder: each file with its size, tensors, and what does not fit.

    Files are mapped, not loaded: names and shapes of all tensors are compared, and that the numbers are there to their
    last byte; the numbers themselves are not looked at.

    Raises:
        UserError: there is no such folder, or no network in it.
    """
    from fastsam3d.sam3d.checkpoints.folder import PIPELINE_FILE
    from fastsam3d.sam3d.checkpoints.official_settings import read_folder, with_official_settings

    folder, values = read_folder(directory)
    files = [_file(folder, name, networks) for name in networks if not name.endswith("_condition_embedder")]
    settings: dict[str, Any] = {"file": PIPELINE_FILE, "found": bool(values), "problem": None, "differences": {}}
    try:
        changed = with_official_settings(config, values, folder.path / PIPELINE_FILE)
        settings["differences"] = {
            name: _plain(getattr(changed, name))
            for name in ("ss_sampler", "slat_sampler", "slat_mean", "slat_std", "downsample_ss_dist")
            if getattr(changed, name) != getattr(config, name)
        }
    except UserError as error:
        settings["problem"] = str(error)
    whole = settings["problem"] is None and all(file["problem"] is None for file in files)
    return {"folder": str(folder.path), "whole": whole, "files": files, "settings": settings}


def _plain(value: Any) -> Any:
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value


def _file(folder: CheckpointFolder, name: str, networks: dict[str, nn.Module]) -> dict[str, Any]:
    from fastsam3d.sam3d.checkpoints.folder import compare, parts_of, read_state

    path = folder.find(name)
    result: dict[str, Any] = {"network": name, "file": None, "bytes": None, "tensors": None, "problem": None}
    if path is None:
        return result | {"problem": f"missing: no {name}.ckpt or {name}.safetensors"}
    result |= {"file": path.name, "bytes": path.stat().st_size}
    try:
        parts = parts_of(name, read_state(path))
    except UserError as error:
        return result | {"problem": str(error).replace(str(path), path.name)}
    result["tensors"] = sum(len(state) for state in parts.values())
    problems = [(part, found) for part, state in parts.items() if (found := compare(networks[part], state))]
    return result | {"problem": "; ".join(f"{part}: {found.describe(LISTED)}" for part, found in problems) or None}


def memory(config: ModelConfig) -> list[dict[str, Any]]:
    """Estimates what a typical object needs under every memory setting and precision, by preset.

    One entry for each setting and precision: `weights` says where they are (`device`, or `host` until their stage), the
    largest stage is named, `bytes` holds the peak by preset, `gaussian_bytes` that of `balanced` with
    formats=[gaussian] (None where the model has no decoder for it); `refused` is why a setting cannot be used, or None.
    """
    from fastsam3d.acceleration.presets import load_preset
    from fastsam3d.basics.config_files import preset_names
    from fastsam3d.sam3d.memory.budget import BUDGETS, estimate_peak, typical_voxels

    presets = {name: load_preset(name) for name in preset_names()}
    entries = []
    for setting in sorted(BUDGETS, key=lambda name: -(BUDGETS[name] or 2**62)):
        for precision in ("float32", "float16"):
            entry: dict[str, Any] = {"memory": setting, "precision": precision, "voxels": typical_voxels(config)}
            try:
                peaks = {
                    name: estimate_peak(
                        config,
                        setting,
                        precision=precision,
                        condition_cache=preset["exact"].condition_cache,
                        partial_tokens="tokens" in preset.needs("structured_latent"),
                        cuda_graphs=preset["exact"].cuda_graphs,
                    )
                    for name, preset in presets.items()
                }
            except UserError as error:
                entries.append(entry | {"refused": str(error), "bytes": {}})
                continue
            gaussian = None
            if config.slat_decoder_gs is not None:
                gaussian = estimate_peak(config, setting, precision=precision, formats=("gaussian",)).peak
            plan = peaks["balanced"].plan
            entries.append(
                entry
                | {
                    "refused": None,
                    "weights": "host" if plan.staged else "device",
                    "condition_cache": plan.condition_cache,
                    "largest": peaks["balanced"].largest,
                    "bytes": {name: peak.peak for name, peak in peaks.items()},
                    "gaussian_bytes": gaussian,
                }
            )
    return entries


def weights(networks: dict[str, nn.Module]) -> dict[str, int]:
    """Parameters of each network."""
    return {name: sum(p.numel() for p in module.parameters()) for name, module in networks.items()}
