"""What a host offers beyond whole evaluations, held against the plain network, and every method on a real pipeline."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastsam3d.acceleration.family import find_host
from fastsam3d.acceleration.handle import accelerate
from fastsam3d.acceleration.patching import Patches
from fastsam3d.acceleration.presets import load_preset, preset_info
from fastsam3d.basics.config_files import preset_names
from fastsam3d.diffusion.hosts.native.sampler import evaluator
from fastsam3d.diffusion.partial.streams import PartialStreams
from fastsam3d.diffusion.sites import EvaluationState
from fastsam3d.diffusion.vocabulary import SPARSE_STRUCTURE, STRUCTURED_LATENT
from fastsam3d.evaluation.tuning.magcache_curves import magcache_ratios

METHODS = [name for name in preset_names() if preset_info(name).kind != "preset"]
TIME = 0.3
"""Inside the guidance interval."""


class Evaluations:
    """The host's evaluations of one stage, outside of a run."""

    def __init__(self, pipeline, stage, keep=True):
        self.host, self.patches = find_host(pipeline), Patches()
        self.state = EvaluationState(running=True)
        self.generator = self.host.generator(stage)
        self.network = self.generator.reverse_fn
        draw = torch.Generator().manual_seed(0)
        self.condition = torch.randn(1, 5, 24, generator=draw)
        if stage == SPARSE_STRUCTURE:
            shapes = self.network.backbone.latent_shapes(1)
            self.x, self.extra = {n: torch.randn(s, generator=draw) for n, s in shapes.items()}, ()
            PartialStreams(self.host.stream_blocks("sparse_structure"), self.state, keep).attach(self.patches)
        else:
            cells = torch.argwhere(torch.rand(16, 16, 16, generator=draw) < 0.02)
            coords = torch.cat([torch.zeros(len(cells), 1, dtype=torch.int64), cells], dim=1).int()
            self.x, self.extra = {"latent": torch.randn(1, len(coords), 8, generator=draw)}, (coords,)

    def __call__(self, x=None, **options):
        session = type("Session", (), {"state": self.state, "replay": None})()
        single = bool(self.extra)
        evaluate = evaluator(self.generator, session, TIME, self.condition, self.extra, single)
        with torch.no_grad():
            return evaluate(self.x if x is None else x, **options)


def close(a, b, tolerance=1e-5):
    assert list(a) == list(b)
    for name in a:
        assert torch.allclose(a[name], b[name], atol=tolerance, rtol=tolerance), name


@pytest.mark.parametrize("stage", [SPARSE_STRUCTURE, STRUCTURED_LATENT])
def test_conditional_only_is_the_conditional_pass(pipeline, stage):
    evaluate = Evaluations(pipeline, stage)
    whole, conditional = evaluate(), evaluate(conditional_only=True)
    assert conditional.delta is None
    close(conditional.conditional, whole.conditional)


def test_keeping_keys_changes_no_bit(pipeline):
    kept, plain = Evaluations(pipeline, SPARSE_STRUCTURE), None
    first = kept()
    kept.patches.restore()
    plain = kept()
    for a, b in ((first.conditional, plain.conditional), (first.delta, plain.delta)):
        assert all(torch.equal(a[name], b[name]) for name in b)


def test_layout_alone_is_the_layout_of_a_whole_evaluation_while_the_shape_stands_still(pipeline):
    evaluate = Evaluations(pipeline, SPARSE_STRUCTURE)
    evaluate()
    moved = {name: v if name == "shape" else v + 0.5 for name, v in evaluate.x.items()}
    alone, whole = evaluate(moved, layout_only=True), None
    whole = evaluate(moved)
    assert "shape" not in alone.conditional
    layout = [name for name in whole.conditional if name != "shape"]
    close(alone.conditional, {name: whole.conditional[name] for name in layout})
    close(alone.delta, {name: whole.delta[name] for name in layout})  # each branch against its own keys


def test_shape_tokens_alone_see_nothing_of_the_others(pipeline):
    evaluate = Evaluations(pipeline, SPARSE_STRUCTURE, keep=False)
    subset = torch.tensor([1, 4, 6])
    alone = evaluate(subset=subset)
    rest = torch.tensor([0, 2, 3, 5, 7])
    assert alone.conditional["shape"][:, rest].abs().max() == 0
    elsewhere = {**evaluate.x, "shape": evaluate.x["shape"].index_add(1, rest, torch.ones(1, 5, 64))}
    close(evaluate(elsewhere, subset=subset).conditional, alone.conditional)
    everything = evaluate(subset=torch.arange(8))
    close(everything.conditional, evaluate().conditional)


