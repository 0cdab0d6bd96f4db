from __future__ import annotations

import contextlib
import copy
import gc
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from fastsam3d.acceleration.handle import accelerate
from fastsam3d.diffusion.maths import full_steps, network_evaluations
from fastsam3d.diffusion.vocabulary import AccelerationWarning
from fastsam3d.errors import UserError
from fastsam3d.evaluation.tuning.magcache_curves import magcache_ratios
from fastsam3d.modules.sparse_tensor import SparseIndex

SMALL = {"token_aggregation.minimum_voxels": 0}


def attributes(pipeline):
    """The instance attributes of everything that could be patched, by identity."""
    objects = [pipeline, *pipeline.models.modules()]
    for embedder in pipeline.condition_embedders.values():
        objects += list(embedder.modules())
    return [{name: id(value) for name, value in vars(thing).items()} for thing in objects]


def same(a, b):
    return (
        torch.equal(a.feats, b.feats)
        and torch.equal(a.structure.logits, b.structure.logits)
        and all(torch.equal(a.structure.latents[k], b.structure.latents[k]) for k in a.structure.latents)
        and np.array_equal(a.mesh.vertices, b.mesh.vertices)
        and np.array_equal(a.mesh.vertex_colors, b.mesh.vertex_colors)
    )


def distance(a, b):
    return float((a - b).norm() / b.norm())


def test_off_is_bit_identical_and_counts(pipeline, picture):
    plain = pipeline.run(*picture, seed=1)
    with accelerate(pipeline, "off") as acceleration:
        assert same(pipeline.run(*picture, seed=1), plain)
        report = acceleration.report()
    sparse, latent = (pipeline.models[n] for n in ("ss_generator", "slat_generator"))
    for stage, generator in (("sparse_structure", sparse), ("structured_latent", latent)):
        guided = [generator.reverse_fn.is_guided(t) for t in generator.times()[:-1]]
        assert report.stages[stage].evaluations == network_evaluations(range(len(guided)), guided)
        assert report.stages[stage].forecast == 0
    assert report.objects == 1
    assert report.seconds["structured_latent"] > 0


def test_exact_savings_really_save(pipeline, picture):
    calls = {"to_kv": 0, "make_index": 0}
    generator = pipeline.models["slat_generator"]
    backbone = generator.reverse_fn.backbone
    handle = backbone.blocks[0].cross_attn.to_kv.register_forward_hook(
        lambda *_: calls.__setitem__("to_kv", calls["to_kv"] + 1)
    )
    original = backbone.make_index
    backbone.make_index = lambda coords: (
        calls.__setitem__("make_index", calls["make_index"] + 1),
        original(coords),
    )[1]
    with accelerate(pipeline, "exact") as acceleration:
        pipeline.run(*picture, seed=1)
        assert calls["to_kv"] == 1  # once a run; the unconditional pass needs none
        # One index for the run, beside the one from which the run's tokens are read before it starts.
        assert calls["make_index"] <= 2
        pipeline.run(*picture, seed=2)
        assert calls["to_kv"] == 2  # nothing is kept from run to run
        caches = acceleration.pipeline.models["slat_generator"]
        assert caches is generator
    handle.remove()
    del backbone.make_index


@pytest.mark.parametrize("preset", ["exact", "balanced", "paper", "fast"])
def test_removal_leaves_no_trace(pipeline, picture, preset):
    before = attributes(pipeline)
    plain = pipeline.run(*picture, seed=1)
    acceleration = accelerate(pipeline, preset, **SMALL)
    assert attributes(pipeline) != before
    pipeline.run(*picture, seed=1)
    acceleration.remove()
    acceleration.remove()
    assert attributes(pipeline) == before
    assert same(pipeline.run(*picture, seed=1), plain)
    assert not acceleration.active
    assert acceleration.report().objects == 1


def test_an_exception_in_the_middle_leaves_no_trace(pipeline, picture):
    before = attributes(pipeline)
    plain = pipeline.run(*picture, seed=1)

    def stop(stage, done, total):
        if stage == "structured_latent" and done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), accelerate(pipeline, "paper", **SMALL, fewer_steps=True):
        pipeline.run(*picture, seed=1, progress=stop)
    assert attributes(pipeline) == before
    assert same(pipeline.run(*picture, seed=1), plain)


