"""TRELLIS.2 on a stand-in of its pipelines: four modes, five stages, guidance by the pipeline's own code."""

from __future__ import annotations

import pytest
import torch
from host_checks import ALWAYS_MERGED, runnable
from host_stand_ins.trellis2 import Pixal3DImageTo3DPipeline, Trellis2ImageTo3DPipeline, Trellis2TexturingPipeline
from trellis2_checks import assert_same, distance, run, seeded, snapshot

from fastsam3d.acceleration.family import describe_differences, find_host
from fastsam3d.acceleration.handle import accelerate
from fastsam3d.acceleration.settings import AccelerationWarning
from fastsam3d.diffusion.hosts.shared.flow_evaluations import is_zero
from fastsam3d.errors import UserError

MODES = ("512", "1024", "1024_cascade", "1536_cascade")
EVALUATIONS = {"512": 55, "1024": 55, "1024_cascade": 76, "1536_cascade": 76}
STAGES = {
    "512": {"sparse_structure": (12, 10), "shape_512": (12, 9), "texture_512": (12, 0)},
    "1024": {"sparse_structure": (12, 10), "shape_1024": (12, 9), "texture_1024": (12, 0)},
    "1024_cascade": {
        "sparse_structure": (12, 10),
        "shape_512": (12, 9),
        "shape_1024": (12, 9),
        "texture_1024": (12, 0),
    },
}
STAGES["1536_cascade"] = STAGES["1024_cascade"]
REFUSED = ("exact_layout", "fast3dcache", "few_step_shortcut", "paper_release")


@pytest.mark.parametrize("mode", MODES)
def test_off_is_bit_identical_and_counts_a_default_run(trellis2, cut_out, mode, recwarn):
    plain, before = run(trellis2, cut_out, mode), snapshot(trellis2)
    with accelerate(trellis2, "off") as acceleration:
        assert_same(run(trellis2, cut_out, mode), plain)
        report = acceleration.report()
    assert snapshot(trellis2) == before
    ran = {n: (s.conditional_computed, s.unconditional_computed) for n, s in report.stages.items() if s.runs}
    assert ran == STAGES[mode]
    assert sum(stage.evaluations for stage in report.stages.values()) == EVALUATIONS[mode]
    assert list(ran) == list(STAGES[mode]) and set(ran) | {"shape_decode", "texture_decode"} <= set(report.seconds)
    assert ("upsample" in report.seconds) == ("cascade" in mode)
    assert not [w for w in recwarn if issubclass(w.category, AccelerationWarning)]
    assert any("o_voxel.postprocess.to_glb" in note for note in report.notes)
    assert any("low_vram" in note for note in report.notes)
    idle = set(report.stages) - set(ran)
    assert idle and not any(name in str(report) for name in idle)


@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.6, 0.9), (0.0, 0.4)], ids=str)
@pytest.mark.parametrize("rescale", [0.0, 1.0])
@pytest.mark.parametrize("strength", [0, 1, 3])
def test_off_is_bit_identical_whatever_the_guidance_does(trellis2, cut_out, strength, rescale, interval):
    guidance = {"guidance_strength": strength, "guidance_rescale": rescale, "guidance_interval": interval, "steps": 5}
    plain, before = run(trellis2, cut_out, "1024_cascade", **guidance), snapshot(trellis2)
    with accelerate(trellis2, "off") as acceleration:
        assert_same(run(trellis2, cut_out, "1024_cascade", **guidance), plain)
        report = acceleration.report()
    assert snapshot(trellis2) == before
    for name, stage in report.stages.items():
        rescale_t = 5 if name == "sparse_structure" else 3
        times = [rescale_t * u / (1 + (rescale_t - 1) * u) for u in (1 - k / 5 for k in range(5))]
        both = sum(interval[0] <= t <= interval[1] for t in times) if strength == 3 else 0
        if stage.runs:
            assert (stage.conditional_computed, stage.unconditional_computed, stage.forecast) == (5, both, 0)


@pytest.mark.parametrize("mode", MODES)
def test_exact_is_equal_up_to_rounding(trellis2, cut_out, mode):
    plain = run(trellis2, cut_out, mode, steps=4)
    with accelerate(trellis2, "exact") as acceleration:
        result = run(trellis2, cut_out, mode, steps=4)
        report = acceleration.report()
    assert distance(result, plain) < 1e-5
    assert sum(stage.forecast for stage in report.stages.values()) == 0