def test_voxels_alone_are_the_network_on_those_voxels(pipeline):
    evaluate = Evaluations(pipeline, STRUCTURED_LATENT)
    subset = torch.arange(0, evaluate.x["latent"].shape[1], 3)
    alone = evaluate(subset=subset).conditional["latent"]
    with torch.no_grad():
        direct = evaluate.network.conditional(
            evaluate.x["latent"][:, subset], TIME, evaluate.condition, evaluate.extra[0][subset]
        )
    assert torch.allclose(alone[:, subset], direct, atol=1e-5)
    assert alone[:, 1::3].abs().max() == 0


def attributes(pipeline):
    objects = [pipeline, *pipeline.models.modules()]
    return [{name: id(value) for name, value in vars(thing).items()} for thing in objects]


def same(a, b):
    return (
        torch.equal(a.feats, b.feats)
        and all(torch.equal(a.structure.latents[k], b.structure.latents[k]) for k in a.structure.latents)
        and np.array_equal(a.mesh.vertices, b.mesh.vertices)
    )


TO_SHOW_ON_A_TINY_PIPELINE = {
    "paper_release": {"released_aggregation.minimum_voxels": 0},
    "first_block_cache": {"first_block_cache": {"threshold": 1.0, "latent_threshold": 1.0}},
    "fewer_steps": {"fewer_steps": {"sparse_structure_steps": 5, "structured_latent_steps": 5}},
    "few_step_shortcut": {"few_step_shortcut.structured_latent_steps": 5},
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_skips_something_repeats_itself_and_leaves_no_trace(pipeline, picture, name):
    before, plain = attributes(pipeline), pipeline.run(*picture, seed=1)
    state = torch.random.get_rng_state()
    with accelerate(pipeline, name, **TO_SHOW_ON_A_TINY_PIPELINE.get(name, {})) as acceleration:
        first = pipeline.run(*picture, seed=1)
        report = acceleration.report()
        pipeline.run(*picture, seed=2)
        assert same(pipeline.run(*picture, seed=1), first)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert attributes(pipeline) == before
    assert same(pipeline.run(*picture, seed=1), plain)
    assert np.isfinite(first.mesh.vertices).all()
    saved = sum(s.forecast for s in report.stages.values()) > 0
    fewer = sum(s.conditional_computed + s.conditional_forecast for s in report.stages.values()) < 18
    left_out = any(s.tokens_kept < 1.0 for s in report.stages.values()) or report.voxels_kept < 1.0
    assert saved or fewer or left_out


COMPOSED = [
    {
        "taylorseer": {"enabled": True, "stages": "sparse_structure"},
        "exact_layout": True,
        "guidance_reuse": {"enabled": True, "stages": "sparse_structure"},
        "adaptive_caching": True,
        "token_carving": {"enabled": True, "carved_fraction": 0.5, "warmup": 1},
        "uniform_merge": True,
    },
    {
        "step_caching": {"enabled": True, "warmup": 2, "edge_steps": 1},
        "exact_layout": True,
        "first_block_cache": {"enabled": True, "stages": "structured_latent", "latent_threshold": 1.0},
        "random_drop": True,
    },
    {"fast3dcache": True, "easycache": {"enabled": True, "stages": "structured_latent", "latent_threshold": 5.0}},
]


@pytest.mark.parametrize("settings", COMPOSED, ids="+".join)
def test_different_kinds_work_together(pipeline, picture, settings):
    before, plain = attributes(pipeline), pipeline.run(*picture, seed=1)
    with accelerate(pipeline, "exact", **settings) as acceleration:
        first = pipeline.run(*picture, seed=1)
        report = acceleration.report()
        assert same(pipeline.run(*picture, seed=1), first)
    assert attributes(pipeline) == before
    assert same(pipeline.run(*picture, seed=1), plain)
    assert np.isfinite(first.mesh.vertices).all()
    sparse, latent = (report.stages[stage] for stage in (SPARSE_STRUCTURE, STRUCTURED_LATENT))
    assert latent.forecast > 0
    assert sparse.forecast > 0 or sparse.tokens_kept < 1.0
    assert (sparse.layout_evaluations > 0) == ("exact_layout" in settings)
    if "guidance_reuse" in settings:
        # Nine steps, seven guided; the series computes 0, 1, 4, 7 and 8, and 4 has its guidance from step 1.
        assert (sparse.conditional_forecast, sparse.unconditional_forecast) == (4, 5)


SETTINGS_OF_A_PLAIN_RUN = {
    "taylorseer": {"interval": 1, "latent_interval": 1},
    "hicache": {"interval": 1, "latent_interval": 1},
    "dmd": {"interval": 1, "latent_interval": 1},
    "easycache": {"threshold": 0.0, "latent_threshold": 0.0},
    "first_block_cache": {"threshold": 0.0, "latent_threshold": 0.0},
    "magcache": {"retention": 1.0},
    "guidance_reuse": {"refresh_every": 1},
    "random_drop": {"dropped_fraction": 0.0},
    "uniform_merge": {"factor": 1.0},
}


@pytest.mark.parametrize("name", sorted(SETTINGS_OF_A_PLAIN_RUN))
def test_settings_that_skip_nothing_are_the_plain_run(pipeline, picture, name):
    plain = pipeline.run(*picture, seed=1)
    nothing_exact = load_preset("off").to_dict()["exact"]
    with accelerate(pipeline, name, exact=nothing_exact, **{name: SETTINGS_OF_A_PLAIN_RUN[name]}):
        assert same(pipeline.run(*picture, seed=1), plain)


def test_exact_layout_follows_the_plain_layout_closer_than_its_forecast(pipeline, picture):
    plain = pipeline.run(*picture, seed=1).structure.latents
    settings = {"enabled": True, "stride": 3, "warmup": 2, "edge_steps": 1, "safety_factor": 100.0}
    error, reports = {}, {}
    for exact in (False, True):
        with accelerate(pipeline, "exact", step_caching=settings, exact_layout=exact) as acceleration:
            latents = pipeline.run(*picture, seed=1).structure.latents
            reports[exact] = acceleration.report().stages[SPARSE_STRUCTURE]
        error[exact] = sum(float((latents[n] - plain[n]).norm()) for n in plain if n != "shape")
    assert reports[True].evaluations == reports[False].evaluations
    assert reports[False].layout_evaluations == 0
    assert reports[True].layout_evaluations == reports[True].forecast > 0
    assert error[True] < 0.6 * error[False]


def test_distilled_control_restores_strength_and_mode(pipeline, picture):
    generator = pipeline.models["ss_generator"]
    strength = generator.reverse_fn.strength
    seen = []
    embedder = generator.reverse_fn.backbone.d_embedder
    handle = embedder.register_forward_pre_hook(lambda _module, arguments: seen.extend(arguments[0].tolist()))
    with accelerate(pipeline, "few_step_shortcut") as acceleration:
        pipeline.run(*picture, seed=1)
        report = acceleration.report()
    handle.remove()
    assert set(seen) == {250.0}  # a step of a quarter, times 1000
    assert report.stages[SPARSE_STRUCTURE].evaluations == 4
    assert generator.shortcut is False
    assert generator.reverse_fn.strength == strength


def test_measured_curves_have_the_shape_of_the_run(pipeline, picture):
    before = attributes(pipeline)
    ratios = magcache_ratios(pipeline, lambda: pipeline.run(*picture, seed=1))
    assert attributes(pipeline) == before
    sparse, latent = (pipeline.models[n] for n in ("ss_generator", "slat_generator"))
    for generator, names in (
        (sparse, ("sparse_structure_ratios", "sparse_structure_unconditional_ratios")),
        (latent, ("structured_latent_ratios", "structured_latent_unconditional_ratios")),
    ):
        guided = sum(generator.reverse_fn.is_guided(t) for t in generator.times()[:-1])
        assert [len(ratios[name]) for name in names] == [9, guided]
    assert all(curve[0] == 1.0 and all(0.1 < r < 10 for r in curve) for curve in ratios.values())
    with accelerate(pipeline, "off", magcache={"enabled": True, **ratios}):
        pipeline.run(*picture, seed=1)