def test_a_broken_off_run_does_not_disturb_the_next(pipeline, picture):
    def stop(stage, done, total):
        if stage == "structured_latent" and done == 4:
            raise KeyboardInterrupt

    with accelerate(pipeline, "paper", **SMALL):
        first = pipeline.run(*picture, seed=1)
        with pytest.raises(KeyboardInterrupt):
            pipeline.run(*picture, seed=2, progress=stop)
        assert same(pipeline.run(*picture, seed=1), first)


def test_a_broken_off_run_leaves_no_tables_behind(pipeline, picture):
    def stop(stage, done, total):
        if stage == "structured_latent" and done == 4:
            raise KeyboardInterrupt

    def tables():
        gc.collect()
        return sum(type(thing) is SparseIndex for thing in gc.get_objects())

    before = tables()
    with accelerate(pipeline, "balanced"):
        with contextlib.suppress(KeyboardInterrupt):
            pipeline.run(*picture, seed=1, progress=stop)
        assert tables() == before


def test_threads_take_turns(pipeline, picture):
    """What is attached has one state: a second thread waits, and both get what they would have got alone."""
    steps = pipeline.models["ss_generator"].inference_steps
    with accelerate(pipeline, "fast") as acceleration:
        alone = [pipeline.run(*picture, seed=seed) for seed in (1, 2)]
        met = [threading.Event(), threading.Event()]

        def run(index):
            def wait(stage, done, total):
                if (stage, done) == ("sparse_structure", 1):
                    met[index].set()
                    met[1 - index].wait(0.3)  # the other one gets here meanwhile, if it is let in

            return pipeline.run(*picture, seed=1 + index, progress=wait)

        with ThreadPoolExecutor(2) as pool:
            together = list(pool.map(run, (0, 1)))
        assert all(same(a, b) for a, b in zip(together, alone, strict=True))
        assert acceleration.report().objects == 4
    assert pipeline.models["ss_generator"].inference_steps == steps


def test_removal_waits_for_a_run_in_another_thread(pipeline, picture):
    acceleration = accelerate(pipeline, "fast")
    expected = pipeline.run(*picture, seed=1)
    running, removed = threading.Event(), threading.Event()

    def wait(stage, done, total):
        if (stage, done) == ("sparse_structure", 2):
            running.set()
            removed.wait(0.3)

    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(pipeline.run, *picture, seed=1, progress=wait)
        assert running.wait(600)
        acceleration.remove()
        removed.set()
        assert same(result.result(), expected)
    assert acceleration.report().objects == 2


def test_what_was_taken_off_does_not_come_back_unnoticed(pipeline):
    acceleration = accelerate(pipeline, "balanced")
    with acceleration:
        pass
    with pytest.raises(UserError, match="call accelerate again"), acceleration:
        pass


def test_curves_are_not_measured_on_an_accelerated_pipeline(pipeline):
    with accelerate(pipeline, "balanced"), pytest.raises(UserError, match="remove the acceleration"):
        magcache_ratios(pipeline, lambda: None)


def test_a_second_pipeline_is_not_touched(make_pipeline, picture):
    pipeline, other = make_pipeline(0), make_pipeline(0)
    plain, before = other.run(*picture, seed=1), attributes(other)
    with accelerate(pipeline, "paper", **SMALL), accelerate(other, "off") as counted:
        assert not same(pipeline.run(*picture, seed=1), plain)
        assert same(other.run(*picture, seed=1), plain)
        assert counted.report().objects == 1
    assert attributes(other) == before


def test_accelerating_twice_replaces(pipeline, picture):
    before = attributes(pipeline)
    first = accelerate(pipeline, "paper", **SMALL)
    second = accelerate(pipeline, "balanced")
    assert not first.active
    once = pipeline.run(*picture, seed=1)
    assert first.report().objects == 0
    second.remove()
    assert attributes(pipeline) == before
    with accelerate(pipeline, "balanced"):
        assert same(pipeline.run(*picture, seed=1), once)


def test_a_wrong_setting_leaves_the_running_acceleration_alone(pipeline):
    first = accelerate(pipeline, "balanced")
    with pytest.raises(UserError):
        accelerate(pipeline, "balanced", **{"step_caching.stride": -1})
    assert first.active
    first.remove()


def test_unknown_pipelines_are_refused():
    with pytest.raises(UserError, match=r"known are .*Pipeline"):
        accelerate(object())


