from __future__ import annotations

import numpy as np
import pytest
import torch
from host_checks import ALWAYS_MERGED, OPTIONS, STEPS, assert_same, distance, runnable, saved, snapshot
from PIL import Image

from fastsam3d.acceleration.family import describe_differences
from fastsam3d.acceleration.handle import accelerate
from fastsam3d.errors import UserError

QUICK = {"seed": 1, "sparse_structure_sampler_params": {"steps": STEPS}, "slat_sampler_params": {"steps": STEPS}}


def run(pipeline, image, **options):
    return pipeline.run(image, **{**QUICK, **options})


def test_off_is_bit_identical_and_counts_a_default_run(trellis, cut_out):
    plain = trellis.run(cut_out)
    with accelerate(trellis, "off") as acceleration:
        assert_same(trellis.run(cut_out), plain)
        report = acceleration.report()
    for stage in report.stages.values():
        assert (stage.conditional_computed, stage.unconditional_computed) == (25, 19)
    assert {"condition", "sparse_structure", "structured_latent", "mesh_decode"} <= set(report.seconds)


REFUSED = {
    "exact_layout": "exact_layout",
    "fast3dcache": "fast3dcache",
    "few_step_shortcut": "few_step_shortcut",
    "paper_release": "released_latent_caching",
}
"""Presets by the technique that asks for more than this pipeline offers."""


@pytest.mark.parametrize("preset", sorted(REFUSED))
def test_what_the_pipeline_does_not_offer_is_refused(trellis, preset):
    before = snapshot(trellis)
    technique = REFUSED[preset]
    with pytest.raises(UserError, match=rf"{technique} needs .* does not offer: set {technique}.enabled=false"):
        accelerate(trellis, preset)
    assert snapshot(trellis) == before


@pytest.mark.parametrize("preset", runnable(REFUSED))
def test_every_preset_runs_and_leaves_no_trace(trellis, cut_out, preset):
    plain, before = run(trellis, cut_out), snapshot(trellis)
    with accelerate(trellis, preset, **(OPTIONS if preset in ("paper", "balanced", "fast") else {})) as acceleration:
        result = run(trellis, cut_out)
        report = acceleration.report()
    assert torch.isfinite(result["gaussian"][0]._xyz).all()
    assert report.stages["sparse_structure"].runs == report.stages["structured_latent"].runs == 1
    if preset in ("paper", "accurate", "balanced", "fast"):
        assert saved(report.stages["sparse_structure"])
    assert snapshot(trellis) == before
    assert_same(run(trellis, cut_out), plain)


@pytest.mark.parametrize("preset", runnable(REFUSED))
def test_one_sampler_for_both_stages(trellis, cut_out, preset):
    trellis.slat_sampler = trellis.sparse_structure_sampler
    plain, before = run(trellis, cut_out), snapshot(trellis)
    with accelerate(trellis, preset, **(OPTIONS if preset in ("paper", "balanced", "fast") else {})) as acceleration:
        result = run(trellis, cut_out)
        report = acceleration.report()
    assert snapshot(trellis) == before
    assert report.stages["sparse_structure"].runs == report.stages["structured_latent"].runs == 1
    if preset == "off":
        assert_same(result, plain)
    assert torch.isfinite(result["gaussian"][0]._xyz).all()
    assert_same(run(trellis, cut_out), plain)


def test_the_plan_of_steps_in_the_latent_stage(trellis, cut_out):
    settings = {"enabled": True, "warmup": 2}
    with accelerate(trellis, "exact", latent_step_caching=settings) as acceleration:
        run(trellis, cut_out)
        assert acceleration.report().stages["structured_latent"].forecast > 0


def test_exact_is_equal_up_to_rounding(trellis, cut_out):
    plain = run(trellis, cut_out)
    with accelerate(trellis, "exact", **{"exact.sparse_surface": False}):
        result = run(trellis, cut_out)
        assert distance(result, plain) < 1e-5
        run(trellis, cut_out, seed=2)
        assert trellis.models["image_cond_model"].calls == 2  # once before, once for both seeds