@pytest.mark.parametrize("mode", [pytest.param("512", marks=pytest.mark.slow), "1024_cascade"])
@pytest.mark.parametrize("preset", runnable(REFUSED))
def test_every_preset_runs_and_leaves_no_trace(trellis2, cut_out, preset, mode):
    before = snapshot(trellis2)
    with accelerate(trellis2, preset) as acceleration:
        result = run(trellis2, cut_out, mode)
        report = acceleration.report()
    assert torch.isfinite(result[0].vertices).all() and torch.isfinite(result[0].attrs).all()
    assert {name for name, stage in report.stages.items() if stage.runs} == set(STAGES[mode])
    if preset in ("paper", "balanced", "fast"):
        assert sum(s.evaluations for s in report.stages.values()) < 0.7 * EVALUATIONS[mode]
    assert snapshot(trellis2) == before


@pytest.mark.parametrize("preset", REFUSED)
def test_what_the_pipeline_does_not_offer_is_refused(trellis2, preset):
    before = snapshot(trellis2)
    with pytest.raises(UserError, match=r"enabled=false"):
        accelerate(trellis2, preset)
    assert snapshot(trellis2) == before


def test_two_samplers_in_one_object(trellis2, cut_out):
    trellis2.tex_slat_sampler = trellis2.sparse_structure_sampler = trellis2.shape_slat_sampler
    plain, before = run(trellis2, cut_out), snapshot(trellis2)
    with accelerate(trellis2, "off") as acceleration:
        assert_same(run(trellis2, cut_out), plain)
        report = acceleration.report()
    assert sum(stage.evaluations for stage in report.stages.values()) == 76
    assert snapshot(trellis2) == before


@pytest.mark.parametrize("stage", STAGES["1024_cascade"])
def test_a_run_that_breaks_off_leaves_nothing_behind(trellis2, cut_out, stage):
    plain, before = run(trellis2, cut_out, steps=4), snapshot(trellis2)
    block = find_host(trellis2).network(stage).blocks[0]
    with accelerate(trellis2, "balanced", **{"step_caching.warmup": 1, "adaptive_caching.warmup": 1}):
        expected = run(trellis2, cut_out, steps=4)
        handle = block.register_forward_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(trellis2, cut_out, steps=4)
        handle.remove()
        assert_same(run(trellis2, cut_out, steps=4), expected)
    assert snapshot(trellis2) == before
    assert_same(run(trellis2, cut_out, steps=4), plain)


def test_a_second_pipeline_is_left_alone(trellis2, cut_out):
    other = seeded(Trellis2ImageTo3DPipeline)
    plain = run(other, cut_out, steps=3)
    with accelerate(trellis2, "fast"):
        assert_same(run(other, cut_out, steps=3), plain)


@pytest.mark.parametrize("low_vram", [True, False])
def test_half_precision_and_memory_modes(cut_out, low_vram):
    pipeline = seeded(lambda: Trellis2ImageTo3DPipeline(dtype=torch.bfloat16))
    pipeline.low_vram = low_vram
    plain = run(pipeline, cut_out, steps=3)
    with accelerate(pipeline, "off") as acceleration:
        assert_same(run(pipeline, cut_out, steps=3), plain)
        assert any("low_vram" in note for note in acceleration.report().notes) == low_vram
    with accelerate(pipeline, "balanced", **{"token_carving.enabled": True}):
        assert torch.isfinite(run(pipeline, cut_out, steps=5)[0].vertices).all()


def test_fewer_steps(trellis2, cut_out):
    settings = {"enabled": True, "sparse_structure_steps": 5, "structured_latent_steps": 3}
    with accelerate(trellis2, "off", fewer_steps=settings) as acceleration:
        run(trellis2, cut_out)
        stages = acceleration.report().stages
    counts = {name: stage.conditional_computed for name, stage in stages.items() if stage.runs}
    # Three steps would begin one exactly where guidance ends, so that four are taken; texture has no guidance.
    assert counts == {"sparse_structure": 5, "shape_512": 4, "shape_1024": 4, "texture_1024": 3}


@pytest.mark.parametrize(("resolution", "stage"), [(512, "texture_512"), (1024, "texture_1024")])
def test_a_mesh_is_textured(cut_out, resolution, stage, recwarn):
    pipeline = seeded(Trellis2TexturingPipeline)
    voxels = torch.argwhere(torch.ones(1, 4, 4, 4)).int()
    plain, before = pipeline.run(voxels, cut_out, resolution=resolution), snapshot(pipeline)
    with accelerate(pipeline, "off") as acceleration:
        assert torch.equal(pipeline.run(voxels, cut_out, resolution=resolution), plain)
        stages = acceleration.report().stages
    assert {name: s.evaluations for name, s in stages.items() if s.runs} == {stage: 12}
    for preset in ("exact", "balanced"):
        with accelerate(pipeline, preset) as acceleration:
            result = pipeline.run(voxels, cut_out, resolution=resolution)
            assert (acceleration.report().stages[stage].evaluations < 12) == (preset == "balanced")
        if preset == "exact":
            assert torch.allclose(result, plain, atol=1e-5)
    assert snapshot(pipeline) == before
    assert not [w for w in recwarn if issubclass(w.category, AccelerationWarning)]
    with pytest.raises(UserError, match=r"token_aggregation cannot .* textures a mesh .*token_aggregation\.enabled"):
        accelerate(pipeline, "off", token_aggregation=True)