def test_a_deep_copy_of_an_accelerated_pipeline_is_plain(pipeline, picture):
    plain = pipeline.run(*picture, seed=1)
    with accelerate(pipeline, "paper", **SMALL) as acceleration:
        twin = copy.deepcopy(pipeline)
        assert same(twin.run(*picture, seed=1), plain)
        assert acceleration.report().objects == 0


def test_a_pickled_copy_of_an_accelerated_pipeline_is_plain(pipeline, picture):
    plain = pipeline.run(*picture, seed=1)
    with accelerate(pipeline, "paper", **SMALL) as acceleration:
        twin = pickle.loads(pickle.dumps(pipeline))
        assert same(twin.run(*picture, seed=1), plain)
        assert acceleration.report().objects == 0
        accelerate(twin, "balanced").remove()
        assert acceleration.active


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_weights_that_were_made_in_inference_mode(make_pipeline, picture, autocast):
    """PyTorch does not count the changes of such tensors, and refuses to say how many there were."""
    with torch.inference_mode():
        pipeline = make_pipeline()
    reference = make_pipeline()
    pipeline.autocast = reference.autocast = autocast
    with accelerate(pipeline, "exact"), accelerate(reference, "exact"):
        assert same(pipeline.run(*picture, seed=1), reference.run(*picture, seed=1))


