"""What the tests of both hosts ask."""

from __future__ import annotations

import pytest
import torch

from fastsam3d.acceleration.presets import preset_info
from fastsam3d.basics.config_files import preset_names

OPTIONS = {"step_caching.warmup": 2, "adaptive_caching.warmup": 2}
ALWAYS_MERGED = {"enabled": True, "minimum_voxels": 0, "maximum_voxels": 1}  # every object is large: factor_large
STEPS = 7


def runnable(refused):
    """Presets that a pipeline does not refuse; rivals and controls only where slow tests run."""
    names = sorted({*preset_names()} - {*refused})
    return [n if preset_info(n).kind == "preset" else pytest.param(n, marks=pytest.mark.slow) for n in names]


def saved(counts):
    """Whether the network ran at fewer steps or for fewer branches than without acceleration."""
    return counts.forecast > 0 or counts.conditional_computed < STEPS


def objects_of(pipeline):
    """Every object that a host could have touched, by a name."""
    found = {"pipeline": pipeline}
    parts = dict(pipeline.models.items()) | getattr(pipeline, "condition_embedders", {})
    for name, model in parts.items():
        if model is not None:
            found |= {f"{name}.{path}": module for path, module in model.named_modules()}
    for name in ("depth_model", "slat_sampler", "sparse_structure_sampler"):
        if hasattr(pipeline, name):
            found[name] = getattr(pipeline, name)
    for name in ("ss_generator", "slat_generator"):
        if name in parts:
            found[f"{name}._solver"] = parts[name]._solver
    found["surface"] = parts["slat_decoder_mesh"].mesh_extractor
    return found


def snapshot(pipeline):
    """Names and identities of the attributes of every such object; counters and numbers are their values' affair."""
    found = objects_of(pipeline).items()
    return {name: {k: id(v) for k, v in vars(o).items() if not isinstance(v, int)} for name, o in found}


def assert_same(a, b):
    """Bit by bit."""
    assert a.keys() == b.keys()
    for key, value in tensors(a).items():
        assert torch.equal(value, tensors(b)[key]), key


def tensors(result):
    found = {k: v for k, v in result.items() if isinstance(v, torch.Tensor)}
    if "gaussian" in result:
        found |= {"xyz": result["gaussian"][0]._xyz, "scaling": result["gaussian"][0]._scaling}
    if "mesh" in result:
        found |= {"vertices": result["mesh"][0].vertices, "attributes": result["mesh"][0].vertex_attrs}
    return found


def distance(a, b):
    """Mean distance of the Gaussians' centres, in voxels of the grid; infinite if there are not equally many."""
    a, b = (r["gaussian"][0]._xyz for r in (a, b))
    return float((a - b).norm(dim=1).mean()) * 16 if a.shape == b.shape else float("inf")
