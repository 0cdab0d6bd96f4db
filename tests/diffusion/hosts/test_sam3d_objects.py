from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from host_checks import ALWAYS_MERGED, OPTIONS, STEPS, assert_same, distance, runnable, saved, snapshot
from host_stand_ins.sam3d_objects import Inference

from fastsam3d.acceleration.family import describe_differences, find_host
from fastsam3d.acceleration.handle import accelerate
from fastsam3d.diffusion.vocabulary import AccelerationWarning
from fastsam3d.errors import UserError
from fastsam3d.sam3d.checkpoints.loading import model_config
from fastsam3d.sam3d.models.build import build_models

QUICK = {"seed": 1, "stage1_inference_steps": STEPS, "stage2_inference_steps": STEPS}


def run(pipeline, picture, **options):
    return pipeline.run(*picture, **{**QUICK, **options})


def test_graphs_rest_and_the_report_says_so(sam3d, picture):
    plain = run(sam3d, picture, seed=1)
    with accelerate(sam3d, "off", **{"exact.cuda_graphs": True}) as acceleration:
        assert_same(run(sam3d, picture, seed=1), plain)
        assert "our own pipeline only" in " ".join(acceleration.report().notes)


def test_off_is_bit_identical_and_counts_a_default_run(sam3d, picture):
    random.seed(3)
    plain = sam3d.run(*picture, seed=1)
    states = random.getstate(), torch.random.get_rng_state()
    random.seed(3)
    with accelerate(sam3d, "off") as acceleration:
        assert_same(sam3d.run(*picture, seed=1), plain)
        report = acceleration.report()
    # Whoever draws numbers after the run draws the same ones.
    assert random.getstate() == states[0]
    assert torch.equal(torch.random.get_rng_state(), states[1])
    sparse, latent = report.stages["sparse_structure"], report.stages["structured_latent"]
    assert (sparse.conditional_computed, sparse.unconditional_computed) == (25, 19)
    assert (latent.conditional_computed, latent.unconditional_computed) == (25, 13)
    assert report.objects == 1
    for name in ("depth", "preprocess", "ss_condition", "ss_decode", "slat_condition", "mesh_decode", "surface"):
        assert report.seconds[name] >= 0.0


def test_guidance_is_on_where_the_pipeline_has_it(sam3d, picture):
    network, seen = sam3d.models["ss_generator"].reverse_fn.backbone, []
    network.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append((float(args[1]), "cfg" in kwargs)), with_kwargs=True
    )
    sam3d.run(*picture, seed=1, stage1_only=True)
    plain = list(seen)
    seen.clear()
    with accelerate(sam3d, "off"):
        sam3d.run(*picture, seed=1, stage1_only=True)
    assert seen == plain
    assert max(t for t, unconditional in seen if unconditional) <= 500.0 < min(t for t, _ in seen[-6:])


def test_exact_is_equal_up_to_rounding(sam3d, picture):
    plain = run(sam3d, picture)
    with accelerate(sam3d, "exact", **{"exact.sparse_surface": False}):
        result = run(sam3d, picture)
    assert torch.equal(result["coords"], plain["coords"])
    assert distance(result, plain) < 1e-5
    assert (result["mesh"][0].vertex_attrs - plain["mesh"][0].vertex_attrs).abs().max() < 1e-4


REFUSED = {
    "exact_layout": "exact_layout",
    "fast3dcache": "fast3dcache",
}
"""Presets by the technique that asks for more than this pipeline offers."""


@pytest.mark.parametrize("preset", sorted(REFUSED))
def test_what_the_pipeline_does_not_offer_is_refused(sam3d, preset):
    before = snapshot(sam3d)
    technique = REFUSED[preset]
    with pytest.raises(UserError, match=rf"{technique} needs .* does not offer: set {technique}.enabled=false"):
        accelerate(sam3d, preset)
    assert snapshot(sam3d) == before


@pytest.mark.parametrize("preset", runnable(REFUSED))
def test_every_preset_runs_and_leaves_no_trace(sam3d, picture, preset):
    plain, before = run(sam3d, picture), snapshot(sam3d)
    with accelerate(sam3d, preset, **(OPTIONS if preset in ("paper", "balanced", "fast") else {})) as acceleration:
        result = run(sam3d, picture)
        report = acceleration.report()
    assert torch.isfinite(result["gaussian"][0]._xyz).all()
    assert report.stages["sparse_structure"].runs == report.stages["structured_latent"].runs == 1
    if preset in ("paper", "accurate", "balanced", "fast"):
        assert saved(report.stages["sparse_structure"])
    assert snapshot(sam3d) == before
    assert_same(run(sam3d, picture), plain)


