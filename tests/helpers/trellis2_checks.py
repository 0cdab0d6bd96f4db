"""What the tests of TRELLIS.2 ask."""

from __future__ import annotations

import torch
from torch import nn

SAMPLERS = ("sparse_structure_sampler", "shape_slat_sampler", "tex_slat_sampler")


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


def run(pipeline, image, mode=None, seed=1, **params):
    """A run with the same parameters for every sampler."""
    every = {f"{name}_params": params for name in SAMPLERS}
    return pipeline.run(image, seed=seed, pipeline_type=mode, **every)


def tensors(meshes):
    mesh = meshes[0]
    return {"vertices": mesh.vertices, "attrs": mesh.attrs, "coords": mesh.coords}


def assert_same(a, b):
    """Bit by bit."""
    for name, value in tensors(a).items():
        assert torch.equal(value, tensors(b)[name]), name


def distance(a, b):
    """Largest difference of places and colours; infinite where the voxels differ."""
    a, b = tensors(a), tensors(b)
    if not torch.equal(a["coords"], b["coords"]):
        return float("inf")
    return max(float((a[name] - b[name]).abs().max()) for name in ("vertices", "attrs"))


def snapshot(pipeline):
    """Names and identities of the attributes of every object that a host could have touched."""
    found = {"pipeline": pipeline, "encoder": pipeline.image_cond_model}
    for name, model in pipeline.models.items():
        assert isinstance(model, nn.Module)
        found |= {f"{name}.{path}": module for path, module in model.named_modules()}
    found |= {name: getattr(pipeline, name) for name in SAMPLERS if hasattr(pipeline, name)}
    return {name: {k: id(v) for k, v in vars(o).items() if not isinstance(v, int)} for name, o in found.items()}
