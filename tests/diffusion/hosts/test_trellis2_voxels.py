"""Tokens that are left out, blocks that are reused and voxels that are merged in TRELLIS.2's stages."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import pytest
import torch
from host_checks import ALWAYS_MERGED
from host_stand_ins.trellis2_networks import MeshWithVoxel
from torch.nn import functional as F
from trellis2_checks import assert_same, run, snapshot

from fastsam3d.acceleration.family import find_host
from fastsam3d.acceleration.handle import accelerate
from fastsam3d.acceleration.registry import Technique
from fastsam3d.diffusion.hosts.trellis2.between_stages import mesh_to_fine
from fastsam3d.diffusion.maths.voxel_lattice import Lattice
from fastsam3d.diffusion.registry import REGISTRY, register
from fastsam3d.diffusion.vocabulary import STRUCTURED_LATENT, TechniqueConfig, setting


@dataclass(frozen=True)
class TwiceConfig(TechniqueConfig):
    enabled: bool = setting(False, "Switches the technique.")


class AllTokensByName:
    """Names all tokens at every step: what is left out is nothing, and the way is that of a part."""

    seen: list = []  # noqa: RUF012

    def __init__(self, config, trajectory):
        self.trajectory = trajectory
        self.seen.append(trajectory)

    def evaluate(self, x, step, evaluate):
        return evaluate(x, torch.arange(len(self.trajectory.cells)))


@pytest.fixture
def all_tokens():
    AllTokensByName.seen.clear()
    register(Technique("by_name", TwiceConfig, "evaluation", (STRUCTURED_LATENT,), AllTokensByName, needs=("tokens",)))
    yield AllTokensByName.seen
    REGISTRY.remove("by_name")


def latents(pipeline, image, mode):
    params = {"steps": 4}
    result = pipeline.run(
        image,
        seed=1,
        pipeline_type=mode,
        return_latent=True,
        sparse_structure_sampler_params=params,
        shape_slat_sampler_params=params,
        tex_slat_sampler_params=params,
    )
    return result[1][0].feats, result[1][1].feats


@pytest.mark.parametrize("preset", ["off", "exact"])
def test_tokens_computed_as_a_part_are_those_of_the_whole(trellis2, cut_out, all_tokens, preset):
    plain = latents(trellis2, cut_out, "512")
    with accelerate(trellis2, preset, by_name=True):
        for value, whole in zip(latents(trellis2, cut_out, "512"), plain, strict=True):
            assert torch.allclose(value, whole, atol=1e-5)


def test_every_voxel_is_a_token_and_has_the_logit_that_made_it(trellis2, cut_out, all_tokens):
    for mode, known in (("512", [True, True]), ("1024", [True, True]), ("1024_cascade", [True, False, False])):
        all_tokens.clear()
        with accelerate(trellis2, "off", by_name=True):
            run(trellis2, cut_out, mode, steps=2)
        for trajectory, has_logits in zip(all_tokens, known, strict=True):
            assert torch.equal(trajectory.cells, torch.arange(len(trajectory.coords)))
            assert (trajectory.logits is not None) == has_logits
            if has_logits:
                assert trajectory.logits.shape[-1] == {"1024": 16}.get(mode, 8)
                x, y, z = trajectory.coords[:, 1:].long().unbind(1)
                assert (trajectory.logits[0, 0, x, y, z] > 0).all()
                assert len(x) == int((trajectory.logits > 0).sum())


def test_the_calmest_tokens_are_left_out(trellis2, cut_out):
    plain = latents(trellis2, cut_out, "1024_cascade")
    settings = {"enabled": True, "carved_fraction": 0.5, "warmup": 1}
    before = snapshot(trellis2)
    with accelerate(trellis2, "exact", token_carving=settings) as acceleration:
        run(trellis2, cut_out, "1024_cascade")
        stages = acceleration.report().stages
        carved = latents(trellis2, cut_out, "1024_cascade")
    for name in ("shape_512", "shape_1024", "texture_1024"):
        assert 0.4 < stages[name].tokens_kept < 0.9
    if len(carved[0]) == len(plain[0]):
        assert 0 < float((carved[0] - plain[0]).norm() / plain[0].norm()) < 0.3
    assert snapshot(trellis2) == before


def test_blocks_are_reused_in_every_stage(trellis2, cut_out):
    settings = {"enabled": True, "threshold": 10.0, "latent_threshold": 10.0}
    with accelerate(trellis2, "off", first_block_cache=settings) as acceleration:
        run(trellis2, cut_out)
        stages = acceleration.report().stages
    assert all(stage.forecast > 0 for stage in stages.values() if stage.runs)


@pytest.mark.parametrize("mode", ["512", "1024", "1024_cascade"])
def test_merged_voxels_are_put_back(trellis2, cut_out, mode):
    plain, before = run(trellis2, cut_out, mode), snapshot(trellis2)
    with accelerate(trellis2, "off", token_aggregation=ALWAYS_MERGED) as acceleration:
        mesh = run(trellis2, cut_out, mode)[0]
        report = acceleration.report()
        kept = latents(trellis2, cut_out, mode)  # with latents asked for, nothing is merged
    assert report.voxels_after < report.voxels_before / 2
    # The object is where it was, as large as it was, to the size of a merged voxel.
    side = 2 / (16 if mode == "1024" else 8)
    for a, b in ((plain[0].vertices, mesh.vertices), (mesh.vertices, plain[0].vertices)):
        gaps = (a[:, None] - b[None]).abs().amax(-1).amin(1)
        assert float(gaps.max()) <= side + 1e-6
    # Colours lie at the vertices: voxels in the frame of the mesh.
    places = (mesh.coords + 0.5) * mesh.voxel_size + mesh.origin
    assert float((places - mesh.vertices).abs().max()) <= mesh.voxel_size
    for value, whole in zip(kept, latents(trellis2, cut_out, mode), strict=True):
        assert torch.equal(value, whole)
    assert snapshot(trellis2) == before
    assert_same(run(trellis2, cut_out, mode), plain)


def test_a_mesh_is_put_back_with_its_voxels():
    coords = torch.tensor([[0, 2, 2, 2], [0, 9, 9, 9]])
    lattice = Lattice.centred(coords, 2.0, 16)  # a box of 8 voxels over 4 cells, from cell 6 on
    assert lattice.origin == (-10.0, -10.0, -10.0)
    mesh = MeshWithVoxel(torch.tensor([[-0.125, 0.0, 0.125]]), [-0.5] * 3, 0.25, coords[:, 1:], None)
    back = mesh_to_fine(mesh, lattice)
    # Grid units: 6, 8, 10 -> 2, 6, 10; the voxels' corner 0 -> -10; a voxel of 0.25 -> 0.5
    assert torch.allclose(back.vertices, torch.tensor([[2 / 16, 6 / 16, 10 / 16]]) - 0.5)
    assert torch.allclose(back.origin, torch.full((3,), -10 / 16 - 0.5))
    assert back.voxel_size == 0.5


def test_pooled_logits_are_positive_where_the_pipeline_keeps_a_voxel(trellis2, cut_out):
    between = find_host(trellis2)._between
    logits = torch.randn(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0)) - 1.0
    sampled = between.sampled_structure(inspect.signature(trellis2.sample_sparse_structure))
    decoded = between.decoded_structure(lambda: logits)

    def sample(cond, resolution, num_samples=1, sampler_params=None):
        mask = F.max_pool3d((decoded() > 0).float(), 2, 2) > 0.5
        return torch.argwhere(mask)[:, [0, 2, 3, 4]].int()

    coords = sampled(sample)({}, 8)
    known = between.logits_of(coords.clone())
    assert torch.equal(torch.argwhere(known > 0)[:, 2:].int(), coords[:, 1:])
    assert between.logits_of(coords[1:]) is None
