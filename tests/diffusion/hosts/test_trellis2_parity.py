"""Recorded outputs of TRELLIS.2's own modules, against the stand-in and against the sites of the host."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from host_stand_ins.trellis2 import FlowEulerGuidanceIntervalSampler
from host_stand_ins.trellis2_networks import Attention, SparseTensor, phases_of
from safetensors.torch import load_file

from fastsam3d.diffusion.hosts.shared.attention_sites import cross_attention_site
from fastsam3d.diffusion.hosts.shared.sparse_states import SPARSE
from fastsam3d.diffusion.hosts.trellis2.sites import rotary_block_site

WIDTH, CONDITION = 24, 16
RECORDED = load_file(Path(__file__).parents[2] / "data" / "trellis2" / "modules.safetensors")
VOXELS = SparseTensor(RECORDED["x"], RECORDED["coords"])


def close(value, name):
    return torch.allclose(value, RECORDED[name], rtol=1e-5, atol=1e-5)


def loaded(prefix, module):
    weights = {name.removeprefix(f"{prefix}."): v for name, v in RECORDED.items() if name.startswith(f"{prefix}.")}
    module.load_state_dict({name: v for name, v in weights.items() if name not in ("out", "zero")})
    return module.requires_grad_(False)


def test_self_attention_turns_by_the_places_of_the_voxels():
    attention = loaded("sparse_self", Attention(sparse=True, width=WIDTH))
    assert close(attention(VOXELS).feats, "sparse_self.out")
    site = rotary_block_site(SimpleNamespace(self_attn=attention))
    out = site.attend(*site.project(SPARSE.read(VOXELS), VOXELS))
    assert close(out[0], "sparse_self.out")


def test_some_voxels_among_all():
    """Queries, keys and values of some voxels are those that they have among all: places, not positions in a list."""
    attention = loaded("sparse_self", Attention(sparse=True, width=WIDTH))
    site = rotary_block_site(SimpleNamespace(self_attn=attention))
    chosen = torch.tensor([3, 4, 17, 29])
    some = SPARSE.write(VOXELS, SPARSE.read(VOXELS)[:, chosen], chosen)
    every = site.project(SPARSE.read(VOXELS), VOXELS)
    queries, keys, _ = site.project(SPARSE.read(some), some)
    assert torch.allclose(queries, every[0][:, chosen], atol=1e-6)
    assert torch.allclose(keys, every[1][:, chosen], atol=1e-6)
    assert torch.allclose(site.attend(queries, *every[1:])[0], RECORDED["sparse_self.out"][chosen], atol=1e-5)


def test_cross_attention_and_its_constant_for_zeros():
    attention = loaded("sparse_cross", Attention(CONDITION, sparse=True, width=WIDTH))
    condition = RECORDED["condition"]
    assert close(attention(VOXELS, condition).feats, "sparse_cross.out")
    site = cross_attention_site(attention, SPARSE, rows=16)
    assert close(site.attend(SPARSE.read(VOXELS), *site.project_context(condition))[0], "sparse_cross.out")
    assert close(site.constant(condition.shape[1])[0].expand(len(VOXELS.feats), -1), "sparse_cross.zero")
    # Computed by the module's own operations, it is rounded like the module's output for all voxels: bit by bit where
    # the CPU's kernels treat all numbers of rows alike.
    length, voxels = condition.shape[1], len(VOXELS.feats)
    own = attention(VOXELS, torch.zeros_like(condition)).feats
    assert torch.allclose(site.constant(length)[0].expand(voxels, -1), own, rtol=1e-6, atol=3e-7)
    plain = cross_attention_site(attention, SPARSE).constant(length)[0]
    assert torch.allclose(plain.expand(voxels, -1), own, rtol=1e-6, atol=1e-6)


def test_dense_self_attention():
    attention = loaded("dense_self", Attention(width=WIDTH))
    axis = torch.arange(3)
    places = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    assert close(attention(RECORDED["dense.x"], phases=phases_of(places, WIDTH // 2)), "dense_self.out")


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize(
    ("name", "strength", "rescale", "time"),
    [
        ("rescaled", 7.5, 0.7, 0.8),
        ("plain", 3.0, 0.0, 0.8),
        ("outside", 7.5, 0.7, 0.3),
        ("one", 1.0, 0.7, 0.8),
        ("zero", 0.0, 0.7, 0.8),
    ],
)
def test_guidance(kind, name, strength, rescale, time):
    def wrapped(part):
        value = RECORDED[f"guidance.{kind}.{part}"]
        return value if kind == "dense" else SparseTensor(value, RECORDED["coords"])

    def model(x, t, condition):
        return wrapped(condition)

    guidance = {"guidance_strength": strength, "guidance_rescale": rescale, "guidance_interval": (0.6, 1.0)}
    sampler = FlowEulerGuidanceIntervalSampler()
    velocity = sampler._inference_model(model, wrapped("x"), time, "c", neg_cond="u", **guidance)
    assert close(velocity if kind == "dense" else velocity.feats, f"guidance.{kind}.{name}")