def test_the_plan_of_steps_in_the_latent_stage(sam3d, picture):
    settings = {"enabled": True, "warmup": 2}
    with accelerate(sam3d, "exact", latent_step_caching=settings) as acceleration:
        run(sam3d, picture)
        assert acceleration.report().stages["structured_latent"].forecast > 0


def test_the_notebooks_object(sam3d, picture):
    inference = Inference(sam3d)
    image, mask = picture
    plain = inference(image, mask > 0, seed=1)
    with accelerate(inference, "off") as acceleration:
        assert acceleration.pipeline is sam3d
        assert_same(inference(image, mask > 0, seed=1), plain)
        again = accelerate(inference, "off")
        assert not acceleration.active  # the newer one took its place
    again.remove()


def test_steps_and_strength_of_the_moment_are_used(sam3d, picture):
    plain = run(sam3d, picture, stage1_inference_steps=7)
    with accelerate(sam3d, "off") as acceleration:
        assert_same(run(sam3d, picture, stage1_inference_steps=7), plain)
        assert acceleration.report().stages["sparse_structure"].conditional_computed == 7
        assert sam3d.models["ss_generator"].inference_steps == 25
        sam3d.ss_cfg_strength = 0
        acceleration.reset_report()
        inside = run(sam3d, picture)
        assert acceleration.report().stages["sparse_structure"].unconditional_computed == 0
    assert_same(run(sam3d, picture), inside)


def test_fewer_steps(sam3d, picture):
    settings = {"enabled": True, "sparse_structure_steps": 5, "structured_latent_steps": 3}
    with accelerate(sam3d, "off", fewer_steps=settings) as acceleration:
        sam3d.run(*picture, seed=1)
        report = acceleration.report()
    assert report.stages["sparse_structure"].conditional_computed == 5
    assert report.stages["structured_latent"].conditional_computed == 3
    assert sam3d.models["ss_generator"].inference_steps == 25


def test_a_run_that_breaks_off_leaves_nothing_behind(sam3d, picture):
    plain = run(sam3d, picture)
    block = sam3d.models["slat_generator"].reverse_fn.backbone.blocks[1]
    calls = []

    def fail(*_):
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("out of memory")

    with accelerate(sam3d, "paper", **OPTIONS):
        expected = run(sam3d, picture)
        handle = block.register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            run(sam3d, picture)
        handle.remove()
        # As without acceleration: the pipeline does not put back the step count of a run that broke off.
        assert sam3d.models["slat_generator"].inference_steps == STEPS
        assert_same(run(sam3d, picture), expected)
    sam3d.models["slat_generator"].inference_steps = 25
    assert_same(run(sam3d, picture), plain)


def test_two_pipelines_do_not_know_of_each_other(make_sam3d, picture):
    one, other = make_sam3d(), make_sam3d()
    plain = run(other, picture)
    before = snapshot(other)
    with accelerate(one, "paper", **OPTIONS) as acceleration:
        assert snapshot(other) == before
        assert_same(run(other, picture), plain)
        assert_same(run(copy.deepcopy(one), picture), plain)
        assert acceleration.report().objects == 0


@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision(make_sam3d, picture, autocast):
    pipeline = make_sam3d(dtype="bfloat16")
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        plain = run(pipeline, picture)
        with accelerate(pipeline, "off"):
            assert_same(run(pipeline, picture), plain)
        with accelerate(pipeline, "off", **{"exact.cast_weights": True}):
            assert_same(run(pipeline, picture), plain)
        with accelerate(pipeline, "balanced", **OPTIONS) as acceleration:
            result = run(pipeline, picture)
            assert acceleration.report().stages["structured_latent"].forecast > 0
    assert torch.isfinite(result["gaussian"][0]._xyz).all()
    assert result["shape"].dtype == torch.float32


def test_carved_runs(sam3d, picture):
    plain = run(sam3d, picture)
    with accelerate(sam3d, "off", token_carving={"enabled": True, "carved_fraction": 0.0}):
        assert distance(run(sam3d, picture), plain) < 1e-5
    errors = []
    for fraction in (0.1, 0.6):
        settings = {"enabled": True, "carved_fraction": fraction}
        with accelerate(sam3d, "off", token_carving=settings, **{"exact.shared_prefix": True}) as acceleration:
            errors.append(distance(run(sam3d, picture), plain))
            assert 1.0 - fraction < acceleration.report().stages["structured_latent"].tokens_kept < 1.0
    assert 0 < errors[0] < errors[1] < 0.5