def test_a_negative_condition_that_is_not_zero(trellis, cut_out):
    cond = trellis.get_cond([cut_out])
    cond["neg_cond"] = cond["cond"].flip(1)
    torch.manual_seed(0)
    plain = trellis.sample_sparse_structure(cond, 1, {"steps": STEPS})
    with accelerate(trellis, "exact"):
        torch.manual_seed(0)
        assert torch.equal(trellis.sample_sparse_structure(cond, 1, {"steps": STEPS}), plain)


def test_two_objects_at_once(trellis, cut_out):
    options = {"num_samples": 2, "formats": ("gaussian",)}
    plain = run(trellis, cut_out, **options)
    for preset in ("off", "exact"):
        with accelerate(trellis, preset):
            assert distance(run(trellis, cut_out, **options), plain) < 1e-5
    with accelerate(trellis, "fast", **OPTIONS):
        run(trellis, cut_out, **options)


def test_several_pictures_of_one_object(trellis, cut_out):
    other = Image.fromarray(np.fliplr(np.array(cut_out)).copy())
    cond = trellis.get_cond([cut_out, other])
    cond["neg_cond"] = cond["neg_cond"][:1]
    before = snapshot(trellis)

    def sampled():
        torch.manual_seed(0)
        with trellis.several_images(trellis.sparse_structure_sampler, 2):
            return trellis.sample_sparse_structure(cond, 1, {"steps": STEPS})

    plain = sampled()
    vars(trellis.sparse_structure_sampler).pop("_inference_model")  # which the pipeline leaves behind
    with accelerate(trellis, "off", **{"exact.condition_cache": True}) as acceleration:
        assert torch.equal(sampled(), plain)
        assert acceleration.report().stages["sparse_structure"].conditional_computed == STEPS
    assert snapshot(trellis) == before


def test_carved_and_merged_runs(trellis, cut_out):
    plain = run(trellis, cut_out)
    with accelerate(trellis, "off", token_carving={"enabled": True, "carved_fraction": 0.3}) as acceleration:
        assert 0 < distance(run(trellis, cut_out), plain) < 0.5
        assert acceleration.report().stages["structured_latent"].tokens_kept < 1.0
    with accelerate(trellis, "off", token_aggregation=ALWAYS_MERGED) as acceleration:
        vertices = run(trellis, cut_out)["mesh"][0].vertices
        assert len(vertices) == acceleration.report().voxels_after < len(plain["mesh"][0].vertices) / 2
        gaps = (plain["mesh"][0].vertices[:, None] - vertices[None]).abs().amax(-1).amin(1)
        assert float(gaps.max()) <= 1.0 / 16 + 1e-6


def test_radiance_fields_keep_the_voxels_whole(trellis, cut_out):
    with accelerate(trellis, "off", token_aggregation=ALWAYS_MERGED) as acceleration:
        run(trellis, cut_out, formats=("gaussian", "radiance_field"))
        report = acceleration.report()
    assert report.voxels_before == report.voxels_after == 0


def test_fewer_steps(trellis, cut_out):
    settings = {"enabled": True, "sparse_structure_steps": 5, "structured_latent_steps": 3}
    with accelerate(trellis, "off", fewer_steps=settings) as acceleration:
        trellis.run(cut_out)
        report = acceleration.report()
    assert report.stages["sparse_structure"].conditional_computed == 5
    assert report.stages["structured_latent"].conditional_computed == 3


def test_a_run_that_breaks_off_leaves_nothing_behind(trellis, cut_out):
    plain = run(trellis, cut_out)
    block = trellis.models["slat_flow_model"].blocks[0]
    with accelerate(trellis, "paper", **OPTIONS):
        expected = run(trellis, cut_out)
        handle = block.register_forward_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(trellis, cut_out)
        handle.remove()
        assert_same(run(trellis, cut_out), expected)
    assert_same(run(trellis, cut_out), plain)


def test_pipelines_that_are_not_as_known(trellis):
    assert describe_differences(trellis) == []

    class Newer(type(trellis.slat_sampler)):
        def sample(self, model, noise, cond, steps=50):
            return None

    trellis.slat_sampler = Newer()
    with pytest.raises(UserError, match=r"slat_sampler.sample takes \(model, noise, cond, steps\), known is"):
        accelerate(trellis, "off")