@pytest.mark.parametrize("mode", ["512", "1024_cascade"])
def test_pixal3d_has_the_same_host(cut_out, mode):
    pipeline = seeded(Pixal3DImageTo3DPipeline)
    plain, before = run(pipeline, cut_out, mode), snapshot(pipeline)
    with accelerate(pipeline, "off") as acceleration:
        assert_same(run(pipeline, cut_out, mode), plain)
        assert sum(s.evaluations for s in acceleration.report().stages.values()) == EVALUATIONS[mode]
    short = run(pipeline, cut_out, mode, steps=3)
    with accelerate(pipeline, "exact"):
        assert distance(run(pipeline, cut_out, mode, steps=3), short) < 1e-5
    with accelerate(pipeline, "exact", token_carving={"enabled": True, "carved_fraction": 0.3}) as acceleration:
        result = run(pipeline, cut_out, mode, steps=6)
        assert acceleration.report().stages["shape_512"].tokens_kept < 1.0
    assert torch.isfinite(result[0].vertices).all()
    assert snapshot(pipeline) == before
    with pytest.raises(UserError, match=r"token_aggregation cannot .* projected for each voxel"):
        accelerate(pipeline, "off", token_aggregation=True)


def test_a_condition_of_several_parts_is_zero_where_all_are(cut_out):
    pipeline = seeded(Pixal3DImageTo3DPipeline)
    parts = pipeline.condition_at(pipeline.get_cond([cut_out], 512), torch.tensor([[0, 1, 2, 3]]).int())
    assert is_zero(parts["neg_cond"]) and not is_zero(parts["cond"])
    assert not is_zero({**parts["neg_cond"], "proj": parts["cond"]["proj"]}) and not is_zero({}) and not is_zero(None)
    inner = pipeline.models["shape_slat_flow_model_512"].blocks[0].cross_attn.cross_attn_block
    for switch, calls in ((False, 6), (True, 3)):  # three guided steps
        inner.packed = 0
        with accelerate(pipeline, "off", **{"exact.zero_condition": switch}):
            run(pipeline, cut_out, "512", steps=3)
        assert inner.packed == calls


class Vendored(Trellis2ImageTo3DPipeline):
    """A copy in another package: more arguments, some of them before the known ones or by name only."""

    def sample_shape_slat(self, cond, flow_model, coords, sampler_params={}, callback=None):  # noqa: B006
        return super().sample_shape_slat(cond, flow_model, coords, sampler_params)

    def sample_sparse_structure(self, cond, resolution, num_samples=1, sampler_params={}, noise=None):  # noqa: B006
        return super().sample_sparse_structure(cond, resolution, num_samples, sampler_params)

    def run(self, image, num_samples=1, seed=42, *args, texture_size=None, **kwargs):
        return super().run(image, num_samples, seed, *args, **kwargs)


def test_copies_with_longer_signatures(cut_out, recwarn):
    pipeline = seeded(Vendored)
    plain, before = run(pipeline, cut_out, "512", steps=3), snapshot(pipeline)
    with accelerate(pipeline, "off") as acceleration:
        assert_same(run(pipeline, cut_out, "512", steps=3), plain)
        assert sum(stage.evaluations for stage in acceleration.report().stages.values()) == 3 * 5
    with accelerate(pipeline, "off", token_aggregation=ALWAYS_MERGED) as acceleration:
        run(pipeline, cut_out, "512", steps=3)
        assert acceleration.report().voxels_after < acceleration.report().voxels_before
    assert snapshot(pipeline) == before
    assert not [w for w in recwarn if issubclass(w.category, AccelerationWarning)]


def test_pipelines_that_are_not_as_known(trellis2):
    assert describe_differences(trellis2) == []

    class Newer(type(trellis2.shape_slat_sampler)):
        def sample(self, model, noise, cond, steps=50):
            return None

    trellis2.shape_slat_sampler = Newer()
    with pytest.raises(UserError, match=r"shape_slat_sampler.sample takes \(model, noise, cond, steps\), known is"):
        accelerate(trellis2, "off")