def test_carving_goes_with_everything_exact(sam3d, picture):
    carving = {"enabled": True, "carved_fraction": 0.5}
    with accelerate(sam3d, "off", token_carving=carving):
        carved = run(sam3d, picture)
    with accelerate(sam3d, "exact", token_carving=carving):
        # Left-out tokens stay in view of the others, whichever way attention is computed.
        assert distance(run(sam3d, picture), carved) < 1e-5


def test_merged_voxels_are_put_back_exactly(sam3d, picture):
    plain = run(sam3d, picture)
    with accelerate(sam3d, "off", token_aggregation=ALWAYS_MERGED) as acceleration:
        result = run(sam3d, picture)
        report = acceleration.report()
    assert report.voxels_before == len(plain["coords"]) > 2 * report.voxels_after
    assert torch.equal(result["coords"], plain["coords"])
    assert torch.equal(result["scale"], plain["scale"])
    # The stand-in's mesh has a vertex in the middle of every voxel: each voxel has one within half a merged cell.
    vertices = result["mesh"][0].vertices
    assert len(vertices) == report.voxels_after
    gaps = (plain["mesh"][0].vertices[:, None] - vertices[None]).abs().amax(-1).amin(1)
    assert float(gaps.max()) <= 1.0 / 16 + 1e-6
    # Gaussians are as much larger as the cells are. The network's own answer differs, the mean size hardly.
    ratio = result["gaussian"][0].get_scaling.mean() / plain["gaussian"][0].get_scaling.mean()
    assert 1.5 < float(ratio) < 2.5


def test_merging_by_nothing_and_edited_voxels(sam3d, picture):
    plain = run(sam3d, picture)
    with accelerate(sam3d, "off", token_aggregation={**ALWAYS_MERGED, "factor_large": 1.0}):
        assert_same(run(sam3d, picture), plain)
    inputs = sam3d.preprocess_image(sam3d.merge_image_and_mask(*picture))
    with accelerate(sam3d, "off", token_carving=True, token_aggregation=ALWAYS_MERGED):
        own = plain["coords"][::2].contiguous()  # of no run: nothing is known of them but where they are
        slat = sam3d.sample_slat(inputs, own, 3)
        assert len(slat.feats) < len(own)
        assert len(sam3d.decode_slat(slat, ["mesh"])["mesh"][0].vertices) == len(slat.feats)


def test_distilled_sampling_is_not_forecast(sam3d, picture):
    plain = run(sam3d, picture, use_stage1_distillation=True)
    with accelerate(sam3d, "off", step_caching={"enabled": True, "warmup": 1}) as acceleration:
        assert_same(run(sam3d, picture, use_stage1_distillation=True), plain)
        assert acceleration.report().stages["sparse_structure"].evaluations == STEPS


def test_pictures_are_encoded_once(sam3d, picture):
    image, mask = picture
    encoder = {n: [e.backbone for e, _ in f.embedder_list] for n, f in sam3d.condition_embedders.items()}
    first, second = (encoder[n][0] for n in ("ss_condition_embedder", "slat_condition_embedder"))
    plain = run(sam3d, (image, np.roll(mask, 2, 1)))
    assert (first.calls, second.calls, sam3d.depth_model.calls) == (2, 2, 1)
    with accelerate(sam3d, "off", **{"exact.shared_features": True}):
        run(sam3d, picture)
        assert (first.calls, second.calls, sam3d.depth_model.calls) == (4, 2, 2)
        # The next object of the picture: its crop is new, the whole picture and its depth are not.
        assert_same(run(sam3d, (image, np.roll(mask, 2, 1))), plain)
        assert (first.calls, second.calls) == (5, 2)
        assert sam3d.depth_model.calls == 2
    assert sam3d.depth_model.calls == 2
    with torch.no_grad():
        second.proj.weight += 1.0
    with accelerate(sam3d, "off", **{"exact.shared_features": True}):
        run(sam3d, picture)  # other weights have other features
    assert (first.calls, second.calls) == (7, 4)


def test_voxel_tables_are_built_once_a_level(sam3d, picture):
    plain = run(sam3d, picture)
    convolutions = [m for m in sam3d.models["slat_generator"].modules() if hasattr(m, "tables_built")]
    for convolution in convolutions:
        convolution.tables_built = 0
    with accelerate(sam3d, "off", **{"exact.index_cache": True}):
        assert_same(run(sam3d, picture), plain)
        assert sum(c.tables_built for c in convolutions) == 2
        run(sam3d, (np.fliplr(picture[0]).copy(), picture[1]))  # other voxels, other tables
        assert sum(c.tables_built for c in convolutions) == 4