def test_global_random_numbers_are_left_alone(pipeline, picture):
    state = torch.random.get_rng_state()
    with accelerate(pipeline, "paper", **SMALL):
        pipeline.run(*picture, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_order_of_objects_has_no_say(pipeline, picture):
    with accelerate(pipeline, "paper", **SMALL):
        first, second = pipeline.run(*picture, seed=1), pipeline.run(*picture, seed=2)
        assert same(pipeline.run(*picture, seed=2), second)
        assert same(pipeline.run(*picture, seed=1), first)


def test_step_caching_counts_follow_its_plan(pipeline, picture):
    generator = pipeline.models["ss_generator"]
    guided = [generator.reverse_fn.is_guided(t) for t in generator.times()[:-1]]
    plan = full_steps(guided, 2, 2, 2)
    settings = {"enabled": True, "stride": 2, "warmup": 2, "safety_factor": 100.0}
    with accelerate(pipeline, "off", step_caching=settings) as acceleration:
        pipeline.run(*picture, seed=1)
        sparse = acceleration.report().stages["sparse_structure"]
    assert sparse.conditional_computed == len(plan)
    assert sparse.evaluations == network_evaluations(plan, guided)
    assert sparse.conditional_forecast == len(guided) - len(plan)
    assert sparse.evaluations + sparse.forecast == network_evaluations(range(len(guided)), guided)


def test_stride_one_is_the_plain_run(pipeline, picture):
    plain = pipeline.run(*picture, seed=1)
    settings = {"enabled": True, "stride": 1}
    with accelerate(pipeline, "off", step_caching=settings, latent_step_caching=settings):
        assert same(pipeline.run(*picture, seed=1), plain)


def test_carving_nothing_is_the_plain_run(pipeline, picture):
    plain = pipeline.run(*picture, seed=1)
    with accelerate(pipeline, "off", token_carving={"enabled": True, "carved_fraction": 0.0}):
        result = pipeline.run(*picture, seed=1)
    assert distance(result.feats, plain.feats) < 1e-6


def test_carving_keeps_close_and_counts_tokens(pipeline, picture):
    plain = pipeline.run(*picture, seed=1)
    errors = []
    for fraction in (0.1, 0.5):
        settings = {"enabled": True, "carved_fraction": fraction}
        with accelerate(pipeline, "off", token_carving=settings) as acceleration:
            result = pipeline.run(*picture, seed=1)
            latent = acceleration.report().stages["structured_latent"]
        errors.append(distance(result.feats, plain.feats))
        # All cells at steps 0, 1, the edge and the last; the carved share at the others.
        assert latent.tokens_kept < 1.0
        assert latent.tokens_kept > 1.0 - fraction
        assert latent.forecast == 0
    assert 0 < errors[0] < errors[1] < 0.2


def test_fewer_steps_avoid_the_edge_and_are_taken_back(pipeline, picture):
    settings = {"enabled": True, "sparse_structure_steps": 4, "structured_latent_steps": 2}
    with accelerate(pipeline, "off", fewer_steps=settings) as acceleration:
        pipeline.run(*picture, seed=1)
        report = acceleration.report()
        assert pipeline.models["ss_generator"].inference_steps == 9
    assert report.stages["sparse_structure"].conditional_computed == 5
    assert report.stages["structured_latent"].conditional_computed == 3


def test_fewer_steps_without_guidance_save_no_unconditional_passes(pipeline, picture):
    settings = {"enabled": True, "sparse_structure_steps": 4, "structured_latent_steps": 4}
    for name in ("ss_generator", "slat_generator"):
        pipeline.models[name].reverse_fn.strength = 0.0
    with accelerate(pipeline, "off", fewer_steps=settings) as acceleration:
        pipeline.run(*picture, seed=1)
        report = acceleration.report()
    for stage in ("sparse_structure", "structured_latent"):
        assert report.stages[stage].evaluations == 4  # no edge that a fifth would have to avoid
        flops = report.network_flops[stage]
        assert flops.plain / flops.computed == pytest.approx(9 / 4)


def test_distilled_mode_forecasts_nothing(pipeline, picture):
    generator = pipeline.models["ss_generator"]
    generator.shortcut, generator.reverse_fn.strength = True, 0.0
    plain = pipeline.run(*picture, seed=1)
    with accelerate(pipeline, "off", step_caching={"enabled": True, "warmup": 1}) as acceleration:
        assert same(pipeline.run(*picture, seed=1), plain)
        assert acceleration.report().stages["sparse_structure"].forecast == 0


def test_strength_of_the_moment_is_used(pipeline, picture):
    with accelerate(pipeline, "off"):
        pipeline.models["ss_generator"].reverse_fn.strength = 0.5
        inside = pipeline.run(*picture, seed=1)
    assert same(pipeline.run(*picture, seed=1), inside)


def test_a_long_stride_warns(pipeline):
    with pytest.warns(AccelerationWarning, match="cliff") as caught:
        accelerate(pipeline, "paper", **{"step_caching.stride": 5}).remove()
    assert len(caught) == 1


def test_report_reads_well(pipeline, picture):
    with accelerate(pipeline, "paper", **SMALL) as acceleration:
        pipeline.run(*picture, seed=1)
        report = acceleration.report()
        text, values = str(report), report.to_dict()
        assert repr(acceleration) == "<Acceleration 'paper', attached to Pipeline>"
        acceleration.reset_report()
        assert acceleration.report().stages["sparse_structure"].evaluations == 0
        pipeline.run(*picture, seed=1)
        assert acceleration.report().stages["sparse_structure"].evaluations > 0
    for word in ("preset paper", "sparse_structure", "structured_latent", "forecast", "voxels", "peak memory"):
        assert word in text
    assert repr(acceleration) == "<Acceleration 'paper', removed from Pipeline>"
    head = text.splitlines()[0]
    exact = sum(name.startswith("exact.") for name in report.techniques)
    assert "step_caching" in head and head.endswith(f"{exact} exact savings), 1 object") and len(head) < 120
    assert values["stages"]["sparse_structure"]["forecast"] == report.stages["sparse_structure"].forecast
    assert values["objects"] == 1


def test_shared_layers_are_bit_identical_and_run_once(pipeline, picture):
    plain = pipeline.run(*picture, seed=1)
    backbone = pipeline.models["slat_generator"].reverse_fn.backbone
    calls = {}
    for name, module in (("shared", backbone.input_blocks[0].emb_layers), ("not shared", backbone.blocks[0].mlp)):
        calls[name] = 0
        module.register_forward_hook(lambda *_, name=name: calls.__setitem__(name, calls[name] + 1))
    carving = {"enabled": True, "carved_fraction": 0.5}
    with accelerate(pipeline, "off", **{"exact.shared_prefix": True}) as acceleration:
        assert same(pipeline.run(*picture, seed=1), plain)
        latent = acceleration.report().stages["structured_latent"]
    assert calls["shared"] == latent.conditional_computed
    assert calls["not shared"] == latent.evaluations
    with accelerate(pipeline, "off", token_carving=carving):
        carved = pipeline.run(*picture, seed=1)
    with accelerate(pipeline, "off", token_carving=carving, **{"exact.shared_prefix": True}):
        assert same(pipeline.run(*picture, seed=1), carved)