def test_the_surface_is_extracted_at_the_voxels(sam3d, picture):
    from fastsam3d.modules.flexicubes import extract_surface

    decoder = sam3d.models["slat_decoder_mesh"]
    kept = []
    decoder.out_layer.register_forward_hook(lambda *args: kept.append(args[-1]))
    with accelerate(sam3d, "off", **{"exact.sparse_surface": True}):
        mesh = run(sam3d, picture)["mesh"][0]
    surface = extract_surface(kept[0].coords[:, 1:], kept[0].feats, 16)
    assert decoder.mesh_extractor.calls == 0
    assert type(mesh).__name__ == "MeshExtractResult"
    assert torch.equal(mesh.vertices, surface.vertices)
    assert mesh.res == 16


class Compiled:
    """The pipeline's own wrapper of a compiled function: takes plain containers and tensors, looks at nothing else."""

    def __init__(self, function):
        self.function, self.calls = function, 0

    def __call__(self, *args, **kwargs):
        for value in (*args, *kwargs.values()):
            assert value is None or isinstance(value, dict | torch.Tensor | bool | int | float)
        self.calls += 1
        return self.function(*args, **kwargs)


def test_compiled_structure_network(sam3d, picture):
    plain = run(sam3d, picture)
    guidance = sam3d.models["ss_generator"].reverse_fn
    guidance.inner_forward = Compiled(guidance.inner_forward)
    before = snapshot(sam3d)
    with pytest.warns(AccelerationWarning, match="compiled.*compile_model=False"):
        acceleration = accelerate(sam3d, "balanced", **OPTIONS)
    with acceleration:
        guidance.inner_forward.calls = 0
        run(sam3d, picture)
        stage = acceleration.report().stages["sparse_structure"]
        assert stage.evaluations == guidance.inner_forward.calls
        assert saved(stage)
    assert snapshot(sam3d) == before
    with accelerate(sam3d, "off"):
        assert_same(run(sam3d, picture), plain)


def test_a_compiled_latent_network_cannot_be_carved(sam3d):
    network = sam3d.models["slat_generator"].reverse_fn.backbone
    network.blocks[0] = torch.compile(network.blocks[0], backend="eager")
    with pytest.raises(UserError, match=r"token_carving cannot be attached.*compiled.*token_carving.enabled=false"):
        accelerate(sam3d, "paper")
    accelerate(sam3d, "balanced").remove()


class Midpoint:
    pass


def test_pipelines_that_are_not_as_known(sam3d):
    assert describe_differences(sam3d) == []
    sam3d.models["slat_generator"]._solver = Midpoint()
    with pytest.raises(UserError, match="integrates by Midpoint"):
        accelerate(sam3d, "balanced")
    sam3d.models["slat_generator"]._solver = sam3d.models["ss_generator"]._solver
    del sam3d.models["slat_decoder_mesh"].mesh_extractor
    lines = describe_differences(sam3d)
    assert lines == ["models.slat_decoder_mesh.mesh_extractor is missing (sparse surface)"]
    accelerate(sam3d, "exact").remove()  # works without
    del sam3d.models["ss_generator"].reverse_fn.strength
    with pytest.raises(UserError, match=r"not the SAM 3D Objects.*\n.*reverse_fn.strength is missing \(sampling\)"):
        accelerate(sam3d, "off")


def test_changed_signatures_are_named(sam3d):
    class Newer(type(sam3d)):
        def sample_slat(self, slat_input, voxels, steps=25):
            return super().sample_slat(slat_input, voxels, steps)

    sam3d.__class__ = Newer
    (line,) = describe_differences(sam3d)
    assert line.startswith("sample_slat takes (slat_input, voxels, steps), known is (slat_input, coords,")


def test_a_host_is_found_by_its_parts(sam3d, trellis):
    assert find_host(sam3d).name.startswith("SAM 3D Objects")
    assert find_host(trellis).name.startswith("TRELLIS")
    with pytest.raises(UserError, match=r"known are .*SAM 3D Objects.*TRELLIS"):
        find_host(object())


def test_costs_are_known_for_the_published_sizes_only(sam3d, monkeypatch):
    host = find_host(sam3d)
    assert host.costs() is None
    with torch.device("meta"):
        models = build_models(model_config("sam3d"), ())
    networks = {"sparse_structure": "ss_generator", "structured_latent": "slat_generator"}
    monkeypatch.setattr(host, "network", lambda stage: models[networks[stage]].reverse_fn.backbone)
    assert host.costs().sparse_structure().total == pytest.approx(9.09e12, rel=0.01)
